"""Access to a store: which URLs are good, which package reads them, and what its errors mean.

Owns every import of fsspec. Refuses to know what lies in a store.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import re
from collections.abc import Iterator
from typing import Any

from tfscale.errors import (
    NO_ROOM,
    IOFailure,
    OutputError,
    SecurityRefused,
    TfscaleError,
    UsageError,
    first_line,
    nearest,
)
from tfscale.run_dir.manifest import Damaged

_EXTRAS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "file": None, "memory": None}  # package and extra
_READ_ONLY = dict.fromkeys(("http", "https"), ("aiohttp", "http"))
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {
            "connect_timeout": 3,
            "read_timeout": 30,
            "retries": {"mode": "standard", "total_max_attempts": 3},
        }
    },
    "gs": {"requests_timeout": 30},
    "file": {"auto_mkdir": True},
}
CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")  # of conditional writes on S3
_SOON = 8.0  # seconds in which a store must answer at start-up


def check_url(url: str, key: str = "run.store", *, only_read: bool = False) -> str:
    """The protocol of a store's URL, once its form is good and its package is installed.

    Args:
        key: of the configuration, which messages name.
        only_read: whether a server that takes nothing will do: http:// and https://.

    Raises:
        UsageError: unknown protocol, no bucket, credentials in it, or a package that is not installed.
        SecurityRefused: a part of the path that would lead elsewhere.
    """
    fix = f"give {key}=s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///FOLDER"
    if "@" in url:  # the URL isn't shown
        raise UsageError(
            f"{key} holds a user or a password",
            where=key,
            fix="leave them to the store's own environment variables, such as AWS_ACCESS_KEY_ID, or to its files",
        )
    protocol, found, place = url.partition("://")
    if not found or re.search(r"[\s?#\x00-\x1f]|::", url) or len(url) > 1000:
        raise UsageError(f"{url[:80]!r} is no URL of a store", where=key, fix=fix)
    extras = {**_EXTRAS, **_READ_ONLY} if only_read else _EXTRAS
    if protocol not in extras:
        raise UsageError(
            f"unknown protocol {protocol!r}{nearest(protocol, list(extras))} known: {', '.join(extras)}",
            where=key,
            fix=fix,
        )
    parts = place.rstrip("/").split("/")
    if protocol == "file" and not parts[0]:
        parts = parts[1:]
    elif protocol == "file":
        raise UsageError(f"{url} is not absolute", where=key, fix="give file:///FOLDER with three slashes")
    if not parts or not parts[0]:
        raise UsageError(f"{url} names no bucket", where=key, fix=fix)
    _refuse_wandering(parts, key)
    package, extra = extras[protocol] or ("fsspec", "s3")
    if importlib.util.find_spec(package) is None:
        raise UsageError(
            f"{key}={protocol}://... needs the package {package}, which is not installed",
            where=key,
            fix=f'pip install "tfscale[{extra}]"',
        )
    return protocol


class Access:
    """One folder of a store, which is asked nothing yet; arguments and errors are those of `check_url`."""

    def __init__(self, url: str, name: str, key: str = "run.store", *, only_read: bool = False):
        self.protocol = check_url(url, key, only_read=only_read)
        self.key = key
        _refuse_wandering(name.split("/"), "run.name")
        self.url = f"{url.rstrip('/')}/{name}"

    @functools.cached_property
    def fs(self) -> Any:
        import fsspec

        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs a traceback for every error that it raises
        options = _OPTIONS.get(self.protocol, {})
        made = fsspec.filesystem(self.protocol, use_listings_cache=False, skip_instance_cache=True, **options)
        if self.protocol == "s3":
            made.retries = 2  # on top of botocore's own: a silent server holds a save for minutes, not for an hour
        return made

    @functools.cached_property
    def root(self) -> str:
        return self.fs._strip_protocol(self.url)

    def soon(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Calls a method of the file system, which must answer within a few seconds."""
        if not self.fs.async_impl:
            return getattr(self.fs, method)(*arguments, **options)
        from fsspec.asyn import sync

        return sync(self.fs.loop, getattr(self.fs, f"_{method}"), *arguments, timeout=_SOON, **options)

    def create(self, path: str, data: bytes) -> bool:
        """Writes a small object where there is none; False where there is one, which a store overwrites that knows no
        such condition."""
        return self.put(path, data, mode="create") is not False

    def put(self, path: str, data: bytes, **condition: str) -> bool | None:
        """Writes a small object under the store's own condition: False where that doesn't hold, None where the store
        knows no such condition and it was written without."""
        try:
            self.soon("pipe_file", path, data, **condition)
        except FileExistsError:
            return False
        except OSError as error:
            if code_of(error) in CONFLICTS:
                return False
            if code_of(error) != "NotImplemented":
                raise
            self.soon("pipe_file", path, data)
            return None
        return True

    @contextlib.contextmanager
    def reaching(self, what: str, *, at_start: bool = False) -> Iterator[None]:
        """Turns whatever a store's library raises into one of our errors; at the start, a wrong place is told apart."""
        try:
            yield
        except (TfscaleError, Damaged):
            raise
        except Exception as error:
            if (
                what == "can't be read" and isinstance(error, OSError) and error.errno in NO_ROOM
            ):  # the disk here, not the store's
                fix = "free space, then run the same command again"
                told = f"what the store holds can't be copied here: {error.strerror}"
                raise IOFailure(told, where=self.url, fix=fix) from error
            told = "no answer" if isinstance(error, TimeoutError) and not str(error) else first_line(error)
            where = str(getattr(error, "filename", None) or self.url)  # a file here has a name
            if at_start and _is_refusal(error):
                fix = "give credentials that are good for it, by the environment variables or files of its own tools"
                raise OutputError(f"the store {what}: access refused: {told}", where=where, fix=fix) from error
            if at_start and isinstance(error, FileNotFoundError):
                fix = f"create the bucket, or correct {self.key}"
                raise OutputError(f"the store {what}: not found: {told}", where=where, fix=fix) from error
            fix = "see that it can be reached, then run the same command again: it resumes"
            raise IOFailure(f"the store {what}: {told}", where=where, fix=fix) from error


def code_of(error: BaseException) -> str:
    """S3's own code of an error, ""."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _is_refusal(error: Exception) -> bool:
    status = getattr(error, "status", None)  # of aiohttp, whose `code` warns
    code = status if status is not None else getattr(error, "code", None)  # of gcsfs: a bare OSError for 403
    by_name = "Credential" in type(error).__name__ or str(error).startswith("Forbidden")
    return isinstance(error, PermissionError) or by_name or code in (401, 403)


def _refuse_wandering(parts: list[str], key: str) -> None:
    for part in parts:
        if part in ("", ".", "..") or "\\" in part:
            raise SecurityRefused(f"{part!r} would leave the store's folder", where=key, fix="use plain names")
