"""Faults that nobody had put into the matrix at first: streams that take nothing, and signals in other numbers.

The rest of group F is in test_f_folders.py (what lies in a run folder) and test_f_hosts.py (who else is there).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dense_models import environ
from support.fault_rows import LIGHT, TRAIN, exit_code_in, last_step, run_dir_of, steps_of, tiny_job, training_rows

FULL = "/dev/full"  # a full disk, as far as streams can tell


def ended(command, *, within: float = 60.0, more_environ=None, **streams) -> int:
    """The exit code of a program of ours with these streams, as a shell tells it."""
    env = {**environ(), **(more_environ or {})}
    process = subprocess.Popen([sys.executable, *command], env=env, start_new_session=True, **streams)
    try:
        code = process.wait(timeout=within)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        pytest.fail(f"{command} still runs after {within} s")
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def nobody_reads() -> Iterator[int]:
    """The end of a pipe whose reader is gone."""
    reads, writes = os.pipe()
    os.close(reads)
    try:
        yield writes
    finally:
        os.close(writes)


@contextlib.contextmanager
def somebody_sleeps() -> Iterator[int]:
    """The end of a pipe that is full, since its reader does not read."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writes, bytes(4096))
    os.set_blocking(writes, True)
    try:
        yield writes
    finally:
        os.close(reads)
        os.close(writes)


# -- F1: standard error takes nothing

F1 = pytest.mark.fault(
    "F1",
    injected="standard error is a full disk, a pipe without a reader or with one that sleeps, closed",
    expected="the same exit codes in the same time: bad input, SIGTERM's grace, a hang, a lost peer",
)
_ENDS = {
    # What ends a process from another thread than its main one, with the code that it must end with
    143: """
import ctypes, os, signal
from tfscale.process.stopping import Stopping
with Stopping(grace=0.5, owns_process=True).listening() as stopping:
    stopping.hold()
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.CDLL(None).sleep(15)
""",
    138: """
import sys, time
from pathlib import Path
from tfscale.process.watchdog import Watchdog
with Watchdog(0.5, stacks=Path("/dev/full"), on_hang=lambda error: time.sleep(30)).watching():
    time.sleep(15)
""",
}


@F1
@pytest.mark.parametrize("stream", ["full", "gone", "asleep"])
@pytest.mark.parametrize("code", [143, 138])
def test_a_line_that_nobody_takes_does_not_keep_the_process(got, stream, code):
    with contextlib.ExitStack() as stack:
        opened = {
            "full": lambda: stack.enter_context(open(FULL, "wb")),
            "gone": lambda: stack.enter_context(nobody_reads()),
            "asleep": lambda: stack.enter_context(somebody_sleeps()),
        }[stream]()
        began = time.monotonic()
        assert ended(["-c", _ENDS[code]], stderr=opened, within=14) == code
        got(f"{stream}: {code} in {time.monotonic() - began:.1f} s")


@F1
def test_who_ends_a_process_from_outside_does_not_need_to_tell(got):
    text = _ENDS[138].partition("import sys")[0] + (
        "import ctypes\nfrom tfscale.errors import ClusterFault\nfrom tfscale.process.watchdog import ended_from_outside\n"
        "with ended_from_outside(0.5, ClusterFault('nobody came')):\n    ctypes.PyDLL(None).sleep(15)\n"
    )
    with open(FULL, "wb") as full, somebody_sleeps() as asleep:
        for stream in (full, asleep):
            assert ended(["-c", text], stderr=stream, within=14) == 138
    got("from outside: 138")


@F1
def test_bad_input_with_all_streams_closed(got, tmp_path):
    """A shell closes them: the files that are opened next must not get what is printed."""
    command = f'exec "{sys.executable}" -m tfscale.train +recipe=nope {{}}'
    for closed in ("2>&-", ">&- 2>&- <&-", f"2>{FULL}"):
        done = subprocess.run(["/bin/sh", "-c", command.format(closed)], cwd=tmp_path, env=environ(), timeout=30)
        got(f"{closed}: {done.returncode}")
        assert done.returncode == 64
    with somebody_sleeps() as stderr:
        assert ended(["-m", "tfscale.train", "+recipe=nope"], stderr=stderr, within=25) == 64


