"""TrainJob status: progress, time left and metrics, posted to Kubeflow Trainer while a TrainJob trains.

Trainer (2.2 and newer, feature gate TrainJobStatus) tells pods an address, a certificate and a token; what it hears is
shown by `kubectl describe trainjob` and by the Python client. Owns the posts, which a thread of its own makes: training
neither waits for them nor fails with them.
https://github.com/kubeflow/trainer/tree/master/docs/proposals/2779-trainjob-progress

    status = open_status(environ)
    status.tell(0.45, seconds_left=120.0, metrics={"loss": 0.15})
    status.close()
"""

from __future__ import annotations

import json
import logging
import math
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

_log = logging.getLogger(__name__)

_URL, _CERTIFICATE, _TOKEN = (f"KUBEFLOW_TRAINER_SERVER_{name}" for name in ("URL", "CA_CERT", "TOKEN"))
_EVERY = 5.0  # seconds between posts, as Trainer asks
_WITHIN = 5.0  # seconds for one


class Status(Protocol):
    """Who hears how far a run is."""

    def tell(self, progress: float, *, seconds_left: float | None, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class NoStatus:
    """Hears nothing: no TrainJob, or not the chief."""

    def tell(self, progress: float, *, seconds_left: float | None, metrics: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


def open_status(environ: Mapping[str, str]) -> Status:
    """The status of the TrainJob that the environment tells of, else one that hears nothing."""
    told = [environ.get(name, "") for name in (_URL, _CERTIFICATE, _TOKEN)]
    return TrainJobStatus(told[0], Path(told[1]), Path(told[2])) if all(told) else NoStatus()


class TrainJobStatus:
    """Posts the newest status, at most every five seconds, until it is closed.

    Args:
        url: where to.
        certificate: file of the authority that signed the server's.
        token: file of the token; it is read for every post, since it is renewed.
    """

    def __init__(self, url: str, certificate: Path, token: Path, *, every: float = _EVERY):
        self._url, self._certificate, self._token, self._every = url, certificate, token, every
        self._metrics: dict[str, float] = {}
        self._left: float | None = None
        self._next: dict[str, Any] | None = None
        self._lock, self._news, self._over = threading.Lock(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="tfscale-train-job-status", daemon=True)
        self._thread.start()

    def tell(self, progress: float, *, seconds_left: float | None, metrics: Mapping[str, float]) -> None:
        """Takes a status; metrics that it doesn't name keep their value, as does the time left with None.

        Args:
            progress: the share of the run that is done, 0 to 1.
        """
        with self._lock:
            self._metrics.update(metrics)
            self._left = self._left if seconds_left is None else seconds_left
            status: dict[str, Any] = {
                "progressPercentage": min(100, max(0, math.floor(100 * progress))),
                "metrics": [{"name": name, "value": f"{value:.6g}"} for name, value in self._metrics.items()],
                "lastUpdatedTime": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            if self._left is not None and math.isfinite(self._left):
                status["estimatedRemainingSeconds"] = max(0, round(self._left))
            self._next = {"trainerStatus": status}
        self._news.set()

    def close(self) -> None:
        """Posts what is left, and gives up after a moment."""
        self._over.set()
        self._news.set()
        self._thread.join(_WITHIN)

    def _work(self) -> None:
        failed = False
        while True:
            self._news.wait()
            self._news.clear()
            with self._lock:
                payload, self._next = self._next, None
            if payload is not None:
                try:
                    self._post(payload)
                except Exception as error:  # whatever it is, it must not disturb training
                    if not failed:
                        _log.warning(f"the TrainJob's status can't be posted: {error}; training goes on")
                    failed = True
            if self._over.is_set() and self._next is None:
                return
            self._over.wait(self._every)

    def _post(self, payload: Mapping[str, Any]) -> None:
        context = ssl.create_default_context(cafile=str(self._certificate))
        # The server is in the cluster: no proxy leads there.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        token = self._token.read_text(encoding="utf-8").strip()
        request = urllib.request.Request(
            self._url,
            data=json.dumps(payload).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method="POST",
        )
        opener.open(request, timeout=_WITHIN).close()
