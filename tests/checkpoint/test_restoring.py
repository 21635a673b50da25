"""What comes back, what is refused, and what is used in the place of a damaged checkpoint."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from support.tiny_run import Classify

from tfscale.errors import CheckpointUnusable, SecurityRefused
from tfscale.files import digest_of
from tfscale.run_dir.experiment import Experiment


def rewrite(folder, change) -> None:
    """Changes a manifest as somebody would who knows about its checksum."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("digest")
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "digest": digest_of(manifest)}))


def test_restores_everything_also_dropout_seeds_and_memory(saved, state, filled):
    from tfscale.checkpoint import Checkpointer

    one = state(fill=4)
    one.memory = {"best": {"step": 2, "value": 0.5}, "stale": 1}
    saved.save(one, required=True)
    fresh, other = state(), Checkpointer(saved.directory)
    assert any("seed_generator" in name for name in fresh.variables())
    assert other.committed is None
    assert other.restore(fresh) == other.committed == 4
    assert filled(fresh) == {4.0}
    assert (fresh.step, fresh.memory) == (4, one.memory)


def test_no_checkpoints_is_none(state, tmp_path):
    from tfscale.checkpoint import Checkpointer

    assert Checkpointer(tmp_path / "none").restore(state()) is None


def test_the_list_of_folders_is_the_truth(saved, state):
    """TensorFlow's own text file beside them, garbage or pointing elsewhere, is not read."""
    (saved.directory / "checkpoint").write_text('model_checkpoint_path: "/etc/passwd"\n\x00garbage')
    (saved.directory / "step-abc").mkdir()
    (saved.directory / ".writing-000000009-1").mkdir()
    assert [entry.step for entry in saved.entries()] == [1, 2, 3]
    assert saved.restore(state()) == 3


# -- damage


def damage(folder, how) -> None:
    data = next(folder.glob("state.data*"))
    content = bytearray(data.read_bytes())
    manifest = folder / "manifest.json"
    if how == "flip":
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    elif how == "truncate":
        data.write_bytes(content[:-10])
    elif how == "no_index":
        (folder / "state.index").unlink()
    elif how == "empty_index":
        (folder / "state.index").write_bytes(b"")
    elif how == "no_manifest":
        manifest.unlink()
    elif how == "torn_manifest":
        manifest.write_text(manifest.read_text()[:100])
    elif how == "flipped_manifest":  # still JSON, but of another state
        manifest.write_text(manifest.read_text().replace('"float32"', '"float64"', 1))
    else:
        os.replace(folder, folder.with_name("aside"))
        os.replace(folder.with_name("step-000000001"), folder)  # of another step


DAMAGES = (
    *("flip", "truncate", "no_index", "empty_index"),
    *("no_manifest", "torn_manifest", "flipped_manifest", "another_step"),
)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_newest_falls_back_loudly(saved, state, filled, how, messages):
    newest = saved.entries()[-1].path
    damage(newest, how)
    fresh = state()
    assert saved.restore(fresh) == 2
    assert filled(fresh) == {2.0}
    assert str(newest) in messages.text


def test_all_damaged_never_starts_from_zero(saved, state):
    for entry in saved.entries():
        (entry.path / "state.index").unlink()
    with pytest.raises(CheckpointUnusable, match=r"step-000000003.*step-000000002.*step-000000001"):
        saved.restore(state())


def test_after_a_fall_back_the_good_ones_survive(saved, state, filled):
    """Damaged ones under their names would be kept as the newest, and the good ones pruned."""
    saved.keep = 2
    for entry in saved.entries()[1:]:
        (entry.path / "state.index").write_bytes(b"")
    one = state()
    assert saved.restore(one) == 1
    for variable in one.variables().values():
        variable.assign(np.full(variable.shape, 2))
    one.step = 2
    saved.save(one, required=True)
    assert [entry.step for entry in saved.entries()] == [1, 2]
    again = state()
    assert saved.restore(again) == 2
    assert filled(again) == {2.0}


