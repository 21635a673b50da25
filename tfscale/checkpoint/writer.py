"""The writer: one write at a time on a thread of its own, and what its failures mean.

Owns the thread and the count of failures. Refuses to know what is written.

The thread is no daemon: a process that ends in an orderly way ends once the write is done. One that is killed leaves a
temporary folder, which the next start removes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from tfscale.errors import Diverged, IOFailure, first_line

_log = logging.getLogger(__name__)

_PAUSES = (0.5, 2.0)  # seconds before a required write is tried again
_FIX = "free space or choose another run.dir, then run the same command again: it resumes"


class Writer:
    """Args: after how many failed writes in a row to give up, where they go, and how to wait."""

    def __init__(self, *, max_failures: int, where: str, sleep: Callable[[float], None] = time.sleep):
        self._max_failures, self._where, self._sleep = max(1, max_failures), where, sleep
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._in_a_row = 0

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, work: Callable[[], None], *, what: str, required: bool = False) -> None:
        """Begins `work`, once what is at work has ended.

        Args:
            what: names it in messages.
            required: try again where it fails, and let the failure be for good.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work, what, required), name="tfscale-checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns once nothing is at work."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def check(self, *, also_diverged: bool = False) -> None:
        """Raises what has gone wrong for good, once.

        Args:
            also_diverged: a state that was not written since it is ruined counts, too.
        """
        failure = self._failure
        if failure is not None and (also_diverged or not isinstance(failure, Diverged)):
            self._failure = None
            raise failure

    def _run(self, work: Callable[[], None], what: str, required: bool) -> None:
        for pause in (*(_PAUSES if required else ()), None):
            try:
                work()
                self._in_a_row = 0
                return
            except (OSError, IOFailure) as error:
                if pause is None:
                    self._count(error, what, required)
                else:
                    self._sleep(pause)
            except BaseException as error:
                self._failure = error
                return

    def _count(self, error: OSError | IOFailure, what: str, required: bool) -> None:
        if isinstance(error, IOFailure):  # of a copy elsewhere, which says what can be done
            shown = error
        else:
            shown = IOFailure(error.strerror or first_line(error), where=self._where, fix=_FIX)
        cause = shown.what
        self._in_a_row += 1
        if required or self._in_a_row >= self._max_failures:
            more = f", nor the {self._in_a_row - 1} before it" if self._in_a_row > 1 else ""
            self._failure = IOFailure(f"{what} could not be written{more}: {cause}", where=shown.where, fix=shown.fix)
            self._failure.__cause__ = error
            return
        left = self._max_failures - self._in_a_row
        _log.warning(
            f"{what} could not be written ({cause}); training goes on, and the next save tries again "
            f"({left} more may fail)"
        )
