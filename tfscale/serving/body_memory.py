"""How many bytes the bodies of all requests may hold together.

Owns the count, and what is refused for it. Refuses to know HTTP.

    memory = BodyMemory(one=16_000_000, all_=256_000_000, seen=gauge.set)
    with memory.held(declared, is_packed=False) as resize:
        resize(len(body))                                       # once it is read
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from http import HTTPStatus

from tfscale.serving.refusal import Refusal


class BodyMemory:
    """Of one server.

    Args:
        one, all_: bytes of the largest body, and of all.
        seen: is told how many are held.
    """

    def __init__(self, one: int, all_: int, seen: Callable[[int], object]):
        self._one, self._all, self._seen, self._held = one, all_, seen, 0

    @property
    def too_large(self) -> Refusal:
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request may have {self._one} bytes")

    @contextlib.contextmanager
    def held(self, declared: int | None, *, is_packed: bool) -> Iterator[Callable[[int], None]]:
        """Until the request is answered; what it gives is told the body's own size once it is read.

        Args:
            declared: the body's size as its header says.
            is_packed: whether it becomes another once it is unpacked.

        Raises:
            Refusal: it is too large (413), or there is no room at this moment (429).
        """
        if declared is not None and declared > self._one:
            raise self.too_large
        size = self._one if declared is None or is_packed else declared
        if self._held + size > self._all:
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "requests hold all the memory that they may; come again later")
        own = 0

        def resize(size: int) -> None:
            nonlocal own
            self._held += size - own
            own = size
            self._seen(self._held)

        resize(size)
        try:
            yield resize
        finally:
            resize(0)
