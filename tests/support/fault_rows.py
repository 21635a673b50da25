"""What the fault tests share: the rows of the matrix and their table, a tiny job, real workers, and what a run came to.

Light: nothing here imports TensorFlow. Fault tests live in tests/faults; docs/reliability.md shows the table.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import warm
from support.dense_models import environ
from support.peers import free_ports

ROWS = tuple(
    f"{group}{number}"
    for group, count in (("A", 10), ("B", 12), ("C", 13), ("D", 12), ("E", 10), ("F", 20))
    for number in range(1, count + 1)
)
# Rows without a test in this tier, and why.
NOT_BUILT = {
    "E10": "needs the image: make test-container runs it",
}
_BATCH = 10
TRAIN = ("-m", "tfscale.train")
# Fails the program when TensorFlow is imported: the surest proof that it wasn't needed.
LIGHT = ("-c", warm.LIGHT + "from tfscale.train import main; sys.exit(main())")


# -- a tiny job


def tiny_job(
    *more: str,
    steps: int = 40,
    every: int = 10,
    run_dir: str | Path = "it",
    task: str = "support.dense_models.Dense",
    data: str = "support.dense_models.Table",
) -> list[str]:
    """Overrides of a real training that is little but start-up: its losses are logged and repeat bit for bit.

    It has dropout, so that a run which goes on with other random numbers is found out.

    Args:
        more: further overrides.
        steps: the length of training, on 50 examples in steps of 10.
        every: steps between checkpoints; evaluation is at the end alone.
    """
    return [
        "extensions.allow=[support.dense_models.,support.faulty_tables.]",
        "tracker=none",
        f"+task._target_={task}",
        "+task.dropout=0.2",
        f"+data._target_={data}",
        *("optimizer.name=sgd", "optimizer.learning_rate=0.1", "optimizer.momentum=0.9"),
        f"train.global_batch={_BATCH}",
        f"train.until={steps}st",
        "train.log_every=1st",
        f"eval.every={steps}st",
        f"checkpoint.every={every}st",
        "plan.deterministic=true",
        f"run.dir={run_dir}",
        *more,
    ]


def run_dir_of(overrides: Sequence[str], cwd: Path) -> Path:
    (given,) = (part.partition("=")[2] for part in overrides if part.startswith("run.dir="))
    return cwd / given


# -- what a run came to


@dataclass(frozen=True)
class Fingerprint:
    """Two runs with equal ones did the same: the loss of every step, bit by bit, and the newest checkpoint's data."""

    losses: dict[int, str]
    step: int  # of the newest checkpoint
    files: dict[str, str]  # its data files' SHA-256


def fingerprint(run_dir: Path) -> Fingerprint:
    """Of a run with train.log_every=1st. A step that was made twice with two losses is no fingerprint but a failure."""
    losses: dict[int, str] = {}
    for row in training_rows(run_dir):
        loss = float(row["loss"]).hex()
        assert losses.setdefault(row["step"], loss) == loss, f"step {row['step']} has two losses"
    newest = committed(run_dir)[-1]
    manifest = json.loads((newest / "manifest.json").read_text())
    files = {name: said["sha256"] for name, said in manifest["files"].items()}
    for name, said in files.items():
        assert hashlib.sha256((newest / name).read_bytes()).hexdigest() == said, f"{newest / name}"
    return Fingerprint(losses, manifest["step"], files)


def training_rows(run_dir: Path) -> list[dict[str, Any]]:
    """The reports of training in metrics.jsonl, of a run that has ended."""
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] == "train"]


def result_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "result.json").read_text())


def exit_code_in(run_dir: Path) -> int:
    """What exit.json tells."""
    return json.loads((run_dir / "exit.json").read_text())["exit_code"]


def committed(run_dir: Path) -> list[Path]:
    """Checkpoints that have a manifest, oldest first."""
    return sorted(path.parent for path in run_dir.glob("checkpoints/step-*/manifest.json"))


def steps_of(run_dir: Path) -> list[int]:
    """The steps of the committed checkpoints, oldest first."""
    return [int(path.name.removeprefix("step-")) for path in committed(run_dir)]


