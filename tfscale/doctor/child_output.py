"""A program's output and end, with a deadline; it never outlives this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tfscale.process.children import Child, Guard, wait_for_output

_LOOK = 0.1  # seconds between two looks at a program that says nothing


@dataclass(frozen=True)
class ChildEnd:
    """How a program ended.

    Args:
        code: its exit code, 128 + N for signal N; None where its time was over.
        lines: what it wrote, to both streams.
        seconds: that it took, or had.
    """

    code: int | None
    lines: list[str]
    seconds: float

    @property
    def how(self) -> str:
        """For people: "took longer than 60 s", "ended with 1"."""
        if self.code is None:
            return f"took longer than {self.seconds:g} s"
        return f"was killed by signal {self.code - 128}" if self.code > 128 else f"ended with {self.code}"


def run_child(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    seconds: float,
    now: Callable[[], float] = time.monotonic,
) -> ChildEnd:
    """Runs it to its end, or kills it and all that it started once the time is over."""
    guard, began = Guard(), now()
    child = Child("doctor", command, environ=environ)
    lines: list[str] = []
    try:
        guard.watch([child])
        while not child.has_ended() and now() < began + seconds:
            for one in wait_for_output([child], _LOOK):
                lines += one.read()
        return ChildEnd(child.code, lines, seconds if child.code is None else now() - began)
    finally:
        child.kill()
        child.wait()
        guard.dismiss()
