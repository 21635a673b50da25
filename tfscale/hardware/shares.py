"""Shares of this machine for processes that train beside each other: cores and GPUs that are nobody else's.

Owns the division. Refuses to start anything.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tfscale.hardware.facts import Hardware

T = TypeVar("T")


def shares_of(
    hardware: Hardware, parts: int, environ: Mapping[str, str]
) -> tuple[list[tuple[int, ...]], list[tuple[str, ...]]]:
    """Cores and GPUs of each of so many processes; each list is empty where there are fewer, and all share all."""
    cores: list[tuple[int, ...]] = []
    if hasattr(os, "sched_getaffinity"):
        cores = divide(spread(sorted(os.sched_getaffinity(0), key=_neighbours), int(hardware.cores)), parts)
    names = [name.strip() for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = len(hardware.gpus)
    return cores, divide(names[:count] or [str(index) for index in range(count)], parts)


def divide(things: Sequence[T], parts: int) -> list[tuple[T, ...]]:
    """Slices of nearly the same length, or none at all where there are fewer things than parts."""
    if len(things) < parts:
        return []
    edges = [len(things) * part // parts for part in range(parts + 1)]
    return [tuple(things[begin:end]) for begin, end in itertools.pairwise(edges)]


def spread(cores: Sequence[int], quota: int) -> list[int]:
    """As many cores as the quota pays for, far from each other; all where it pays for all."""
    quota = max(1, quota)
    return list(cores[:: max(1, len(cores) // quota)][:quota])


def _neighbours(core: int) -> tuple[int, int, int]:
    """Sorts the threads of a physical core, and the cores of a socket, side by side."""
    folder = Path(f"/sys/devices/system/cpu/cpu{core}/topology")
    try:
        return int((folder / "physical_package_id").read_text()), int((folder / "core_id").read_text()), core
    except (OSError, ValueError):
        return 0, core, core
