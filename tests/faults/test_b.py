"""Faults of the processes that train: told to stop, killed, stopped, hung, failed; and the same command again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests_faults import LIGHT, Crew, exit_code_in, fingerprint, last_step, steps_of, tiny_job, training_rows

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


def resumed(crew, overrides, workers: int, expected, **options):
    """Runs the same command to its end; it must come to what was expected, bit for bit."""
    again = crew(overrides, workers, **options)
    assert again.codes(within=120) == [0] * workers, again.tails()
    assert fingerprint(again.run_dir) == expected
    found = re.search(r"resuming at step (\d+)", again.text(0))
    assert found, again.text(0)
    return int(found[1])


def check_whole(run_dir: Path) -> None:
    """Nothing half written is visible, and nothing was left behind."""
    names = [path.name for path in run_dir.glob("checkpoints/*")]
    assert all(name.startswith("step-") for name in names), names
    assert len(steps_of(run_dir)) == len(names)


# -- told to stop


@pytest.mark.fault(
    "B1", injected="SIGTERM to one of two workers", expected="both 143 in 10 s, one step saved; resumes bit for bit"
)
def test_sigterm_to_one_of_two_workers(tiny, crew, pair, got):
    first = crew(tiny(), 2, faults={0: SLOWLY})
    first.wait_step(15)
    first.signal(1, signal.SIGTERM)
    assert first.codes(within=60) == [143, 143], first.tails()
    step, seconds = steps_of(first.run_dir)[-1], max(first.seconds)
    told = [re.findall(r"checkpoint of step (\d+) is committed", first.error(index)) for index in (0, 1)]
    assert told == [[str(step)], [str(step)]], first.tails()
    assert step == last_step(first.run_dir) and step < 40
    assert exit_code_in(first.run_dir) == 143
    check_whole(first.run_dir)
    assert seconds < 10
    assert resumed(crew, tiny(), 2, pair) == step
    got(f"both 143 in {seconds:.1f} s at step {step}; resumed, the same bits at step 40")


@pytest.mark.fault("B2", injected="SIGTERM in mid-step, one process", expected="143, nothing lost; resumes bit for bit")
def test_sigterm_to_a_single_process(tiny, crew, alone, got):
    first = crew(tiny(), faults={0: SLOWLY})
    step = first.wait_step(15)
    first.signal(0, signal.SIGTERM)
    assert first.codes(within=60) == [143], first.tails()
    saved, seconds = steps_of(first.run_dir)[-1], first.seconds[0]
    assert step <= saved == last_step(first.run_dir) < 40
    assert f"the checkpoint of step {saved} is committed" in first.error(0)
    assert seconds < 10
    assert resumed(crew, tiny(), 1, alone) == saved
    got(f"143 in {seconds:.1f} s at step {saved}; resumed, the same bits at step 40")


B3 = pytest.mark.fault(
    "B3",
    injected="SIGTERM in evaluation, save, first trace and start-up barrier; twice",
    expected="143, no partial checkpoint; the second one ends at once",
)


@B3
def test_sigterm_where_no_step_is_made(tiny, crew, alone, got):
    """One run that is stopped in an evaluation, in a save and in the trace of its first step, then ends."""
    overrides, saved = tiny("eval.every=20st"), 0
    for where, least in (("eval.loop:step=1", 20), ("ckpt.before_commit:step=30", 30), ("train.trace", 30)):
        stopped = crew(overrides, faults={0: f"{SLOWLY},{where}:term"})
        assert stopped.codes(within=60) == [143], stopped.tails()
        if saved:
            assert f"resuming at step {saved} of 40" in stopped.text(0)
        check_whole(stopped.run_dir)
        saved = steps_of(stopped.run_dir)[-1]
        got(f"{where.partition(':')[0]}: 143, saved at step {saved}")
        assert least <= saved < 40
    assert resumed(crew, overrides, 1, alone) == saved


@B3
def test_sigterm_in_the_rendezvous(tiny, crew, got):
    first = crew(tiny(), 2, faults={0: "start.meet:term", 1: "start.meet:term"}, program=LIGHT)
    assert first.codes(within=30) == [143, 143], first.tails()
    got(f"before the rendezvous: 143 in {max(first.seconds):.1f} s from the start")
    assert exit_code_in(first.run_dir) == 143
    assert steps_of(first.run_dir) == []


@B3
def test_sigterm_before_the_barrier_of_tensorflow(tiny, crew, got):
    """The other worker has met this one and never starts TensorFlow, in whose barrier no Python would run."""
    first = crew(tiny("cluster.silence=120"), 2, programs={1: STOPS_AT_TENSORFLOW})
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
def test_a_second_sigterm_ends_at_once(tiny, crew, got):
    first = crew(tiny(), faults={0: "train.loop:step=15:sleep20"})
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
class Killed:
    codes: list[int]
    error: str  # the survivor's
    seconds: float  # to the survivor's end
    reached: int  # steps
    resumed: int  # the step that the next attempt went on from


@pytest.fixture(scope="module")
def kills(tmp_path_factory, pair) -> dict[int, Killed]:
    """By the worker that was killed: one job whose worker 1 is killed, later its chief, and which then ends."""
    folder, found, told = tmp_path_factory.mktemp("kills"), {}, []
    for index, step in ((1, 15), (0, 27), (None, 0)):
        faults = {0: SLOWLY} if index is not None else {}
        with Crew(tiny_job(), 2, cwd=folder, logs=folder / f"logs-{step}", faults=faults) as crew:
            if index is None:
                assert crew.codes(within=120) == [0, 0], crew.tails()
                assert fingerprint(crew.run_dir) == pair
            else:
                crew.wait_step(step)
                crew.signal(index, signal.SIGKILL)
                codes = crew.codes(within=60)
                ended = crew.error(1 - index), crew.seconds[1 - index], last_step(crew.run_dir)
                found[index] = Killed(codes, *ended, steps_of(crew.run_dir)[-1])
            told.append(crew.text(0))
    for index, text in zip((1, 0), told[1:], strict=True):
        assert f"resuming at step {found[index].resumed} of 40" in text, text
    return found


def check_killed(killed: Killed, index: int, got) -> None:
    assert (killed.codes[index], killed.codes[1 - index]) == (137, 138)
    assert f"peer worker:{index} was lost" in killed.error
    assert killed.seconds <= 20
    assert killed.reached - killed.resumed <= EVERY
    got(
        f"survivor 138 in {killed.seconds:.1f} s; resumed at {killed.resumed} of {killed.reached} steps, the same bits at"
        " step 40"
    )


@pytest.mark.fault(
    "B4", injected="SIGKILL of worker 1", expected="survivor 138 in 20 s; loses at most one save interval"
)
def test_a_killed_worker(kills, got):
    check_killed(kills[1], 1, got)


@pytest.mark.fault(
    "B4", injected="SIGKILL of worker 1 in TensorFlow's barrier", expected="138 in cluster.start_timeout"
)
def test_a_worker_that_is_killed_in_the_barrier_of_tensorflow(tiny, crew, got):
    """No Python runs there, so that the meeting's threads can't notice: the deadline of the start-up ends it."""
    first = crew(tiny("cluster.start_timeout=15"), 2, faults={1: "start.join:kill"})
    assert first.codes(within=60, of=[1]) == [137], first.tails()
    assert first.codes(within=60, of=[0]) == [138], first.tails()
    assert "tfscale: error[E-0138] TensorFlow's workers did not find each other within 15 s" in first.text(0)
    seconds = first.seconds[0] - first.seconds[1]
    assert seconds < 20
    got(f"in TensorFlow's barrier: 138 after {seconds:.1f} s with cluster.start_timeout=15")


@pytest.mark.fault("B5", injected="SIGKILL of the chief", expected="survivor 138 in 20 s; loses at most one interval")
def test_a_killed_chief(kills, got):
    check_killed(kills[0], 0, got)


@pytest.mark.fault(
    "B6", injected="SIGSTOP of a worker", expected="survivor 138; after SIGCONT the stopped one ends 138, saves nothing"
)
@pytest.mark.parametrize("index", [1, 0], ids=["worker", "chief"])
def test_a_stopped_worker(tiny, crew, got, index):
    first = crew(tiny("cluster.silence=3"), 2, faults={0: SLOWLY})
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
def test_an_input_that_stalls(tiny, crew, tmp_path, got):
    gate = tmp_path / "gate"
    gate.touch()
    timeout = 8
    overrides = tiny(f"run.hang_timeout={timeout}", f"+data.gate={gate}", data="tests_faulty.Gated")
    first = crew(overrides, faults={0: SLOWLY})
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
def test_an_exception_in_one_worker(tiny, crew, got, index):
    first = crew(tiny(), 2, faults={index: "train.loop:step=15:raise"})
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
    return tiny(f"+data.record={RECORD}", *more, steps=20, every=5, data="tests_faulty.Poisoned")


@B9
def test_a_record_that_is_no_number(tiny, crew, got):
    first = crew(poisoned(tiny), faults={0: SLOWLY})  # else saves are skipped while one is being written
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
def test_rolled_back_it_goes_on_without_that_batch(tiny, crew, got):
    first = crew(poisoned(tiny, "train.max_rollbacks=1"), faults={0: SLOWLY})
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
def test_the_same_command_after_success(tiny, crew, alone, alone_dir, got):
    before = {path: path.stat().st_mtime_ns for path in alone_dir.rglob("*")}
    again = crew(tiny(run_dir=alone_dir), program=LIGHT)
    assert again.codes(within=30) == [0], again.tails()
    got(f"0 in {again.seconds[0]:.1f} s, without TensorFlow")
    assert "already complete at step 40" in again.text(0)
    assert {path: path.stat().st_mtime_ns for path in alone_dir.rglob("*")} == before
    assert fingerprint(alone_dir) == alone


B12 = pytest.mark.fault(
    "B12", injected="the same crash three times; killed three times", expected="70 'no progress'; kills don't count"
)


@B12
def test_a_crash_at_the_same_step_again_and_again(tiny, crew, got):
    overrides = tiny(every=20)
    for _ in range(3):
        failed = crew(overrides, faults={0: "train.loop:step=15:raise"})
        assert failed.codes(within=90) == [70], failed.tails()
        assert "injected fault at train.loop" in failed.error(0)
    fourth = crew(overrides, program=LIGHT)
    assert fourth.codes(within=30) == [70], fourth.tails()
    got(f"the fourth: 70 in {fourth.seconds[0]:.1f} s")
    assert "no progress in 3 attempts" in fourth.error(0) and "step 14" in fourth.error(0)
    assert exit_code_in(fourth.run_dir) == 70


@B12
@pytest.mark.parametrize(("action", "code"), [("kill", 137), ("term", 143)])
def test_kills_and_preemptions_are_no_reason_to_give_up(tiny, crew, got, action, code):
    for _ in range(4):  # the fourth is not refused
        ended = crew(tiny(), faults={0: f"start.meet:{action}"}, program=LIGHT)
        assert ended.codes(within=30) == [code], ended.tails()
    got(f"{code} four times")
