"""Saves that run beside training: what waits for what, what is skipped, what fails and when that is told."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from support import warm

from tfscale.errors import ClusterFault, Diverged, IOFailure


class Gate:
    """Holds a save up just before it is committed, as slow storage does."""

    def __init__(self):
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self) -> bool:
        self.reached.set()
        assert self.open.wait(30)
        return True


@pytest.fixture
def slow(tmp_path):
    """(a checkpointer whose saves wait at the gate, the gate)."""
    from tfscale.checkpoint import Checkpointer, SaveHooks

    gate = Gate()
    checkpointer = Checkpointer(tmp_path / "checkpoints", keep=9, hooks=SaveHooks(may_commit=gate))
    yield checkpointer, gate
    gate.open.set()
    checkpointer.wait()


def steps(checkpointer) -> list[int]:
    return [entry.step for entry in checkpointer.entries()]


def fill(state, value) -> None:
    for variable in state.variables().values():
        variable.assign(np.full(variable.shape, value))


def test_training_goes_on_while_the_state_of_the_step_is_written(slow, state, filled):
    checkpointer, gate = slow
    one = state(fill=1)
    one.memory = {"best": {"step": 1}, "deep": [1]}
    assert checkpointer.save(one)
    assert gate.reached.wait(30)
    assert steps(checkpointer) == [] and checkpointer.committed is None
    fill(one, 2)
    one.step = 2
    one.memory["best"]["step"], one.memory["new"] = 2, 1
    one.memory["deep"].append(2)
    gate.open.set()
    checkpointer.finish()
    assert steps(checkpointer) == [1] and checkpointer.committed == 1
    fresh = state()
    assert checkpointer.restore(fresh) == 1
    assert filled(fresh) == {1.0}
    assert fresh.memory == {"best": {"step": 1}, "deep": [1]}


def test_saves_never_overlap_and_none_is_queued(slow, state, messages):
    checkpointer, gate = slow
    assert checkpointer.save(state(fill=1))
    assert gate.reached.wait(30)
    assert not checkpointer.save(state(fill=2))
    assert not checkpointer.save(state(fill=3))
    assert checkpointer.save(state(fill=1))  # at work already
    assert checkpointer.skipped == 2
    gate.open.set()
    checkpointer.finish()
    assert checkpointer.save(state(fill=4))
    checkpointer.finish()
    assert steps(checkpointer) == [1, 4]
    assert messages.text.count("is skipped: that of step 1 is still being written") == 1


@pytest.mark.parametrize("how", ["required", "wait"])
def test_some_wait_for_their_turn(slow, state, how):
    checkpointer, gate = slow
    assert checkpointer.save(state(fill=1))
    assert gate.reached.wait(30)
    threading.Timer(0.3, gate.open.set).start()
    assert checkpointer.save(state(fill=2), **{how: True})
    assert 1 in steps(checkpointer)
    if how == "required":
        assert steps(checkpointer) == [1, 2] and checkpointer.committed == 2
    checkpointer.finish()
    assert steps(checkpointer) == [1, 2] and checkpointer.skipped == 0


def test_what_is_durable_is_not_written_again(saved, state):
    newest = saved.entries()[-1].path
    before = newest.stat().st_mtime_ns, (newest / "manifest.json").stat().st_ino
    assert saved.save(state(fill=3))
    assert saved.save(state(fill=3), required=True)
    saved.finish()
    assert (newest.stat().st_mtime_ns, (newest / "manifest.json").stat().st_ino) == before


def test_a_process_that_does_not_write_leaves_nothing(state, tmp_path):
    from tfscale.checkpoint import Checkpointer

    checkpointer = Checkpointer(tmp_path / "checkpoints", writes=False)
    assert checkpointer.save(state(fill=1)) and checkpointer.save(state(fill=2), required=True)
    checkpointer.finish()
    assert not checkpointer.directory.exists()


def test_only_variables_that_are_summed_on_reading_make_workers_talk(tf, state):
    from tfscale.checkpoint.bundle import is_collective

    assert not is_collective(state().variables().values())
    kinds = {"synchronization": tf.VariableSynchronization.ON_READ, "aggregation": tf.VariableAggregation.SUM}
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        assert is_collective([tf.Variable(1.0, **kinds)])


def test_keeps_the_newest_and_the_best(saved, state):
    last = state(fill=4)
    last.memory = {"best": {"step": 1}}
    saved.keep = 2
    saved.save(last, required=True)
    assert steps(saved) == [1, 3, 4]


def test_what_comes_too_soon_is_left_out_and_the_best_of_it_is_written_with_the_next(state, tmp_path):
    from tfscale.checkpoint import Checkpointer

    def at(step, best):
        found = state(fill=step)
        found.memory = {"best": {"step": best}}
        return found

    checkpointer = Checkpointer(tmp_path / "checkpoints", keep=1, apart=600)
    assert checkpointer.save(at(1, 1))
    assert not checkpointer.save(at(2, 2), wait=True), "a best one"
    assert not checkpointer.save(at(3, 3), wait=True), "a better one"
    assert not checkpointer.save(at(4, 3))
    checkpointer.wait()
    assert steps(checkpointer) == [1]
    checkpointer.save(at(5, 3), required=True)
    assert steps(checkpointer) == [3, 5]
    assert checkpointer.restore_step(3, found := state()) and (found.step, found.memory["best"]["step"]) == (3, 3)
    assert not checkpointer.save(at(6, 6), wait=True)
    checkpointer.save(at(7, 7), required=True)
    assert steps(checkpointer) == [7], "what was the best is no more"


def test_what_somebody_still_needs_is_kept(saved, state):
    saved.keep, saved.hooks = 1, dataclasses.replace(saved.hooks, held=lambda step: step == 2)
    saved.save(state(fill=4), required=True)
    assert steps(saved) == [2, 4]


def test_a_fall_back_is_not_removed_while_a_newer_one_lacks_a_file(saved, state):
    saved.keep = 2
    (saved.entries()[-1].path / "state.index").unlink()
    saved.save(state(fill=4), required=True)
    assert steps(saved) == [2, 3, 4]
    saved.save(state(fill=5), required=True)
    assert steps(saved) == [4, 5]


# -- failures


def test_a_ruined_state_is_not_saved(saved, state):
    ruined = state(fill=4)
    next(iter(ruined.variables().values())).assign(np.full((6, 8), np.nan))
    with pytest.raises(Diverged, match="hidden/kernel"):
        saved.save(ruined, required=True)
    assert saved.save(ruined)
    saved.wait()
    saved.check()  # training notices it by itself
    with pytest.raises(Diverged, match="hidden/kernel"):
        saved.save(state(fill=5))
    assert saved.save(ruined)
    with pytest.raises(Diverged):
        saved.finish()
    saved.finish()  # told once
    assert steps(saved) == [1, 2, 3] and saved.committed == 3
    assert not list(saved.directory.glob(".writing*"))


def test_a_process_that_was_replaced_commits_nothing(saved, state):
    saved.hooks = dataclasses.replace(saved.hooks, may_commit=lambda: False)
    saved.save(state(fill=4))
    saved.wait()
    with pytest.raises(ClusterFault, match="another process has taken the run over"):
        saved.check()
    with pytest.raises(ClusterFault):
        saved.save(state(fill=5), required=True)
    assert sorted(path.name for path in saved.directory.iterdir()) == [f"step-00000000{i}" for i in (1, 2, 3)]


def test_one_whose_folder_was_cleaned_by_another_says_so_too(saved, state):
    import shutil

    asked = []

    def taken() -> bool:
        if not asked:
            shutil.rmtree(next(saved.directory.glob(".writing*")))  # the other one starts
        asked.append(True)
        return len(asked) == 1

    saved.hooks = dataclasses.replace(saved.hooks, may_commit=taken)
    with pytest.raises(ClusterFault):
        saved.save(state(fill=4), required=True)


def test_a_copy_that_fails_is_a_save_that_fails(saved, state, messages):
    copied = []

    def copy(folder):
        copied.append(folder.name)
        if len(copied) < 3:
            raise IOFailure("the store can't be written: no answer")

    saved.hooks = dataclasses.replace(saved.hooks, copy=copy)
    saved.save(state(fill=4))
    saved.finish()
    assert "the checkpoint of step 4 could not be written (the store can't be written: no answer)" in messages.text
    assert steps(saved) == [1, 2, 3, 4] and saved.committed == 3
    saved.save(state(fill=4), required=True)  # tried again by itself
    assert copied == ["step-000000004"] * 3 and saved.committed == 4


@pytest.fixture
def disk(tmp_path):
    """A real small file system, and what fills it up."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill_up(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"), (disk / "filler").open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)


