"""Goodput: the share of a run's wall time that became training which was kept, and what the rest went to.

Owns the sum over all attempts of a run. Refuses to know who wrote the log: it reads the lines of attempts.py.

The method is that of Google's ML Goodput Measurement library (https://github.com/AI-Hypercomputer/ml-goodput-measurement,
https://pypi.org/project/ml-goodput-measurement): goodput is the time of training steps that were completed and not lost
again to a disruption, over the wall time of the whole job with all its restarts; the remainder is badput by its cause.
Their causes under our names:

    start_up        TPU_INITIALIZATION and TRAINING_PREP
    compile         PROGRAM_STARTUP (tracing and compiling, with the first steps that it happens in)
    input_wait      DATA_LOADING_SYNC
    checkpoint      UNPRODUCTIVE_CHECKPOINT_SAVE_TIME (the part that holds training up)
    restore         UNPRODUCTIVE_CHECKPOINT_RESTORE_TIME
    repeated_work   WASTED_PROGRESS_FROM_DISRUPTION (steps behind the checkpoint that training went on from)
    restart         INFRASTRUCTURE_RECOVERY_FROM_DISRUPTION (from an attempt's last line to the next one's start)
    eval, export    CUSTOM_BADPUT_EVENTS
    other           OTHER
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfscale.run_dir.attempts import by_attempt

_BY_THE_CLOCK = ("start_up", "compile", "input_wait", "eval", "checkpoint", "restore", "export")
CAUSES = (*_BY_THE_CLOCK, "repeated_work", "restart", "other")


@dataclass(frozen=True)
class Goodput:
    """Of one run over all its attempts.

    Attributes:
        share: productive over wall seconds, 0 to 1.
        wall_seconds: from the first attempt's start to the last line of the last one.
        productive_seconds: of training, without input waits, whose steps were kept; each step counts once.
        losses: seconds by cause; with the productive ones they sum to the wall time.
        restarts: attempts after the first.
    """

    share: float
    wall_seconds: float
    productive_seconds: float
    losses: Mapping[str, float]
    restarts: int

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def metrics(self) -> dict[str, float]:
        """As a tracker takes them."""
        return {
            "goodput/share": self.share,
            "goodput/wall_seconds": self.wall_seconds,
            "goodput/productive_seconds": self.productive_seconds,
            "goodput/restarts": float(self.restarts),
            **{f"goodput/lost_{cause}": seconds for cause, seconds in self.losses.items()},
        }

    def summary(self) -> str:
        """One line for people."""
        by_size = sorted(self.losses.items(), key=lambda item: -item[1])
        lost = ", ".join(f"{cause} {seconds:.1f} s" for cause, seconds in by_size if seconds >= 0.05)
        text = f"{self.share:.1%} of {self.wall_seconds:.0f} s".replace("%", " %")
        text += f"; lost: {lost}" if lost else ""
        return text + (f"; {self.restarts} restart{'s' * (self.restarts > 1)}" if self.restarts else "")


def measure(lines: list[dict[str, Any]]) -> Goodput | None:
    """What the lines of an attempt log come to, or None where it is empty; see `Attempts.lines`."""
    losses, wall, work, restarts, left = dict.fromkeys(CAUSES, 0.0), 0.0, _Work(), -1, None
    for attempt in by_attempt(lines):
        first, last = attempt[0], attempt[-1]
        if left is not None:
            gap = max(0.0, first["wall"] - first["elapsed"] - left)
            losses["restart"] += gap
            wall += gap
        left, restarts = last["wall"], restarts + 1
        wall += last["elapsed"]
        seconds: Mapping[str, float] = next((line["seconds"] for line in reversed(attempt) if "seconds" in line), {})
        for cause in _BY_THE_CLOCK:
            losses[cause] += seconds.get(cause, 0.0)
        if "start_up" not in seconds:  # it did not come so far that its clock was read
            losses["start_up"] += last["elapsed"] - sum(seconds.values())
        work.add(attempt)
    if restarts < 0:
        return None
    losses["repeated_work"], productive = work.repeated, sum(piece.seconds for piece in work.kept)
    losses["other"] = wall - productive - sum(losses.values())
    return Goodput(productive / wall if wall else 0.0, wall, productive, losses, restarts)


@dataclass
class _Piece:
    """Training from one step to another; `first` is `last` where nobody noted how far it came."""

    first: int
    last: int
    seconds: float

    def seconds_behind(self, step: int) -> float:
        """Of the steps behind this one, which all took the same time."""
        if self.first >= step:
            return self.seconds
        if self.last <= step:
            return 0.0
        return self.seconds * (self.last - step) / (self.last - self.first)


@dataclass
class _Work:
    """The training that has not been lost so far."""

    kept: list[_Piece] = field(default_factory=list)
    repeated: float = 0.0

    def add(self, attempt: list[dict[str, Any]]) -> None:
        step, trained = 0, 0.0
        for line in attempt:
            now = line.get("seconds", {}).get("train", trained)
            reached = max(step, line.get("step", step))
            if now > trained:
                self.kept.append(_Piece(step, reached, now - trained))
            step, trained = reached, now
            if line["kind"] == "begin":
                step = line["step"]
                self._lose(step)

    def _lose(self, step: int) -> None:
        """Training begins again at this step: what was done behind it is done once more."""
        for piece in self.kept:
            lost = piece.seconds_behind(step)
            self.repeated += lost
            piece.seconds -= lost
            piece.last = max(piece.first, min(piece.last, step))
        self.kept = [piece for piece in self.kept if piece.seconds > 0]
