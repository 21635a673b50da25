"""StepRange: "100:110", steps of a training by their numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tfscale.errors import UsageError

_SYNTAX = re.compile(r"\s*(\d+)\s*:\s*(\d+)\s*")


@dataclass(frozen=True)
class StepRange:
    """Steps `first` to `last`, both included; step 1 is the first of a run."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str, *, where: str) -> StepRange:
        """Reads "100:110"; raises UsageError where the text is no such range."""
        found = _SYNTAX.fullmatch(str(text))
        first, last = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= first <= last:
            raise UsageError(
                f"{text!r} is no range of steps", where=where, fix=f"write {where}=100:110 for steps 100 to 110"
            )
        return cls(first, last)

    def __str__(self) -> str:
        return f"{self.first}:{self.last}"