def test_what_another_process_only_reads_is_left_as_it_is(saved, state):
    from tfscale.checkpoint import Checkpointer

    damage(saved.entries()[-1].path, "flip")
    assert Checkpointer(saved.directory, writes=False).restore(state()) == 2
    assert [entry.step for entry in saved.entries()] == [1, 2, 3]


def test_a_best_one_that_is_gone_is_replaced_by_the_last(saved, state, messages):
    one = state(fill=4)
    one.memory = {"best": {"step": 77}}
    saved.save(one, required=True)
    assert saved.restore_model(state(), "best").step == 4
    assert "step 77" in messages.text
    with pytest.raises(CheckpointUnusable, match="no checkpoint of step 77"):
        saved.restore_model(state(), 77)


# -- what leads elsewhere


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "sub/file", "..", "manifest.json"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(saved, state, name):
    rewrite(saved.entries()[-1].path, lambda m: m["files"].update({name: {"bytes": 1, "sha256": ""}}))
    with pytest.raises(SecurityRefused, match="outside its folder"):
        saved.restore(state())


@pytest.mark.parametrize("what", ["folder", "file", "all", "nowhere"])
def test_a_link_out_of_the_run_folder_is_refused(saved, state, what, tmp_path_factory):
    outside, newest = tmp_path_factory.mktemp("outside"), saved.entries()[-1].path
    link = {"folder": newest, "file": newest / "state.index", "all": saved.directory, "nowhere": newest}[what]
    os.replace(link, outside / "there")
    link.symlink_to(outside / ("there" if what != "nowhere" else "nothing"))
    for use in (saved.clean, lambda: saved.restore(state()), lambda: saved.read_model("last")):
        with pytest.raises(SecurityRefused, match="a run folder holds plain files only") as caught:
            use()
        assert caught.value.where == str(link)


def test_a_link_inside_the_run_folder_is_refused_too(saved, state):
    """What it leads to today may be another file tomorrow."""
    newest = saved.entries()[-1].path
    os.replace(newest / "state.index", saved.directory.parent / "index")
    (newest / "state.index").symlink_to(saved.directory.parent / "index")
    with pytest.raises(SecurityRefused, match="a run folder holds plain files only"):
        saved.clean()
    (newest / "state.index").unlink()
    (saved.directory / "step-000000007").symlink_to("step-000000003")
    with pytest.raises(SecurityRefused, match="step-000000007 is a link to step-000000003"):
        saved.restore(state())


def test_a_run_folder_that_is_a_link_itself(saved, state, tmp_path, tmp_path_factory):
    from tfscale.checkpoint import Checkpointer

    link = tmp_path_factory.mktemp("links") / "run"
    link.symlink_to(tmp_path)
    assert Checkpointer(link / "checkpoints").restore(state()) == 3


def test_a_pipe_in_the_place_of_a_file_does_not_hang(saved, state):
    index = saved.entries()[-1].path / "state.index"
    index.unlink()
    os.mkfifo(index)
    with pytest.raises(SecurityRefused, match="no plain file"):
        saved.restore(state())


# -- other models, experiments, versions


def test_another_model_is_refused_with_a_table_of_what_differs(saved, state, messages):
    with pytest.raises(
        CheckpointUnusable, match=r"hidden/kernel: checkpoint \[6, 8\] float32, model \[9, 8\]"
    ) as caught:
        saved.restore(state(Classify(width=9, dropout=0.5)))
    assert "3 variables differ" in caught.value.what and "\n" not in caught.value.line()  # it and Adam's two moments
    table = messages.text.splitlines()
    assert table[0] == "3 variables differ between the checkpoint and the model:"
    assert table[1].split() == ["variable", "checkpoint", "model"]
    assert sum("[6, 8] float32  [9, 8] float32" in line for line in table[2:]) == len(table) - 2 == 3