def test_a_full_disk_does_not_stop_training_at_once(disk, state, messages):
    from tfscale.checkpoint import Checkpointer

    checkpointer = Checkpointer(disk / "checkpoints", keep=2, max_failed_saves=3)
    checkpointer.save(state(fill=1), required=True)
    fill_up(disk)
    for step in (2, 3):
        checkpointer.save(state(fill=step))
        checkpointer.finish()
        assert f"the checkpoint of step {step} could not be written (" in messages.text
    (disk / "filler").unlink()
    checkpointer.save(state(fill=4))
    checkpointer.finish()
    assert steps(checkpointer) == [1, 4]
    fill_up(disk)
    for step in (5, 6):
        checkpointer.save(state(fill=step))
        checkpointer.finish()
    checkpointer.save(state(fill=7))
    checkpointer.wait()
    with pytest.raises(IOFailure, match=r"step 7 could not be written, nor the 2 before it: .*No space left"):
        checkpointer.check()
    assert steps(checkpointer) == [1, 4] and checkpointer.committed == 4
    assert not list(disk.glob("checkpoints/.*"))
    assert checkpointer.restore(state()) == 4


def test_a_required_save_on_a_full_disk_is_tried_again(disk, state):
    from tfscale.checkpoint import Checkpointer

    checkpointer = Checkpointer(disk / "checkpoints", max_failed_saves=99)
    fill_up(disk)
    threading.Timer(0.3, (disk / "filler").unlink).start()
    checkpointer.save(state(fill=1), required=True)
    assert steps(checkpointer) == [1]
    fill_up(disk)
    with pytest.raises(IOFailure, match=r"the checkpoint of step 2 could not be written: .*No space left"):
        checkpointer.save(state(fill=2), required=True)
    assert steps(checkpointer) == [1]


# -- the end of the process

ENDING = """
import sys; sys.path.insert(0, sys.argv[2])
import keras
from support.tiny_run import Classify
from tfscale.state.train_state import TrainState
from tfscale.checkpoint import Checkpointer
state = TrainState.create(Classify(), keras.optimizers.SGD())
state.step = 1
Checkpointer(sys.argv[1]).save(state)
print("ended", flush=True)
raise RuntimeError("a bug")
"""


def test_a_process_that_ends_ends_its_save_first(tf, tmp_path):
    from tfscale.checkpoint import Checkpointer

    done = warm.run(
        [sys.executable, "-c", ENDING, str(tmp_path), str(Path(__file__).parents[1])],
        env={**os.environ, "TFSCALE_FAULT": "ckpt.before_commit:step=1:sleep2"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (1, "ended\n"), done.stderr[-2000:]
    assert steps(Checkpointer(tmp_path)) == [1]