def last_step(run_dir: Path) -> int:
    """The newest step in metrics.jsonl, 0 where there is none yet."""
    with contextlib.suppress(OSError):
        lines = (run_dir / "metrics.jsonl").read_text().splitlines()
        for line in reversed(lines):
            with contextlib.suppress(ValueError, KeyError):  # the last one may be half written
                return json.loads(line)["step"]
    return 0


# -- real workers


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    out: Path
    ended: float = 0.0  # when

    def text(self) -> str:
        return self.out.read_text(errors="replace")


class ProcessGroup:
    """Real processes of one job on this machine. Use it as a context: at its end all of them are killed.

        with ProcessGroup(tiny_job(), 2, cwd=tmp_path, logs=logs) as group:
            group.wait_step(20)
            group.signal(1, signal.SIGTERM)
            assert group.codes(within=10) == [143, 143]
            assert max(group.seconds) < 10

    Args:
        overrides: of every worker.
        workers: how many; one is told of no cluster.
        logs: a folder for their output, outside of where they work.
        faults: TFSCALE_FAULT of some of them.
        each: further overrides of some of them.
        tf_config: what each is told, in place of a cluster of `workers` on free ports.
        program, programs: Python's arguments in all, and in some of them.
        cold: whether Python is started for each, as it is where the program is other code than LIGHT; see support/warm.py.
    """

    def __init__(
        self,
        overrides: Sequence[str],
        workers: int = 1,
        *,
        cwd: Path,
        logs: Path,
        faults: Mapping[int, str] | None = None,
        each: Mapping[int, Sequence[str]] | None = None,
        more_environ: Mapping[str, str] | None = None,
        tf_config: Sequence[str] | None = None,
        program: Sequence[str] = TRAIN,
        programs: Mapping[int, Sequence[str]] | None = None,
        cold: bool = False,
    ):
        self.overrides, self.cwd, self.logs = list(overrides), cwd, logs
        self.run_dir = run_dir_of(overrides, cwd)
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)] if workers > 1 else []
        self._environ = {**environ(), **(more_environ or {})}
        self._faults, self._each = faults or {}, each or {}
        self._program, self._programs, self._cold = program, programs or {}, cold
        self._told = list(tf_config) if tf_config is not None else [self.describe(i) for i in range(workers)]
        self._workers: list[_Worker] = []
        self._began = time.monotonic()

    def describe(self, index: int) -> str:
        """TF_CONFIG of one worker; "" where there is no cluster."""
        if not self.addresses:
            return ""
        return json.dumps({"cluster": {"worker": self.addresses}, "task": {"type": "worker", "index": index}})

    def __enter__(self) -> ProcessGroup:
        for index in range(len(self._told)):
            self.start(index)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.wait()

    def start(self, index: int) -> None:
        """Starts the worker of this index, behind those that there are."""
        self.logs.mkdir(parents=True, exist_ok=True)
        env = {k: v for k, v in self._environ.items() if k not in ("TF_CONFIG", "TFSCALE_FAULT")}
        if self._told[index]:
            env["TF_CONFIG"] = self._told[index]
        if index in self._faults:
            env["TFSCALE_FAULT"] = self._faults[index]
        program = self._programs.get(index, self._program)
        command = [sys.executable, *program, *self.overrides, *self._each.get(index, ())]
        out = self.logs / f"worker-{len(self._workers)}.txt"
        with out.open("wb") as stream:
            process = warm.Popen(
                command,
                cold=self._cold or (program[0] == "-c" and not program[1].startswith(warm.LIGHT)),
                cwd=self.cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._workers.append(_Worker(process, out))
        self._began = time.monotonic()

    def pid(self, index: int) -> int:
        return self._workers[index].process.pid

    def text(self, index: int) -> str:
        """What this worker has printed so far, errors included."""
        return self._workers[index].text()

    def error(self, index: int) -> str:
        """Its last line that tells an error, or ""."""
        lines = [line for line in self.text(index).splitlines() if line.startswith("tfscale: error[")]
        return lines[-1] if lines else ""

    def signal(self, index: int, signum: signal.Signals) -> None:
        """Sends a signal; `seconds` count from here."""
        self._began = time.monotonic()
        self._workers[index].process.send_signal(signum)

    def wait_for(self, index: int, text: str, within: float = 60.0) -> None:
        """Blocks until this worker has printed the text."""
        self._wait(lambda: text in self.text(index), within, f"worker {index} has not printed {text!r}", [index])

    def wait_step(self, step: int, within: float = 60.0) -> int:
        """Blocks until metrics.jsonl has reached this step, and returns how far it is."""
        self._wait(lambda: last_step(self.run_dir) >= step, within, f"step {step} is not reached")
        return last_step(self.run_dir)

    def wait(self, holds, within: float = 60.0, what: str = "it does not hold") -> None:
        """Blocks until `holds()`."""
        self._wait(holds, within, what)

    def codes(self, within: float = 60.0, of: Sequence[int] | None = None) -> list[int]:
        """The exit codes of these workers, or of all; a signal that killed one counts as a shell counts it."""
        chosen = [self._workers[i] for i in (of if of is not None else range(len(self._workers)))]
        deadline = time.monotonic() + within
        while [worker for worker in chosen if self._running(worker)]:  # all, for each one's end is taken down
            if time.monotonic() > deadline:
                running = [i for i, worker in enumerate(self._workers) if self._running(worker)]
                raise AssertionError(f"workers {running} still run after {within} s\n{self.tails()}")
            time.sleep(0.02)
        codes = [worker.process.returncode for worker in chosen]
        return [code if code >= 0 else 128 - code for code in codes]

    @property
    def seconds(self) -> list[float]:
        """From the last signal, or start, to the end of each that `codes` saw end."""
        return [max(0.0, worker.ended - self._began) for worker in self._workers if worker.ended]

    def tails(self) -> str:
        return "\n".join(f"--- worker {i}\n{worker.text()[-3000:]}" for i, worker in enumerate(self._workers))

    def _running(self, worker: _Worker) -> bool:
        if worker.process.poll() is None:
            return True
        worker.ended = worker.ended or time.monotonic()
        return False

    def _wait(self, holds, within: float, what: str, needs: Sequence[int] | None = None) -> None:
        """Fails at once where a worker has ended, since what it was to do can't come any more."""
        deadline = time.monotonic() + within
        while True:
            some = [self._workers[i] for i in needs] if needs is not None else self._workers
            ended = [worker for worker in some if not self._running(worker)]
            if holds():
                return
            if ended and len(ended) == len(some):
                raise AssertionError(f"{what}, and these workers have ended\n{self.tails()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} after {within} s\n{self.tails()}")
            time.sleep(0.02)


# -- the table


@dataclass
class Row:
    """What the tests of one row told."""

    injected: str = ""
    expected: str = ""
    got: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: bool = False
    passed: bool = False
    seconds: float = 0.0


def table(rows: Mapping[str, Row]) -> Iterator[str]:
    """The lines of the report in Markdown."""
    yield "| case | injected | expected | got | seconds |"
    yield "|---|---|---|---|---:|"
    passed, failed, skipped, not_run = 0, 0, [], []
    for name in ROWS:
        row = rows.get(name)
        if row is None:
            (skipped.append(f"{name} {NOT_BUILT[name]}") if name in NOT_BUILT else not_run.append(name))
            continue
        if not (row.failed or row.passed):
            skipped.append(f"{name} {'; '.join(dict.fromkeys(row.skipped))}")
            continue
        passed, failed = passed + (not row.failed), failed + row.failed
        told = "; ".join(dict.fromkeys(row.got)) or ("" if row.failed else "as expected")
        got = f"FAILED {told}".strip() if row.failed else told
        yield f"| {name} | {_cell(row.injected)} | {_cell(row.expected)} | {_cell(got)} | {row.seconds:.1f} |"
    yield ""
    if skipped:
        yield f"Not built: {'; '.join(skipped)}."
    if not_run:
        yield f"No test ran: {', '.join(not_run)}."
    yield f"{passed} of {len(ROWS)} rows pass, {failed} fail, {len(skipped) + len(not_run)} not built"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
