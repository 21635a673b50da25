"""Who had this machine's processors between two moments: this process, or others.

Owns the reading of Linux's counters. Elsewhere, what others had is unknown, and nothing is called busy.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
_ENOUGH = 0.9  # of the processors that a measurement needs: a counter's tick is 4 % of a window
_USED = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq
_STOLEN = 7


@dataclass(frozen=True)
class Moment:
    """Seconds so far: of the clock, of this process's threads, and of all processors that it may run on.

    `used` and `stolen` are None where the system doesn't tell; `stolen` is what the host of a virtual machine took.
    """

    wall: float
    own: float
    used: float | None
    stolen: float | None
    processors: int


@dataclass(frozen=True)
class Shares:
    """Between two moments, of the processors that `threads` threads can use: 1.0 is all of them.

    Attributes:
        own: what this process had.
        others: what other programs had of all processors.
        stolen: what the host of a virtual machine had of all of them.
        free: what others left of what the threads can use; more than 1 where there are more processors.
    """

    own: float
    others: float
    stolen: float
    free: float

    @property
    def busy(self) -> str:
        """Who kept the threads from their processors, in words; "" where nobody did."""
        if self.own >= _ENOUGH or self.free >= _ENOUGH:  # a product that is slow by itself is nobody's fault
            return ""
        parts = [("other programs had", self.others), ("the virtual machine's host had", self.stolen)]
        return " and ".join(f"{who} {share:.0%}".replace("%", " %") for who, share in parts if share >= 0.05)


def moment() -> Moment:
    """Now."""
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    counted = _counted({f"cpu{number}" for number in processors})
    used, stolen = counted if counted else (None, None)
    return Moment(time.perf_counter(), time.process_time(), used, stolen, len(processors))


def shares(begin: Moment, end: Moment, threads: int) -> Shares:
    """Who had the processors in between."""
    wall, own = end.wall - begin.wall, end.own - begin.own
    needed = wall * min(threads, end.processors)
    if begin.used is None or end.used is None or begin.stolen is None or end.stolen is None:
        return Shares(own / needed, 0.0, 0.0, 1.0)
    everything = wall * end.processors
    others, stolen = max(0.0, end.used - begin.used - own), max(0.0, end.stolen - begin.stolen)
    return Shares(own / needed, others / everything, stolen / everything, (everything - others - stolen) / needed)


def _counted(names: set[str]) -> tuple[float, float] | None:
    """Seconds that these processors were used, and stolen from this machine."""
    try:
        rows = [line.split() for line in _STAT.read_text(encoding="ascii").splitlines() if line.startswith("cpu")]
        ticks = [[int(value) for value in row[1:]] for row in rows if row[0] in names]
        second = float(os.sysconf("SC_CLK_TCK"))
        return sum(row[i] for row in ticks for i in _USED) / second, sum(row[_STOLEN] for row in ticks) / second
    except (OSError, ValueError, IndexError):
        return None
