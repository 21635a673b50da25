"""A contestant of several processes that step together, as one unit: started, told how far to run, ended.

The controller writes the same number of steps to all of a group's processes and reads one line from each; while another
group runs, they wait for the next line on stdin.

    with ProcessGroup("two workers", command, members) as group:
        group.wait_until_ready()
        steps, wall, cpu = group.window(3.0)
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Protocol, TextIO

from benchmarks.side_by_side import CALIBRATION_SECONDS, LATE_SECONDS, ROOT, START_SECONDS, ContestantFailed

_WARM_UP_STEPS = 3  # compile all graphs and fill caches; their times are not looked at


class Told(Protocol):
    """What a process is told: which of its contestant's processes it is, and what it does."""

    def to_json(self) -> str: ...


class ProcessGroup:
    """The processes of one contestant, from their start to their SIGKILL. Use it as a context manager.

    Args:
        command: each process gets its member as JSON behind it.
    """

    def __init__(self, name: str, command: Sequence[str], members: Sequence[Told]):
        self.name = name
        self.facts: dict[str, Any] = {}
        self._per_step = 0.0
        # Else the shell's settings would be measured too.
        environ = {k: v for k, v in os.environ.items() if k not in ("TF_CONFIG", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self._stderrs: list[TextIO] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._outputs: list[IO[bytes]] = []
        for member in members:
            stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed in __exit__)
            self._stderrs.append(stderr)
            process = subprocess.Popen(
                [*command, member.to_json()],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
            assert process.stdout
            self._processes.append(process)
            self._outputs.append(process.stdout)

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *_exception: object) -> None:
        for process in self._processes:
            process.kill()
        for process, stderr in zip(self._processes, self._stderrs, strict=True):
            process.wait()
            for stream in (process.stdin, process.stdout, stderr):
                with contextlib.suppress(BrokenPipeError):
                    stream.close()  # type: ignore[union-attr]

    def wait_until_ready(self) -> None:
        """Compiles, and measures how many steps fill a window; raises ContestantFailed."""
        self.facts = json.loads(self._answers(START_SECONDS)[0])
        for _ in range(_WARM_UP_STEPS):
            self._run(1, START_SECONDS)
        steps, wall = 1, 0.0
        while wall < CALIBRATION_SECONDS:
            wall, _ = self._run(steps, START_SECONDS)
            self._per_step = wall / steps
            steps *= 2

    def window(self, seconds: float) -> tuple[int, float, float]:
        """(steps, wall seconds, CPU seconds of all processes) of about this many seconds of work."""
        steps = max(1, round(seconds / self._per_step))
        wall, cpu = self._run(steps, 10 * seconds + LATE_SECONDS)
        self._per_step = wall / steps
        return steps, wall, cpu

    def _run(self, steps: int, deadline: float) -> tuple[float, float]:
        """(wall seconds of the slowest process, CPU seconds of all)."""
        for process in self._processes:
            assert process.stdin
            with contextlib.suppress(BrokenPipeError):  # then the answer is missing too, and says why
                process.stdin.write(f"{steps}\n".encode())
                process.stdin.flush()
        pairs = [tuple(map(float, line.split())) for line in self._answers(deadline)]
        return max(wall for wall, _ in pairs), sum(cpu for _, cpu in pairs)

    def _answers(self, seconds: float) -> list[str]:
        """One line of each process; raises ContestantFailed if one ends or the time does."""
        deadline = time.monotonic() + seconds
        lines: dict[int, str] = {}
        # One short line per question, hence nothing is left in the reader's buffer for select to miss.
        while len(lines) < len(self._outputs):
            waiting = [i for i in range(len(self._outputs)) if i not in lines]
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._outputs[i] for i in waiting], [], [], left)
            if not ready:
                raise self._failed(waiting[0], f"did not answer within {seconds:.0f} s")
            for i in (i for i in waiting if self._outputs[i] in ready):
                lines[i] = self._outputs[i].readline().decode()
                if not lines[i]:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._processes[i].wait(timeout=10)
                    raise self._failed(i, f"ended with status {self._processes[i].poll()}")
        return [lines[i] for i in range(len(lines))]

    def _failed(self, rank: int, what: str) -> ContestantFailed:
        self._stderrs[rank].seek(0)
        end = self._stderrs[rank].read()[-4000:]
        return ContestantFailed(f"process {rank} of {self.name!r} {what}; the end of its stderr:\n{end}")


@contextlib.contextmanager
def started(
    parties: Mapping[str, tuple[Sequence[str], Sequence[Told]]], say: Callable[[str], None]
) -> Iterator[list[ProcessGroup]]:
    """The groups of these commands and members, by name, ready; raises ContestantFailed."""
    with contextlib.ExitStack() as stack:
        groups = []
        for name, (command, members) in parties.items():
            begun = time.monotonic()
            groups.append(stack.enter_context(ProcessGroup(name, command, members)))
            groups[-1].wait_until_ready()  # before the next one starts, so that no two compile at once
            say(f"{name} is ready after {time.monotonic() - begun:.0f} s")
        yield groups


def free_addresses(count: int) -> tuple[str, ...]:
    """Free ports of this machine; somebody may take one before it is used, which is rare enough for a benchmark."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
