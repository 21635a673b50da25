"""Contestants side by side on a noisy machine: processes, blocks of windows, ratios with confidence intervals.

Each contestant is one long-lived process, so that policies, threads and caches don't mix; one runs while the others
wait for a line on stdin. A block gives every contestant one window in random order, and a ratio is formed within its
block, so that whatever slows the machine for longer than a block slows both sides of it.

    question = Question(title, "us/step", contestants, claims, ("ours again", "ours"), "ours", 32)
    measured = measure(question, blocks=15, seconds=2.0, seed=0)
    print(measured.ratio("ours", "bare loop"))
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import importlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 600.0  # importing, building, compiling and calibrating, at most
LATE_SECONDS = 120.0  # how much later than ten times its length a window may end
CALIBRATION_SECONDS = 0.5  # a run this long tells how many steps fill a window
TOLERANCE = 0.02  # the A/A control must read 1.00 within this


@dataclass(frozen=True)
class Work:
    """What a contestant's factory returns, in the contestant's process.

    Attributes:
        run: does this many steps and returns once they are done; called with multiples of `chunk`.
        chunk: steps that belong together, such as one compiled loop.
        facts: JSON values to report, such as the number of parameters.
    """

    run: Callable[[int], None]
    chunk: int
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contestant:
    """`factory` is "module:function"; the function takes `arguments` and returns `Work`. `python` is its interpreter,
    where it needs an environment of its own."""

    name: str
    factory: str
    arguments: tuple[str, ...] = ()
    python: str = sys.executable


@dataclass(frozen=True)
class Claim:
    """The ratio of seconds per step, `over` to `under`, lies between `low` and `high`."""

    text: str
    over: str
    under: str
    low: float = 0.0
    high: float = math.inf


@dataclass(frozen=True)
class Question:
    """What is compared.

    Attributes:
        unit: "us/step" or "examples/s", in which absolute figures are shown.
        control: two contestants that do the same; their ratio must read 1.
        baseline: the contestant that every other one is compared with.
        batch: examples per step.
        notes: what a reader must know about the comparison.
    """

    title: str
    unit: str
    contestants: tuple[Contestant, ...]
    claims: tuple[Claim, ...]
    control: tuple[str, str]
    baseline: str
    batch: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ratio:
    """A median of per-block ratios and its 95 % confidence interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


class ContestantFailed(RuntimeError):
    """A contestant ended or missed its deadline; the message holds the end of its stderr."""


# -- the contestant's side


def serve(factory: str, *arguments: str) -> None:
    """Runs in the contestant's process: builds the work, says so, then answers "go SECONDS" until stdin ends.

    The protocol has the process's stdout to itself; what the work prints goes to /dev/null.
    """
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.close(silence)
    module, function = factory.split(":")
    work: Work = getattr(importlib.import_module(module), function)(*arguments)
    per_step = _calibrate(work)
    print(json.dumps({**work.facts, "peak_bytes": peak_bytes()}), file=answers)
    for line in sys.stdin:
        seconds = float(line.split()[1])
        steps = max(1, round(seconds / per_step / work.chunk)) * work.chunk
        cpu, start = time.process_time(), time.perf_counter()
        work.run(steps)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        per_step = wall / steps
        print(steps, wall, cpu, file=answers)


def peak_bytes() -> int | None:
    """The most memory that this process has had resident; None where the system doesn't say it as Linux does."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def die_with_parent() -> None:
    """Asks Linux for SIGKILL when the parent dies, also in the middle of a window; elsewhere stdin's end must do."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _calibrate(work: Work) -> float:
    """Seconds per step after compilation, from a run that is long enough to hide what a call costs."""
    work.run(work.chunk)
    steps = work.chunk
    while True:
        start = time.perf_counter()
        work.run(steps)
        wall = time.perf_counter() - start
        if wall >= CALIBRATION_SECONDS:
            return wall / steps
        steps *= 2


# -- the parent's side


