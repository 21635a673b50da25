"""Maintenance: the cloud's notices that this machine is about to be taken away.

Owns the watchers, one per cloud, and who is asked: a thread that waits for the notice and calls a function once.
Refuses to know what a run does about it. A cloud that can't be asked costs a line, never the training.

    with watched("auto", on_notice=lambda text: ...):
        ...
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

_log = logging.getLogger(__name__)

_PRODUCT = Path("/sys/class/dmi/id/product_name")
_HOST = "metadata.google.internal"
# What Google's metadata server says of an instance once it is to go. A maintenance that migrates the machine while it
# runs (MIGRATE_ON_HOST_MAINTENANCE) is no reason to stop; machines with GPUs or TPUs are never migrated but terminated.
# https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice
_TERMINATES, _PREEMPTED = ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE"), ("preempted", "TRUE")
_WAIT = 60  # seconds that the server may hold a request
_PAUSE = 1.0  # at least, between two requests: not every server holds them


class Watcher(Protocol):
    """Watches from its construction on."""

    def close(self) -> None:
        """Calls nobody from here on."""


def find_watcher(
    kind: str,
    *,
    on_notice: Callable[[str], None],
    environ: Mapping[str, str] | None = None,
    product: Path = _PRODUCT,
) -> Watcher | None:
    """The watcher of this machine, already watching, or None where nobody gives notice.

    Args:
        kind: "gce"; "none"; or "auto", which is gce on Google's machines. They are known by a file of the kernel's:
            nobody is asked over the network elsewhere.
        on_notice: called once, from a thread, with what is about to happen.
        environ: GCE_METADATA_HOST names another host and port of the metadata server, as for Google's own libraries.
    """
    environ = os.environ if environ is None else environ
    if kind == "gce" or (kind == "auto" and _is_google(product)):
        return GceMetadata(on_notice, host=environ.get("GCE_METADATA_HOST") or _HOST)
    return None


@contextlib.contextmanager
def watched(
    kind: str, *, on_notice: Callable[[str], None], environ: Mapping[str, str] | None = None
) -> Iterator[Watcher | None]:
    """Watches while it is open; see `find_watcher`."""
    watcher = find_watcher(kind, on_notice=on_notice, environ=environ)
    try:
        yield watcher
    finally:
        if watcher is not None:
            watcher.close()


def _is_google(product: Path) -> bool:
    try:
        return product.read_text().startswith("Google")
    except OSError:
        return False


class GceMetadata:
    """Asks the metadata server of Google Compute Engine (and so of GKE) about maintenance and preemption.

    Args:
        on_notice: see `find_watcher`. A maintenance that was announced before we began doesn't count, since it may be
            an hour away, and a run that ends at once would only be started again on this machine.
        host: the server, with its port where that isn't 80.
        retry: seconds until a server that failed is asked again.
    """

    def __init__(
        self,
        on_notice: Callable[[str], None],
        *,
        host: str = _HOST,
        retry: float = 10.0,
    ):
        self._on_notice, self._host, self._retry = on_notice, host, retry
        self._over, self._lock, self._complained = threading.Event(), threading.Lock(), False
        for key, ending in (_TERMINATES, _PREEMPTED):
            threading.Thread(target=self._watch, args=(key, ending), name=f"gce-{key}", daemon=True).start()

    def close(self) -> None:
        self._over.set()

    def _watch(self, key: str, ending: str) -> None:
        before, etag = None, "0"  # the server answers at once if its etag is another
        while not self._over.is_set():
            asked = time.monotonic()
            try:
                value, etag = self._ask(key, etag)
            except (OSError, http.client.HTTPException) as error:
                self._complain(f"{type(error).__name__}: {error}")
                self._over.wait(self._retry)
                continue
            if value == ending and before is None and key == _TERMINATES[0]:
                _log.warning(
                    f"{self._host} announced the end of this machine before this run began; training until then"
                )
            elif value == ending and before != ending:
                self._notify(f"{key} {value}")
            before = value
            self._over.wait(asked + _PAUSE - time.monotonic())

    def _ask(self, key: str, etag: str) -> tuple[str, str]:
        """The value and its etag, as soon as the etag is another than the given one, or after a while.

        By http.client, since urllib would ask a proxy where the environment names one.
        """
        connection = http.client.HTTPConnection(self._host, timeout=_WAIT + 10)
        try:
            query = urlencode({"wait_for_change": "true", "timeout_sec": _WAIT, "last_etag": etag})
            path = f"/computeMetadata/v1/instance/{key}?{query}"
            connection.request("GET", path, headers={"Metadata-Flavor": "Google"})
            answer = connection.getresponse()
            if answer.status != 200 or answer.headers.get("Metadata-Flavor") != "Google":
                raise http.client.HTTPException(f"{key}: status {answer.status}, or not Google's server")
            return answer.read(1000).decode("ascii", "replace").strip(), answer.headers.get("ETag", "0")
        finally:
            connection.close()

    def _notify(self, text: str) -> None:
        with self._lock:
            first = not self._over.is_set()
            self._over.set()
        if first:
            self._on_notice(text)

    def _complain(self, why: str) -> None:
        with self._lock:
            first = not self._complained and not self._over.is_set()
            self._complained = True
        if first:
            _log.warning(f"no notice of maintenance or preemption can be had from {self._host}: {why}")