def test_variables_that_are_missing_or_new_are_told(saved, state, messages):
    with pytest.raises(CheckpointUnusable, match="1 variable differs"):
        saved.restore(state(Classify()))
    assert messages.text.split()[-3:] == ["[2]", "int64", "missing"]
    saved.save(state(Classify(), fill=9), required=True)
    with pytest.raises(CheckpointUnusable):
        saved.restore(state())
    assert messages.text.split()[-3:] == ["new", "[2]", "int64"]


def test_a_long_table_is_cut(saved, state, tf, messages):
    wide = state()
    wide.averages = {f"v{i:02d}": tf.Variable(0.0) for i in range(30)}
    with pytest.raises(CheckpointUnusable, match="30 variables differ"):
        saved.restore(wide)
    table = messages.text.splitlines()
    assert len(table) == 1 + 1 + 20 + 1
    assert table[-1] == "  and 10 more"


def test_layers_that_keras_numbers_afresh_still_match(tf, policy, tmp_path):
    import keras

    from tfscale.checkpoint import Checkpointer
    from tfscale.state.train_state import TrainState

    class Unnamed(Classify):
        def build_model(self):
            return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3), keras.layers.Dense(2)])

    one, two = (TrainState.create(Unnamed(), keras.optimizers.SGD(momentum=0.9)) for _ in range(2))
    assert list(one.variables()) != list(two.variables())
    one.step = 5
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(one, required=True)
    assert checkpointer.restore(two) == 5
    for a, b in zip(one.variables().values(), two.variables().values(), strict=True):
        assert (a.numpy() == b.numpy()).all()


def test_the_loss_scale_is_optional(tf, saved, state):
    scaled = state(fill=4)
    scaled.extra["loss_scale"] = tf.Variable(8.0)
    assert saved.restore(scaled) == 3
    assert float(scaled.extra["loss_scale"]) == 8.0  # not in the checkpoint: as it was
    scaled.step = 5
    saved.save(scaled, required=True)
    assert saved.restore(state()) == 5


def test_of_another_experiment(saved, state, messages):
    from tfscale.checkpoint import Checkpointer

    mine = {"optimizer": {"learning_rate": 0.1}}
    yours = {"optimizer": {"learning_rate": 0.3}}
    Checkpointer(saved.directory, experiment=Experiment(mine)).save(state(fill=4), required=True)
    assert Checkpointer(saved.directory, experiment=Experiment(mine)).restore(state()) == 4
    assert Checkpointer(saved.directory).restore(state()) == 4
    with pytest.raises(CheckpointUnusable, match=r"another experiment: optimizer\.learning_rate was 0\.1, is 0\.3"):
        Checkpointer(saved.directory, experiment=Experiment(yours)).restore(state())
    assert messages.text == ""
    allowed = Checkpointer(saved.directory, experiment=Experiment(yours, ("optimizer",)))
    assert [allowed.restore(state()) for _ in range(2)] == [4, 4]
    assert messages.text.count("learning_rate was 0.1, is 0.3") == 1


def test_every_manifest_tells_what_wrote_it(saved, state):
    import keras
    import tensorflow

    import tfscale

    told = json.loads((saved.entries()[-1].path / "manifest.json").read_text())
    versions = (tfscale.__version__, tensorflow.__version__, keras.__version__)
    assert (told["tfscale"], told["tensorflow"], told["keras"]) == versions
    assert not any("worker" in key or "replica" in key for key in told)


def test_a_newer_format_is_no_damage(saved, state):
    rewrite(saved.entries()[-1].path, lambda m: m.update(format=99, tfscale="9.9"))
    with pytest.raises(CheckpointUnusable, match=r"format 99.*use the version that wrote it, 9\.9"):
        saved.restore(state())
    assert [entry.step for entry in saved.entries()] == [1, 2, 3]
