"""Passes: training data epoch by epoch, as Keras's fit reads them.

Owns that a pass through the data begins when its epoch does, and that nothing of it is read before: a data set that
shuffles, and whatever Python makes, comes in the order of Keras's fit then, also beside an evaluation that reads the
same data. Refuses to know how batches are made and distributed.

    passes = Passes(given, distributed, steps=12, read_again=local)
    iterator = passes.at(40, placed)    # the steps from this one to the end of its epoch
    passes.trained(43)                  # three have been read
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol

_log = logging.getLogger(__name__)


class PassedThrough(Protocol):
    """Data that hear where a pass through them begins and ends."""

    def begin_pass(self) -> None: ...

    def end_pass(self) -> None: ...


class Passes:
    """The passes of one training.

    Args:
        distributed: gives the steps of the next pass from one of them on; gone through again, those of the next one.
        steps: of an epoch.
        read_again: gives the steps of the next pass as one worker reads them, of which nothing is trained.
    """

    def __init__(
        self,
        source: PassedThrough,
        distributed: Callable[[int], Iterable[Any]],
        *,
        steps: int,
        read_again: Callable[[], Iterable[Any]],
    ):
        self._source, self._distributed, self._steps, self._read_again = source, distributed, steps, read_again
        self._iterator: Any = None
        self._epoch = 0  # the next one, as far as the data are concerned
        self._whole: Any = None  # the distributed data of every pass but the first, made once

    def at(self, step: int, placed: Callable[[], None]) -> Any:
        """TensorFlow's iterator that the steps of this epoch are read from, from this one on.

        Args:
            placed: called once all is drawn that was drawn on the way to this step.
        """
        if self._iterator is not None:
            return self._iterator
        epoch, first = divmod(step, self._steps)
        if self._epoch < epoch:
            _log.info(f"the data are read again up to epoch {epoch + 1}: there is no other way to a place in them")
        while self._epoch < epoch:
            self._source.begin_pass()
            for _ in self._read_again():
                pass
            self._end()
        if not first:
            placed()
        self._source.begin_pass()
        if first:
            placed()
        self._iterator = iter(self._pass(first))
        return self._iterator

    def _pass(self, first: int) -> Iterable[Any]:
        if first or not self._epoch:
            return self._distributed(first)
        if self._whole is None:
            self._whole = self._distributed(0)
        return self._whole

    def trained(self, step: int) -> None:
        """The state is at this step now."""
        if self._iterator is not None and not step % self._steps:
            self._end()

    def _end(self) -> None:
        self._iterator = None
        self._epoch += 1
        self._source.end_pass()
