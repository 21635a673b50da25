"""Faults of the processes that train: told to stop, killed, stopped, hung, failed; and the same command again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.fault_rows import (
    LIGHT,
    ProcessGroup,
    exit_code_in,
    fingerprint,
    last_step,
    steps_of,
    tiny_job,
    training_rows,
)

SLOWLY = "train.loop:sleep0.1"  # so that there is a middle of the training to hit
EVERY = 10  # steps between checkpoints in tiny()
# Meets the others, and is stopped by SIGSTOP where TensorFlow would begin.
STOPS_AT_TENSORFLOW = (
    "-c",
    """
import importlib.abc, os, signal, sys
class Stop(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "tensorflow":
            os.kill(os.getpid(), signal.SIGSTOP)
sys.meta_path.insert(0, Stop())
from tfscale.train import main
sys.exit(main())
""",
)


def check_whole(run_dir: Path) -> None:
    """Nothing half written is visible, and nothing was left behind."""
    names = [path.name for path in run_dir.glob("checkpoints/*")]
    assert all(name.startswith("step-") for name in names), names
    assert len(steps_of(run_dir)) == len(names)


# -- told to stop


@dataclass(frozen=True)
class Stopped:
    seconds: float  # from SIGTERM
    began: int  # the step at SIGTERM
    saved: int  # the step of the newest checkpoint
    error: str


B3 = pytest.mark.fault(
    "B3",
    injected="SIGTERM in evaluation, save, first trace and start-up barrier; twice",
    expected="143, no partial checkpoint; the second one ends at once",
)
# With the least step that is saved. A disk may take its time to write step 30, and the training doesn't wait for it.
MOMENTS = {"eval.loop:step=1": 20, "train.loop:step=31:sleep3,ckpt.before_commit:step=30": 30, "train.trace": 30}


@pytest.fixture(scope="module")
def stops(tmp_path_factory, alone) -> dict[str, Stopped]:
    """By its moment: one run that is stopped in mid-step, an evaluation, a save and the trace of its first step, and ends."""
    folder, found = tmp_path_factory.mktemp("stops"), {}
    overrides, saved = tiny_job("eval.every=20st"), 0
    for where in ("mid-step", *MOMENTS, ""):
        faults = {"": {}, "mid-step": {0: SLOWLY}}.get(where, {0: f"{SLOWLY},{where}:term"})
        logs = folder / f"logs-{len(found)}"
        with ProcessGroup(overrides, cwd=folder, logs=logs, faults=faults) as group:
            began = 0
            if where == "mid-step":
                began = group.wait_step(15)
                group.signal(0, signal.SIGTERM)
            assert group.codes(within=120) == [143 if where else 0], group.tails()
            check_whole(group.run_dir)
            if saved:
                assert f"resuming at step {saved} of 40" in group.text(0), group.text(0)
            saved = steps_of(group.run_dir)[-1]
            found[where] = Stopped(group.seconds[0], began, saved, group.error(0))
            if where == "mid-step":
                assert saved == last_step(group.run_dir) < 40
    assert fingerprint(group.run_dir) == alone
    return found


@pytest.mark.fault("B2", injected="SIGTERM in mid-step, one process", expected="143, nothing lost; resumes bit for bit")
def test_sigterm_to_a_single_process(stops, got):
    stopped = stops["mid-step"]
    assert stopped.began <= stopped.saved
    assert f"the checkpoint of step {stopped.saved} is committed" in stopped.error
    assert stopped.seconds < 10
    got(f"143 in {stopped.seconds:.1f} s at step {stopped.saved}; resumed, the same bits at step 40")


@B3
def test_sigterm_where_no_step_is_made(stops, got):
    for where, least in MOMENTS.items():
        got(f"{where.split(',')[-1].split(':')[0]}: 143, saved at step {stops[where].saved}")
        assert least <= stops[where].saved < 40


@B3
def test_sigterm_in_the_rendezvous(tiny, group, got):
    first = group(tiny(), 2, faults={0: "start.meet:term", 1: "start.meet:term"}, program=LIGHT)
    assert first.codes(within=30) == [143, 143], first.tails()
    got(f"before the rendezvous: 143 in {max(first.seconds):.1f} s from the start")
    assert exit_code_in(first.run_dir) == 143
    assert steps_of(first.run_dir) == []


@B3
def test_sigterm_before_the_barrier_of_tensorflow(tiny, group, got):
    """The other worker has met this one and never starts TensorFlow, in whose barrier no Python would run."""
    first = group(tiny("cluster.silence=120"), 2, programs={1: STOPS_AT_TENSORFLOW})
    first.wait(lambda: _state(first.pid(1)) == "T", within=60, what="worker 1 is not stopped")
    time.sleep(8)  # TensorFlow is imported by now, and worker 0 waits
    first.signal(0, signal.SIGTERM)
    assert first.codes(within=30, of=[0]) == [143], first.tails()
    got(f"before TensorFlow's barrier: 143 in {first.seconds[0]:.1f} s")
    assert first.seconds[0] < 5
    assert exit_code_in(first.run_dir) == 143


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


@B3
def test_a_second_sigterm_ends_at_once(tiny, group, got):
    first = group(tiny(), faults={0: "train.loop:step=15:sleep20"})
    first.wait_step(14)
    first.wait(lambda: last_step(first.run_dir) == 14 and _state(first.pid(0)) == "S", within=20)
    time.sleep(0.5)  # it sleeps now, as a step would that takes long
    first.signal(0, signal.SIGTERM)
    time.sleep(1)
    with pytest.raises(AssertionError, match="still run"):  # there is work to keep, and 25 s of grace for it
        first.codes(within=0.1)
    first.signal(0, signal.SIGTERM)
    assert first.codes(within=30) == [143], first.tails()
    got(f"the second: 143 in {first.seconds[0]:.1f} s")
    assert first.seconds[0] < 2
    assert steps_of(first.run_dir) == [10]
    assert exit_code_in(first.run_dir) == 143


# -- lost


@dataclass(frozen=True)
class Lost:
    codes: list[int]
    errors: list[str]
    seconds: list[float]  # to the end of each
    reached: int  # steps
    saved: int  # the step of the newest checkpoint, from which the next attempt went on


@pytest.fixture(scope="module")
def losses(tmp_path_factory, pair) -> dict[str, Lost]:
    """One job of two workers that has to end three times: worker 1 gets SIGTERM, worker 1 is killed, then the chief. It
    comes to the bits of one that nothing happens to."""
    folder, found = tmp_path_factory.mktemp("losses"), {}
    moments = {"SIGTERM": (1, signal.SIGTERM, 12), "worker": (1, signal.SIGKILL, 18), "chief": (0, signal.SIGKILL, 27)}
    for what in (*moments, ""):
        faults = {0: SLOWLY} if what else {}
        with ProcessGroup(tiny_job(), 2, cwd=folder, logs=folder / f"logs-{len(found)}", faults=faults) as group:
            if what:
                index, signum, step = moments[what]
                group.wait_step(step)
                group.signal(index, signum)
            codes = group.codes(within=120)
            if found:
                assert f"resuming at step {list(found.values())[-1].saved} of 40" in group.text(0), group.tails()
            errors, saved = [group.error(0), group.error(1)], steps_of(group.run_dir)[-1]
            found[what] = Lost(codes, errors, group.seconds, last_step(group.run_dir), saved)
            if what == "SIGTERM":
                assert exit_code_in(group.run_dir) == 143
                check_whole(group.run_dir)
    assert found[""].codes == [0, 0], group.tails()
    assert fingerprint(group.run_dir) == pair
    return found


@pytest.mark.fault(
    "B1", injected="SIGTERM to one of two workers", expected="both 143 in 10 s, one step saved; resumes bit for bit"
)
def test_sigterm_to_one_of_two_workers(losses, got):
    told = losses["SIGTERM"]
    assert told.codes == [143, 143], told.errors
    assert told.saved == told.reached < 40
    assert all(f"checkpoint of step {told.saved} is committed" in error for error in told.errors), told.errors
    assert max(told.seconds) < 10
    got(f"both 143 in {max(told.seconds):.1f} s at step {told.saved}; resumed, the same bits at step 40")


def check_killed(lost: Lost, index: int, got) -> None:
    assert (lost.codes[index], lost.codes[1 - index]) == (137, 138)
    assert f"peer worker:{index} was lost" in lost.errors[1 - index]
    assert lost.seconds[1 - index] <= 20
    assert lost.reached - lost.saved <= EVERY
    got(
        f"survivor 138 in {lost.seconds[1 - index]:.1f} s; resumed at {lost.saved} of {lost.reached} steps, the same bits"
        " at step 40"
    )


@pytest.mark.fault(
    "B4", injected="SIGKILL of worker 1", expected="survivor 138 in 20 s; loses at most one save interval"
)
def test_a_killed_worker(losses, got):
    check_killed(losses["worker"], 1, got)


@pytest.mark.fault(
    "B4", injected="SIGKILL of worker 1 in TensorFlow's barrier", expected="138 in cluster.start_timeout"
)
def test_a_worker_that_is_killed_in_the_barrier_of_tensorflow(tiny, group, got):
    """No Python runs there, so that the meeting's threads can't notice: the deadline of the start-up ends it."""
    first = group(tiny("cluster.start_timeout=15"), 2, faults={1: "start.join:kill"})
    assert first.codes(within=60, of=[1]) == [137], first.tails()
    assert first.codes(within=60, of=[0]) == [138], first.tails()
    assert "tfscale: error[E-0138] TensorFlow's workers did not find each other within 15 s" in first.text(0)
    seconds = first.seconds[0] - first.seconds[1]
    assert seconds < 20
    got(f"in TensorFlow's barrier: 138 after {seconds:.1f} s with cluster.start_timeout=15")


@pytest.mark.fault("B5", injected="SIGKILL of the chief", expected="survivor 138 in 20 s; loses at most one interval")
def test_a_killed_chief(losses, got):
    check_killed(losses["chief"], 0, got)


@pytest.mark.fault(
    "B6", injected="SIGSTOP of a worker", expected="survivor 138; after SIGCONT the stopped one ends 138, saves nothing"
)
@pytest.mark.parametrize("index", [1, 0], ids=["worker", "chief"])
def test_a_stopped_worker(tiny, group, got, index):
    first = group(tiny("cluster.silence=3"), 2, faults={0: SLOWLY})
    first.wait_step(15)
    first.signal(index, signal.SIGSTOP)
    assert first.codes(within=60, of=[1 - index]) == [138], first.tails()
    survivor, saved = first.seconds[0], steps_of(first.run_dir)
    assert f"peer worker:{index}" in first.error(1 - index), first.tails()
    assert survivor <= 20
    first.signal(index, signal.SIGCONT)
    assert first.codes(within=60, of=[index]) == [138], first.tails()
    woken = first.seconds[index]
    got(f"worker:{index} stopped: survivor 138 in {survivor:.1f} s, the stopped one 138 {woken:.1f} s after SIGCONT")
    assert woken <= 20
    assert steps_of(first.run_dir) == saved


# -- hung and failed


@pytest.mark.fault(
    "B7", injected="the input waits for a FIFO without a writer", expected="138 after run.hang_timeout, with stacks"
)
def test_an_input_that_stalls(tiny, group, tmp_path, got):
    gate = tmp_path / "gate"
    gate.touch()
    timeout = 8
    overrides = tiny(f"run.hang_timeout={timeout}", f"+data.gate={gate}", data="support.faulty_tables.Gated")
    first = group(overrides, faults={0: SLOWLY})
    first.wait_step(5)
    os.mkfifo(tmp_path / "fifo")
    os.replace(tmp_path / "fifo", gate)
    began = time.monotonic()
    assert first.codes(within=60) == [138], first.tails()
    seconds = time.monotonic() - began
    got(f"138 after {seconds:.1f} s with run.hang_timeout={timeout}")
    assert timeout - 1 <= seconds < timeout + 10
    assert last_step(first.run_dir) < 40
    assert "hang.txt" in first.error(0) and "run.hang_timeout" in first.error(0)
    stacks = (first.run_dir / "hang.txt").read_text()
    assert stacks.count("hread 0x") > 1 and "_run_loop" in stacks, stacks
    assert exit_code_in(first.run_dir) == 138


@pytest.mark.fault(
    "B8", injected="an exception in one worker", expected="it tells the cause (70); the peer 138, naming it"
)
@pytest.mark.parametrize("index", [1, 0], ids=["worker", "chief"])
def test_an_exception_in_one_worker(tiny, group, got, index):
    first = group(tiny(), 2, faults={index: "train.loop:step=15:raise"})
    codes = first.codes(within=90)
    got(f"worker:{index} fails: {codes}")
    assert codes[index] == 70 and codes[1 - index] == 138, first.tails()
    assert "RuntimeError: injected fault at train.loop" in first.error(index)
    assert f"peer worker:{index} failed: RuntimeError: injected fault at train.loop" in first.error(1 - index)
    assert exit_code_in(first.run_dir) == codes[0]


# -- diverged

RECORD = 125  # of the poisoned table: the seed puts it into the 17th step
B9 = pytest.mark.fault(
    "B9",
    injected="a record is NaN",
    expected="81 with step, records and norm; the last good checkpoint stays; roll back on request",
)


def poisoned(tiny, *more: str) -> list[str]:
    return tiny(f"+data.record={RECORD}", *more, steps=20, every=5, data="support.faulty_tables.Poisoned")


@B9
def test_a_record_that_is_no_number(tiny, group, got):
    first = group(poisoned(tiny), faults={0: SLOWLY})  # else saves are skipped while one is being written
    assert first.codes(within=90) == [81], first.tails()
    error, step = first.error(0), last_step(first.run_dir)
    report = json.loads((first.run_dir / "diverged.json").read_text())
    got(f"81 at step {step}, checkpoints {steps_of(first.run_dir)}")
    assert f"became nan at step {step}" in error and "gradients of norm nan" in error
    assert RECORD in report["examples"] and len(report["examples"]) == 10
    assert str(report["examples"][0]) in error
    assert step > 5 and report["step"] == step
    assert steps_of(first.run_dir)[-1] == report["checkpoint"] == step - step % 5
    assert exit_code_in(first.run_dir) == 81
    check_whole(first.run_dir)


@B9
def test_rolled_back_it_goes_on_without_that_batch(tiny, group, got):
    first = group(poisoned(tiny, "train.max_rollbacks=1"), faults={0: SLOWLY})
    assert first.codes(within=90) == [0], first.tails()
    rates = {row["step"]: row["learning_rate"] for row in training_rows(first.run_dir)}
    assert sorted(rates) == list(range(1, 21))
    step = json.loads((first.run_dir / "diverged.json").read_text())["step"]
    good = step - step % 5
    assert {n for n, rate in rates.items() if rate == pytest.approx(0.05)} == set(range(good + 1, 21))
    assert rates[good] == pytest.approx(0.1)
    assert f"back to step {good}, without that batch" in first.text(0)
    got(f"train.max_rollbacks=1: back to step {good}, complete at step 20 at half the learning rate")


# -- the same command again


@pytest.mark.fault("B11", injected="the same command after success", expected="0 at once, no new checkpoint")
def test_the_same_command_after_success(tiny, group, alone, alone_dir, tmp_path, got):
    run_dir = Path(shutil.copytree(alone_dir, tmp_path / "it"))
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    again = group(tiny(), program=LIGHT)
    assert again.codes(within=30) == [0], again.tails()
    got(f"0 in {again.seconds[0]:.1f} s, without TensorFlow")
    assert "already complete at step 40" in again.text(0)
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before
    assert fingerprint(run_dir) == alone


B12 = pytest.mark.fault(
    "B12", injected="the same crash three times; killed three times", expected="70 'no progress'; kills don't count"
)


@B12
def test_a_crash_at_the_same_step_again_and_again(tiny, group, got):
    overrides = tiny(every=20)
    for _ in range(3):
        failed = group(overrides, faults={0: "train.loop:step=15:raise"})
        assert failed.codes(within=90) == [70], failed.tails()
        assert "injected fault at train.loop" in failed.error(0)
    fourth = group(overrides, program=LIGHT)
    assert fourth.codes(within=30) == [70], fourth.tails()
    got(f"the fourth: 70 in {fourth.seconds[0]:.1f} s")
    assert "no progress in 3 attempts" in fourth.error(0) and "step 14" in fourth.error(0)
    assert exit_code_in(fourth.run_dir) == 70


@B12
@pytest.mark.parametrize(("action", "code"), [("kill", 137), ("term", 143)])
def test_kills_and_preemptions_are_no_reason_to_give_up(tiny, group, got, action, code):
    for _ in range(4):  # the fourth is not refused
        ended = group(tiny(), faults={0: f"start.meet:{action}"}, program=LIGHT)
        assert ended.codes(within=30) == [code], ended.tails()
    got(f"{code} four times")
