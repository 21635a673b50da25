"""Duration: one type for "90ep", "500st", "10m" and "5%", converted once.

Owns the syntax and the conversion to steps. Refuses to know what the duration is for.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from tfscale.errors import UsageError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_SYNTAX = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ep|st|%|s|m|h)\s*")


@dataclass(frozen=True)
class Duration:
    """A length of training: epochs ("ep"), steps ("st"), share of the whole ("%") or wall time ("s", "m", "h")."""

    value: float
    unit: str

    @classmethod
    def parse(cls, text: str | int, *, where: str = "") -> Duration:
        """Reads "90ep", "500st", "10%", "30s", "10m", "2h"; a bare integer is a number of steps.

        Raises:
            UsageError: the text is none of these.
        """
        if isinstance(text, bool):
            raise _bad(str(text), where)
        if isinstance(text, int) or re.fullmatch(r"\s*\d+\s*", text):
            return cls(float(text), "st")
        match = _SYNTAX.fullmatch(text)
        if not match:
            raise _bad(text, where)
        return cls(float(match[1]), match[2])

    @property
    def is_time(self) -> bool:
        return self.unit in _SECONDS

    @property
    def seconds(self) -> float:
        """Wall time in seconds; only for a duration in time."""
        if not self.is_time:
            raise ValueError(f"{self} is not a duration in time")
        return self.value * _SECONDS[self.unit]

    def steps(self, *, steps_per_epoch: float, total_steps: int | None = None) -> int:
        """The number of steps, rounded up, so that "1ep" always covers the whole epoch.

        Args:
            steps_per_epoch: examples per epoch / global batch; need not be a whole number.
            total_steps: the length of the whole training, needed for "%".

        Raises:
            UsageError: a duration in time, or a share where the whole isn't known.
        """
        if self.unit == "st":
            return math.ceil(self.value)
        if self.unit == "ep":
            # 1e-9: 3 epochs of 100/3 steps are 100 steps, not 101
            return math.ceil(self.value * steps_per_epoch - 1e-9)
        if self.unit == "%" and total_steps is not None:
            return math.ceil(self.value / 100 * total_steps - 1e-9)
        raise UsageError(
            f"a duration of {self} can't be counted in steps here", fix="use epochs or steps, such as 5ep or 500st"
        )

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"


def _bad(text: str, where: str) -> UsageError:
    return UsageError(
        f"{text!r} is not a duration", where=where, fix="write 90ep, 500st, 10%, 30s, 10m or 2h; a bare number is steps"
    )
