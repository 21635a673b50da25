"""Files in a store, read without a copy: s3://, gs://, http:// and https://.

Owns how often a read is tried, how many go at once, and what is said of an object that is gone. Refuses to know
records.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import IO, Any, NamedTuple, NoReturn

from tfscale.errors import DataMissing, IOFailure, first_line
from tfscale.files import sha256_of
from tfscale.run_dir.store_access import Access

_log = logging.getLogger(__name__)

_TRIES, _WAIT = 5, 0.5  # of one read; seconds before the second, doubled before each further one
_NONE_THERE = (403, 404, 410)
_AT_ONCE = 16  # ranges that are asked for together
_READ_AHEAD = 4 * 2**20  # bytes, of files that are read from their beginning


class Listed(NamedTuple):
    """A file as a store lists it: its bytes, and a hash of all that is said of it, which changes when it is written."""

    size: int
    stamp: str


class RemoteFiles:
    """The files below one address. Arguments and errors are those of `check_url`; nothing is asked yet."""

    def __init__(self, url: str, name: str):
        self._access = Access(url, name, "data.url", only_read=True)
        self.url = self._access.url
        self._lock = threading.Lock()

    @cached_property
    def fs(self) -> Any:
        with self._lock:
            return self._access.fs

    def listed(self) -> dict[str, Listed]:
        """Every file by its name below the address, of a store that lists its files; of http(s) {}."""
        if self._access.protocol.startswith("http"):
            return {}
        with self._access.reaching("can't be read", at_start=True):
            root = self._access.root
            found = self.fs.find(root, detail=True)
            return {
                path[len(root) :].lstrip("/"): Listed(int(info["size"]), sha256_of(str(sorted(info.items()))))
                for path, info in found.items()
            }

    def size(self, name: str) -> int | None:
        """Bytes of one file, None where there is none."""
        try:
            return int(self.tried(lambda: self.fs.info(self._path(name))["size"], name))
        except DataMissing:
            return None

    def content(self, name: str) -> bytes:
        """A whole file; raises DataMissing, IOFailure."""
        found = self.tried(lambda: self.fs.cat_file(self._path(name)), name)
        assert isinstance(found, bytes)
        return found

    def content_if_there(self, name: str) -> bytes | None:
        """The same, None where a server says that there is no such file, or none for us; raises IOFailure."""

        def read() -> bytes | None:
            try:
                found: bytes = self.fs.cat_file(self._path(name))
            except Exception as error:  # S3 says of what isn't there that it is forbidden, where nobody may list
                if isinstance(error, FileNotFoundError) or getattr(error, "status", None) in _NONE_THERE:
                    return None
                raise
            return found

        kept: bytes | None = self.tried(read, name)
        return kept

    def open(self, name: str) -> IO[bytes]:
        """A stream of a file that is read from its beginning on."""
        opened: IO[bytes] = self.tried(
            lambda: self.fs.open(self._path(name), "rb", block_size=_READ_AHEAD, cache_type="readahead"), name
        )
        return opened

    def ranges(self, names: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """These pieces of these files, many at once; raises DataMissing, IOFailure."""
        found: list[Any] = [None] * len(names)
        missing = list(range(len(names)))
        for attempt in range(_TRIES):
            paths = [self._path(names[i]) for i in missing]
            wanted = [starts[i] for i in missing], [ends[i] for i in missing]
            options = {"batch_size": _AT_ONCE} if self.fs.async_impl else {}
            for i, one in zip(missing, self.fs.cat_ranges(paths, *wanted, on_error="return", **options), strict=True):
                found[i] = one
            missing = [i for i, one in enumerate(found) if not _is_whole(one, ends[i] - starts[i])]
            if not missing:
                return found
            first = missing[0]
            if isinstance(found[first], FileNotFoundError) or attempt == _TRIES - 1:
                self._raise(found[first], names[first])
            self._wait(attempt, found[first])
        raise AssertionError

    def _path(self, name: str) -> str:
        return f"{self._access.root}/{name}"

    def tried(self, read: Callable[[], Any], name: str) -> Any:
        """What a read of a file gives, tried again where that may help; raises DataMissing, IOFailure."""
        for attempt in range(_TRIES):
            try:
                return read()
            except Exception as error:  # whatever a store's library raises
                if isinstance(error, FileNotFoundError | PermissionError) or attempt == _TRIES - 1:
                    self._raise(error, name)
                self._wait(attempt, error)
        raise AssertionError

    @staticmethod
    def _wait(attempt: int, error: Any) -> None:
        if attempt == 1:
            _log.warning(f"reading remote data is tried again: {_said(error)}")
        time.sleep(_WAIT * 2**attempt)

    def _raise(self, error: Any, name: str) -> NoReturn:
        where = f"{self.url}/{name}"
        if isinstance(error, FileNotFoundError):
            raise DataMissing("the object is gone", where=where, fix="put it back, or import the data again") from None
        raise IOFailure(
            f"remote data can't be read: {_said(error)}",
            where=where,
            fix="see that it can be reached, then run the same command again: it resumes",
        ) from None


def _is_whole(found: Any, size: int) -> bool:
    return isinstance(found, bytes) and len(found) == size


def _said(error: Any) -> str:
    if isinstance(error, bytes):
        return f"{len(error)} bytes came, and more were asked for"
    return first_line(error) if str(error) else type(error).__name__