class Process:
    """One contestant's process, from its start to its SIGKILL. Use it as a context manager."""

    def __init__(self, contestant: Contestant):
        self.name = contestant.name
        self.facts: dict[str, Any] = {}
        self._stderr: TextIO = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [
                contestant.python,
                "-c",
                f"from benchmarks.side_by_side import serve; serve{(contestant.factory, *contestant.arguments)!r}",
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]

    def wait_until_ready(self) -> None:
        """Raises ContestantFailed: it could not be built."""
        self.facts = json.loads(self._answer(START_SECONDS))

    def window(self, seconds: float) -> tuple[int, float, float]:
        """(steps, wall seconds, CPU seconds) of about this many seconds of work."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # then the answer is missing too, and says why
            self._process.stdin.write(f"go {seconds}\n".encode())
            self._process.stdin.flush()
        steps, wall, cpu = self._answer(10 * seconds + LATE_SECONDS).split()
        return int(steps), float(wall), float(cpu)

    def _answer(self, deadline: float) -> str:
        assert self._process.stdout
        # One short line per question, hence nothing is left in the reader's buffer for select to miss.
        ready, _, _ = select.select([self._process.stdout], [], [], deadline)
        line = self._process.stdout.readline().decode() if ready else ""
        if line:
            return line
        if ready:  # stdout ended, so the process is ending by itself: its own status says more than a SIGKILL's
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
        self._process.kill()
        status = self._process.wait()
        what = f"ended with status {status}" if ready else f"did not answer within {deadline:.0f} s and was killed"
        self._stderr.seek(0)
        raise ContestantFailed(
            f"contestant {self.name!r} {what}; the end of its stderr:\n{self._stderr.read()[-4000:]}"
        )


@dataclass
class Measured:
    """The windows of a question: seconds per step and CPU-seconds per wall second, [blocks] by contestant."""

    question: Question
    seconds: dict[str, np.ndarray]
    cpu: dict[str, np.ndarray]
    facts: dict[str, dict[str, Any]]
    seed: int

    def ratio(self, over: str, under: str) -> Ratio:
        """Of seconds per step, formed within each block."""
        return median_interval(self.seconds[over] / self.seconds[under], seed=self.seed)

    def control(self) -> Ratio:
        return self.ratio(*self.question.control)

    def control_holds(self) -> bool:
        return abs(self.control().median - 1) <= TOLERANCE

    def figure(self, name: str) -> float:
        """The median absolute figure in the question's unit."""
        seconds = float(np.median(self.seconds[name]))
        return 1e6 * seconds if self.question.unit == "us/step" else self.question.batch / seconds

    def verdict(self, claim: Claim) -> str:
        """ "inconclusive" if the A/A control is off or the interval of the ratio crosses a bound."""
        ratio = self.ratio(claim.over, claim.under)
        if not self.control_holds():
            return "inconclusive (A/A control off)"
        if claim.low <= ratio.low and ratio.high <= claim.high:
            return "holds"
        if ratio.high < claim.low or ratio.low > claim.high:
            return "does not hold"
        return "inconclusive (the interval crosses the bound)"


def median_interval(values: Sequence[float] | np.ndarray, *, seed: int = 0, resamples: int = 10_000) -> Ratio:
    """The median of `values` with its 95 % percentile bootstrap interval."""
    values = np.asarray(values, np.float64)
    picks = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(np.median(values[picks], axis=1), [2.5, 97.5])
    return Ratio(float(np.median(values)), float(low), float(high))


def measure(
    question: Question,
    *,
    blocks: int,
    seconds: float,
    seed: int,
    say: Callable[[str], None] = lambda text: None,
    at_once: int = 1,
) -> Measured:
    """Starts the contestants and runs the blocks.

    Args:
        seconds: the length of a window.
        seed: of the order within blocks and of the bootstrap.
        say: told what happens, one line at a time.
        at_once: how many are started at the same time, which is over sooner and disturbs what they measure of
            themselves, such as memory; the blocks begin when all are ready.

    Raises:
        ContestantFailed: a contestant ended or hung.
    """
    with started(question, say, at_once=at_once) as processes:
        per_step, cpu = in_blocks(processes, blocks=blocks, seconds=seconds, seed=seed, say=say)
        facts = {process.name: process.facts for process in processes}
    return Measured(question, per_step, cpu, facts, seed)


class Windowed(Protocol):
    """What runs a window: a process, or a group of them that step together."""

    @property
    def name(self) -> str: ...

    def window(self, seconds: float) -> tuple[int, float, float]:
        """(steps, seconds of wall time, seconds of processor time)."""


def in_blocks(
    contestants: Sequence[Windowed], *, blocks: int, seconds: float, seed: int, say: Callable[[str], None]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Gives every contestant one window in each block, in random order.

    Returns:
        Seconds per step and cores used, by name: float64 [blocks] each.
    """
    names = [c.name for c in contestants]
    per_step: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    order = np.random.default_rng(seed)
    for block in range(blocks):
        for i in order.permutation(len(contestants)):
            steps, wall, cpu_seconds = contestants[i].window(seconds)
            per_step[names[i]].append(wall / steps)
            cpu[names[i]].append(cpu_seconds / wall)
        say(f"block {block + 1} of {blocks}: " + ", ".join(f"{n} {per_step[n][-1] * 1e3:.4g} ms" for n in names))
    return _arrays(per_step), _arrays(cpu)


@contextlib.contextmanager
def started(question: Question, say: Callable[[str], None], *, at_once: int) -> Iterator[list[Process]]:
    """Its contestants, ready; see `measure`."""
    with contextlib.ExitStack() as stack:
        processes: list[Process] = []
        waiting = collections.deque(question.contestants)
        for i in range(len(question.contestants)):
            while waiting and len(processes) < i + at_once:
                processes.append(stack.enter_context(Process(waiting.popleft())))
            processes[i].wait_until_ready()
            say(f"{processes[i].name} is ready")
        yield processes


def _arrays(lists: dict[str, list[float]]) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in lists.items()}
