"""One contestant of the checkpoint benchmark, from its own side: trains, saves while it trains on, tells the cost.

Needs no TensorFlow by itself; what trains and saves is checkpoint_stall_savers.py. Who starts the processes and asks
for a window is checkpoint_stall.py.

    python -m benchmarks.checkpoint_stall_member FUNCTION '{"parameters": 2000000, "folder": "build/somewhere"}'

A window trains for some seconds, saves and trains on until the write has ended, looks at the files, removes them, and
trains as long again: what a step costs without a save is the mean of the steps before and after.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import re
import shutil
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

LEAST_STEPS = 2  # behind a save: the first one pays for copies that were put off
_WARM_UP_STEPS = 4  # all graphs compiled


@dataclass(frozen=True)
class Saver:
    """What trains and saves.

    Attributes:
        save: as a training loop calls it.
        state: the model's and the optimizer's arrays now, one by one.
        saved: those that the last save wrote.
        train: does this many steps and returns once they are done; None where nothing trains, as for a plain copy.
        wait: returns once the write has ended; None where `save` itself does.
        forget: drops what a save leaves in memory.
        facts: JSON values to report.
    """

    save: Callable[[], None]
    state: Callable[[], Iterable[np.ndarray]]
    saved: Callable[[], Iterable[np.ndarray]]
    train: Callable[[int], None] | None = None
    wait: Callable[[], None] | None = None
    forget: Callable[[], None] = lambda: None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Window:
    """What one save cost. Seconds of wall time, where it says nothing else.

    Attributes:
        call: that the call itself blocked.
        first: that the call and the first step behind it took longer than a step without a save.
        stall: that the call and the steps until the write had ended took longer than these steps take without a save.
        written: from the call until the write had ended.
        steps: that were trained meanwhile.
        step: of one step without a save.
        cpu: of processor time, of all of the process's threads, for the save alone.
        lost: arrays of the state at the call that are not in the files.
        memory: bytes resident at the peak of training, and at the peak of training with a save.
    """

    call: float
    first: float
    stall: float
    written: float
    steps: int
    step: float
    cpu: float
    lost: int
    memory: tuple[int, int]


@dataclass(frozen=True)
class _Saved:
    """Seconds from the call: to its return, to the end of the first step and of the last one, and to the end of the
    write; of processor time in all; and the steps."""

    call: float
    first: float
    all: float
    written: float
    cpu: float
    steps: int


class Member:
    """Runs the windows of one saver, whose files lie in `folder`."""

    def __init__(self, saver: Saver, folder: Path):
        self.saver, self.folder = saver, folder
        self._step = 0.0

    def warm_up(self) -> None:
        """Compiles, and saves twice: some make their buffers and graphs in the first save, some in the second."""
        if self.saver.train:
            self.saver.train(_WARM_UP_STEPS)
            self._step = self._train(LEAST_STEPS)[0]
        for _ in range(2):
            with self._cleared():
                self._save()

    def window(self, seconds: float) -> Window:
        """Args: how long to train before the save, and again after it."""
        steps = max(LEAST_STEPS, round(seconds / self._step)) if self._step else 0
        _reset_peak()
        before, base_peak = self._train(steps), _peak()
        with self._cleared():
            wanted = _checksums(self.saver.state())
            _reset_peak()
            saved = self._save()
            peak = _peak()
            lost = wanted - _checksums(self.saver.saved())
        after = self._train(steps)
        self._step, step_cpu = (before[0] + after[0]) / 2, (before[1] + after[1]) / 2
        return Window(
            call=saved.call,
            first=saved.first - min(1, saved.steps) * self._step,
            stall=saved.all - saved.steps * self._step,
            written=saved.written,
            steps=saved.steps,
            step=self._step,
            cpu=saved.cpu - saved.steps * step_cpu,
            lost=sum(lost.values()),
            memory=(base_peak, peak),
        )

    def _train(self, steps: int) -> tuple[float, float]:
        """Seconds of wall and of processor time per step, one call per step, as beside a save."""
        if not (self.saver.train and steps):
            return 0.0, 0.0
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self.saver.train(1)
        return (time.perf_counter() - start) / steps, (time.process_time() - cpu) / steps

    def _save(self) -> _Saved:
        cpu, start = time.process_time(), time.perf_counter()
        self.saver.save()
        call = first = time.perf_counter() - start
        writing = _Writing(self.saver.wait)
        steps = 0
        while self.saver.train and (steps < LEAST_STEPS or not writing.ended.is_set()):
            self.saver.train(1)
            steps += 1
            if steps == 1:
                first = time.perf_counter() - start
        total = time.perf_counter() - start
        written = max(call, writing.join() - start)
        return _Saved(call, first, total, written, time.process_time() - cpu, steps)

    @contextlib.contextmanager
    def _cleared(self) -> Iterator[None]:
        """Leaves neither files nor unwritten pages to what is measured next."""
        self.folder.mkdir(parents=True, exist_ok=True)
        yield
        self.saver.forget()
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        os.sync()


class _Writing:
    """A thread that notes when a write has ended; `ended` is set from the start where there is nothing to wait for."""

    def __init__(self, wait: Callable[[], None] | None):
        self.ended = threading.Event()
        self._at = time.perf_counter()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._watch, args=(wait,), daemon=True) if wait else None
        self._thread.start() if self._thread else self.ended.set()

    def _watch(self, wait: Callable[[], object]) -> None:
        try:
            wait()
        except Exception as error:  # told by join, in the thread that can end the process
            self._error = error
        self._at = time.perf_counter()
        self.ended.set()

    def join(self) -> float:
        """When it ended, by time.perf_counter(); raises what the write raised."""
        self.ended.wait()
        if self._error:
            raise self._error
        return self._at


def _checksums(arrays: Iterable[np.ndarray]) -> collections.Counter[tuple[tuple[int, ...], int]]:
    """How often each content occurs; names differ between formats, contents must not. Scalars are left out."""
    found = collections.Counter(
        (array.shape, zlib.crc32(np.ascontiguousarray(array).data)) for array in arrays if array.ndim
    )
    if not found:
        raise RuntimeError("there are no arrays to compare")
    return found


def _reset_peak() -> None:
    with contextlib.suppress(OSError):  # only Linux has it
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The largest resident set since `_reset_peak`, in bytes; 0 where the system doesn't tell."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) << 10 if found else 0
    return 0


def main() -> None:
    function, told = sys.argv[1], json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # stdout is for answers alone
    os.close(silence)
    from benchmarks import checkpoint_stall_savers, side_by_side

    side_by_side.die_with_parent()
    folder = Path(told["folder"])
    saver = getattr(checkpoint_stall_savers, function)(told["parameters"], folder)
    member = Member(saver, folder)
    member.warm_up()
    print(json.dumps(saver.facts), file=answers)
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(member.window(float(line)))), file=answers)


if __name__ == "__main__":
    main()
