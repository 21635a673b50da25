"""How a question of the suite is asked: how often, how long, and with which of a user's files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.side_by_side import Measured, Question, measure
from tfscale.hardware import probe

AT_ONCE = 2  # contestants that start at the same time: imports and traces keep one core busy each


@dataclass(frozen=True)
class Asking:
    """What every question is given.

    Attributes:
        seconds: the length of a window.
        quick: in sizes that only show that it runs, without the peers' environments.
        photos: a tar of class folders of JPEG photos.
        text: a text file.
        torch: an interpreter that has PyTorch for this machine's GPU.
    """

    blocks: int = 15
    seconds: float = 3.0
    seed: int = 0
    quick: bool = False
    say: Callable[[str], None] = print
    photos: Path | None = None
    text: Path | None = None
    torch: Path | None = None

    def measure(self, question: Question) -> Measured:
        """Raises as `side_by_side.measure`."""
        return measure(
            question,
            blocks=self.blocks,
            seconds=self.seconds,
            seed=self.seed,
            say=self.say,
            at_once=AT_ONCE,
        )


def computes_bfloat16() -> bool:
    """Whether this machine computes it by itself, so that it is measured."""
    return probe().cpu_native_bfloat16 or bool(probe().gpus)


class NotAsked(Exception):
    """A question can't be asked here; the message says why."""
