from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests_tiny import Classify

from tfscale.errors import CheckpointUnusable, Diverged, IOFailure

POINTS = ("ckpt.before_write", "ckpt.before_manifest", "ckpt.before_commit", "ckpt.before_prune")


@pytest.fixture
def state(tf, policy):
    import keras

    from tfscale.state import TrainState

    def build(task=None, fill=None):
        policy("float32")
        state = TrainState.create(task or Classify(dropout=0.5), keras.optimizers.Adam())
        if fill is not None:
            for variable in state.variables().values():
                variable.assign(np.full(variable.shape, fill))
            state.step = int(fill)
        return state

    return build


@pytest.fixture
def saved(state, tmp_path):
    """Checkpoints of steps 1, 2 and 3, filled with their step."""
    from tfscale.checkpoint import Checkpointer

    checkpointer = Checkpointer(tmp_path / "checkpoints", keep=3)
    for step in (1, 2, 3):
        checkpointer.save(state(fill=step))
    return checkpointer


def filled(state) -> set[float]:
    return {float(x) for v in state.variables().values() for x in v.numpy().ravel()}


def test_restores_everything_also_dropout_seeds_and_memory(saved, state):
    from tfscale.checkpoint import Checkpointer

    one = state(fill=4)
    one.memory = {"best": {"step": 2, "value": 0.5}, "stale": 1}
    saved.save(one)
    fresh = state()
    assert any("seed_generator" in name for name in fresh.variables())
    assert Checkpointer(saved.directory).restore(fresh) == 4
    assert filled(fresh) == {4.0}
    assert (fresh.step, fresh.memory) == (4, one.memory)


def test_no_checkpoints_is_none(state, tmp_path):
    from tfscale.checkpoint import Checkpointer

    assert Checkpointer(tmp_path / "none").restore(state()) is None


def test_keeps_the_newest_and_the_best(saved, state):
    last = state(fill=4)
    last.memory = {"best": {"step": 1}}
    saved.keep = 2
    saved.save(last)
    assert [entry.step for entry in saved.entries()] == [1, 3, 4]


@pytest.mark.parametrize("damage", ["flip", "truncate", "no_index", "no_manifest", "torn_manifest", "empty_index"])
def test_a_damaged_newest_falls_back_loudly(saved, state, damage, capsys):
    newest = saved.entries()[-1].path
    data = next(newest.glob("state.data*"))
    content = bytearray(data.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    elif damage == "truncate":
        data.write_bytes(content[:-10])
    elif damage == "no_index":
        (newest / "state.index").unlink()
    elif damage == "empty_index":
        (newest / "state.index").write_bytes(b"")
    elif damage == "no_manifest":
        (newest / "manifest.json").unlink()
    else:
        (newest / "manifest.json").write_text("{")
    fresh = state()
    assert saved.restore(fresh) == 2
    assert filled(fresh) == {2.0}
    assert str(newest) in capsys.readouterr().err


def test_all_damaged_never_starts_from_zero(saved, state):
    for entry in saved.entries():
        (entry.path / "state.index").unlink()
    with pytest.raises(CheckpointUnusable, match=r"step-000000003.*step-000000002.*step-000000001"):
        saved.restore(state())


def test_a_manifest_that_points_elsewhere_is_damage(saved, state):
    manifest = saved.entries()[-1].path / "manifest.json"
    value = json.loads(manifest.read_text())
    value["files"]["../../../etc/passwd"] = {"bytes": 1, "sha256": ""}
    manifest.write_text(json.dumps(value))
    assert saved.restore(state()) == 2


def test_another_model_is_refused_with_the_variables_that_differ(saved, state):
    with pytest.raises(CheckpointUnusable, match=r"hidden/kernel: checkpoint \[6, 8\] float32, model \[9, 8\]"):
        saved.restore(state(Classify(width=9, dropout=0.5)))
    with pytest.raises(CheckpointUnusable, match="seed_generator"):
        saved.restore(state(Classify()))


def test_layers_that_keras_numbers_afresh_still_match(tf, policy, tmp_path):
    import keras

    from tfscale.checkpoint import Checkpointer
    from tfscale.state import TrainState

    class Unnamed(Classify):
        def build_model(self):
            return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3), keras.layers.Dense(2)])

    one, two = (TrainState.create(Unnamed(), keras.optimizers.SGD(momentum=0.9)) for _ in range(2))
    assert list(one.variables()) != list(two.variables())
    one.step = 5
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(one)
    assert checkpointer.restore(two) == 5
    for a, b in zip(one.variables().values(), two.variables().values(), strict=True):
        assert (a.numpy() == b.numpy()).all()