@F1
def test_the_last_line_gets_through_while_tensorflow_starts():
    """Its start is hushed by way of the descriptor that the line goes to."""
    program = (
        "from tfscale import console as streams\nfrom tfscale.errors import ClusterFault\nstreams.begin()\n"
        "with streams.hushed():\n    streams.end_process(ClusterFault('a peer was lost'))\n"
    )
    for begin in ("streams.begin()\n", ""):
        text = program.replace("streams.begin()\n", begin)
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stderr) == (138, "tfscale: error[E-0138] a peer was lost | - | -\n")


# -- F2 and the signals: one run that goes on and on

F2 = pytest.mark.fault(
    "F2",
    injected="standard output is a full disk or its reader is gone, in launch and in a script that calls fit (train: F16)",
    expected="messages are dropped, the job ends with 0",
)
F16 = pytest.mark.fault(
    "F16",
    injected="SIGHUP, its terminal gone; SIGHUP under nohup, all output to a full disk",
    expected="143, saved; ignored, 0",
)
F17 = pytest.mark.fault(
    "F17", injected="forty SIGTERMs in two seconds, with streams that are closed", expected="143, saved; it resumes"
)


class Running:
    """A training in `run_dir` that ends when it is told to."""

    def __init__(self, job: list[str], cwd: Path, *, shell: str = "", **streams):
        self.run_dir = run_dir_of(job, cwd)
        self.before = last_step(self.run_dir)
        command = [
            "env",
            "--default-signal=HUP",  # the tests themselves may run under nohup
            "/bin/sh",
            "-c",
            f'{shell} exec "$0" "$@" {streams.pop("redirect", "")}',
            sys.executable,
            *TRAIN,
            *job,
        ]
        self.process = subprocess.Popen(command, cwd=cwd, env=environ(), start_new_session=True, **streams)

    def is_at_work(self, steps: int = 3) -> None:
        deadline = time.monotonic() + 60
        while last_step(self.run_dir) < self.before + steps:
            assert self.process.poll() is None and time.monotonic() < deadline, self.process.returncode
            time.sleep(0.02)

    def ended(self, within: float = 30) -> int:
        try:
            code = self.process.wait(timeout=within)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        return code if code >= 0 else 128 - code


@pytest.fixture(scope="module")
def at_work(tmp_path_factory) -> Path:
    """Where all tests of one run work."""
    return tmp_path_factory.mktemp("signals")


LONG = tiny_job(steps=1_000_000, every=1_000_000)


@pytest.mark.long
@F17
def test_a_storm_of_sigterm_saves(at_work, got):
    run = Running(LONG, at_work, redirect="<&- >&- 2>&-")
    run.is_at_work()
    for _ in range(40):
        run.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    assert run.ended() == exit_code_in(run.run_dir) == 143
    step = steps_of(run.run_dir)[-1]
    assert step == last_step(run.run_dir) > 3
    got(f"143, saved at step {step}")


@F16
def test_sighup_saves_as_sigterm_does(at_work, got):
    with nobody_reads() as stdout, (at_work / "err.txt").open("wb") as err:  # the terminal is gone
        run = Running(LONG, at_work, stdout=stdout, stderr=err)
        run.is_at_work()
        run.process.send_signal(signal.SIGHUP)
        assert run.ended() == exit_code_in(run.run_dir) == 143
    step = steps_of(run.run_dir)[-1]
    assert "E-0143] stopped by SIGHUP; the checkpoint of step" in (at_work / "err.txt").read_text()
    assert run.before < step == last_step(run.run_dir)  # it went on from the storm's step, in the same folder
    got(f"143, saved at step {step}")


