"""One process of a contestant of the scaling benchmark, from its own side: what it is told, and how it obeys.

Needs the standard library only, since PyTorch's contestants run it in an environment of their own. Who starts the
processes and tells them how many steps to do is scaling_processes.py.

    member = start(sys.argv[1])                  # confined to its cores from here on
    serve(run, {"parameters": 1000})             # answers lines of "STEPS" with "WALL_SECONDS CPU_SECONDS"
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

LEARNING_RATE, MOMENTUM = 0.01, 0.9
POOL = 4  # distinct batches held in memory

_answers: TextIO


@dataclass(frozen=True)
class Workload:
    """A ResNet and its batch; `global_batch` examples a step, whoever computes them."""

    depth: int
    width: int
    image_size: int
    channels: int
    num_classes: int
    global_batch: int


@dataclass(frozen=True)
class Member:
    """One process of a contestant.

    Attributes:
        cores: logical cores that it may use.
        addresses: "host:port" of all the contestant's processes, in order of rank; one of them is this process.
        bytes_per_pack: of an all-reduce of tfscale's; None leaves it to the plan.
        wire: the precision in which tfscale's gradients travel.
    """

    workload: Workload
    rank: int
    cores: tuple[int, ...]
    addresses: tuple[str, ...]
    bytes_per_pack: int | None = None
    wire: str = "full"

    @property
    def world(self) -> int:
        return len(self.addresses)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Member:
        values = json.loads(text)
        values["workload"] = Workload(**values["workload"])
        return cls(**{**values, "cores": tuple(values["cores"]), "addresses": tuple(values["addresses"])})


def start(text: str) -> Member:
    member = Member.from_json(text)
    confine(member.cores)
    return member


def confine(cores: Sequence[int]) -> None:
    """Confines this process to these cores, before a library counts them, and keeps stdout for answers alone."""
    global _answers
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)  # also in the middle of a window
    os.sched_setaffinity(0, cores)
    _answers = os.fdopen(os.dup(1), "w", buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.close(silence)


def serve(run: Callable[[int], None], facts: dict[str, Any]) -> NoReturn:
    """Says the facts, then does as many steps as each line of stdin says, until stdin ends; ends the process.

    Args:
        run: does this many steps and returns once they are done; all of a contestant's processes get the same number.
    """
    print(json.dumps(facts), file=_answers)
    for line in sys.stdin:
        cpu, begun = time.process_time(), time.perf_counter()
        run(int(line))
        print(time.perf_counter() - begun, time.process_time() - cpu, file=_answers)
    os._exit(0)  # without waiting for peers, which end as suddenly