def test_after_a_fall_back_the_good_ones_survive(saved, state):
    """Damaged ones under their names would be kept as the newest, and the good ones pruned."""
    saved.keep = 2
    for entry in saved.entries()[1:]:
        (entry.path / "state.index").write_bytes(b"")
    one = state()
    assert saved.restore(one) == 1
    for variable in one.variables().values():
        variable.assign(tf_full(variable, 2))
    one.step = 2
    saved.save(one)
    assert [entry.step for entry in saved.entries()] == [1, 2]
    again = state()
    assert saved.restore(again) == 2
    assert filled(again) == {2.0}


def tf_full(variable, value):
    return np.full(variable.shape, value)


def test_of_another_experiment(saved, state):
    from tfscale.checkpoint import Checkpointer

    Checkpointer(saved.directory, identity="mine").save(state(fill=4))
    assert Checkpointer(saved.directory, identity="mine").restore(state()) == 4
    with pytest.raises(CheckpointUnusable, match="another experiment"):
        Checkpointer(saved.directory, identity="yours").restore(state())


def test_a_ruined_state_is_not_saved(saved, state):
    ruined = state(fill=4)
    next(iter(ruined.variables().values())).assign(np.full((6, 8), np.nan))
    with pytest.raises(Diverged, match="hidden/kernel"):
        saved.save(ruined)
    assert [entry.step for entry in saved.entries()] == [1, 2, 3]
    assert not list(saved.directory.glob(".writing*"))


def test_the_loss_scale_is_optional(tf, saved, state):
    scaled = state(fill=4)
    scaled.extra["loss_scale"] = tf.Variable(8.0)
    assert saved.restore(scaled) == 3
    assert float(scaled.extra["loss_scale"]) == 8.0  # not in the checkpoint: as it was
    scaled.step = 5
    saved.save(scaled)
    assert saved.restore(state()) == 5


def test_a_full_disk_leaves_the_older_ones(saved, state, tmp_path):
    """A real small file system; needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=40k tmpfs {disk} 2>/dev/null"):
        pytest.skip("may not mount a tmpfs here")
    try:
        from tfscale.checkpoint import Checkpointer

        checkpointer = Checkpointer(disk, keep=9)
        with pytest.raises(IOFailure, match="could not be written"):
            for step in range(1, 20):
                checkpointer.save(state(fill=step))
        fresh = state()
        assert checkpointer.restore(fresh) == len(checkpointer.entries()) >= 1
        assert not list(disk.glob(".writing*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


KILLED = """
import sys; sys.path.insert(0, sys.argv[2])
import keras
from tests_tiny import Classify
from tfscale.state import TrainState
from tfscale.checkpoint import Checkpointer
state = TrainState.create(Classify(), keras.optimizers.SGD())
state.step = 1
Checkpointer(sys.argv[1]).save(state)
state.step = 2
Checkpointer(sys.argv[1], keep=1).save(state)
"""


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_phase_of_a_save_only_whole_ones_are_seen(tf, tmp_path, point):
    from tfscale.checkpoint import Checkpointer, _read_manifest

    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)],
        env={**os.environ, "TFSCALE_FAULT": f"{point}:step=2:kill"},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    checkpointer = Checkpointer(tmp_path)
    steps = [1, 2] if point == "ckpt.before_prune" else [1]
    assert [entry.step for entry in checkpointer.entries()] == steps
    for entry in checkpointer.entries():
        assert _read_manifest(entry.path)["step"] == entry.step
    checkpointer.clean()
    assert not list(tmp_path.glob(".writing*"))