@F16
def test_under_nohup_sighup_is_ignored_and_a_full_disk_ends_nothing(at_work, got):
    until = steps_of(at_work / "it")[-1] + 20
    job = tiny_job(steps=until, every=1_000_000)
    with open(FULL, "wb") as full:
        run = Running(job, at_work, shell="trap '' HUP;", stdout=full, stderr=full)
        time.sleep(0.3)
        while run.process.poll() is None:
            run.process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
        assert run.ended() == 0
    assert [row["step"] for row in training_rows(run.run_dir)] == list(range(1, until + 1))
    got("ignored: 0")


@F2
def test_launch_with_nobody_who_reads(tmp_path, got):
    program = (
        "import sys\nfrom tfscale.launch import __main__ as launch, workers as launching\n"
        "child = 'import time; [print(n, flush=True) or time.sleep(0.02) for n in range(20)]'\n"
        "launching.launch_workers.__kwdefaults__['program'] = (sys.executable, '-c', child)\n"
        "launching._result = lambda config: None\n"
        "sys.exit(launch.main(['--workers', '2', '--', *sys.argv[1:]]))\n"
    )
    with open(FULL, "wb") as full, nobody_reads() as gone:
        for name, stream in (("full", full), ("gone", gone)):
            got(f"launch, {name}: 0")
            assert ended(["-c", program, *tiny_job()], stdout=stream, within=30) == 0


# -- F3, F4

F3 = pytest.mark.fault(
    "F3",
    injected="streams that write latin-1 or ASCII",
    expected="what they lack is escaped, tables are drawn in ASCII",
)
F4 = pytest.mark.fault(
    "F4",
    injected="help, --cfg, a plan and manifests go to a full disk, a closed or an unread stream",
    expected="74, in one line",
)


@F3
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_other_encodings(encoding, tmp_path, got):
    job = tiny_job("plan.dry_run=true")
    done = subprocess.run(
        [sys.executable, *LIGHT, *job], cwd=tmp_path, capture_output=True, timeout=30,
        env={**environ(), "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == b""
    text = done.stdout.decode(encoding)
    assert "execution plan" in text and "|" in text and "\\u2" not in text
    got(f"{encoding}: 0")


@F4
def test_what_was_asked_for_and_can_not_be_written(tmp_path, got):
    asked = {
        "tfscale --help": ["-m", "tfscale", "--help"],
        "launch --help": ["-m", "tfscale.launch", "--help"],
        "--cfg": [*LIGHT, "--cfg", "job", "+recipe=resnet"],
        "a plan": [*LIGHT, *tiny_job("plan.dry_run=true")],
        "k8s": ["-m", "tfscale.k8s", "+recipe=resnet", "job=job", "job.image=it", "job.run_claim=runs"],
    }
    for index, (name, command) in enumerate(asked.items()):
        with contextlib.ExitStack() as stack:
            full = stack.enter_context(nobody_reads()) if index % 2 else stack.enter_context(open(FULL, "wb"))
            done = subprocess.run(
                [sys.executable, *command], stdout=full, stderr=subprocess.PIPE, env=environ(), cwd=tmp_path, timeout=30
            )
        got(f"{name}: {done.returncode}")
        assert done.returncode == 74
        *notes, line = done.stderr.decode().splitlines()
        assert not any("error[" in note for note in notes)  # those of a manifest may come before
        assert line.startswith("tfscale: error[E-0074] the output can't be written: ")
    shell = f'exec "{sys.executable}" -m tfscale.train --cfg job +recipe=resnet >&-'
    assert subprocess.run(["/bin/sh", "-c", shell], env=environ(), stderr=subprocess.DEVNULL).returncode == 74


@F2
def test_a_program_of_somebody_elses_gets_its_streams_back():
    """`tfscale.fit` in a script: nothing is raised while it trains."""
    text = (
        "import sys\nfrom tfscale import console as streams\nbefore = sys.stdout, sys.stderr\n"
        "with streams.lenient():\n    print('x' * 100_000)\n    print('y', file=sys.stderr, flush=True)\n"
        "sys.exit(3 if (sys.stdout, sys.stderr) == before else 4)\n"
    )
    with open(FULL, "wb") as full, nobody_reads() as gone:
        assert ended(["-c", text], stdout=gone, stderr=full) == 3
