"""Unsafe and wrong input from people and files: refused in one line, in seconds, with nothing run and nothing written.

Where TensorFlow isn't needed it must not be imported (LIGHT). Proof that nothing ran is a folder that the payload would
have made; each payload is shown to make it where it is let. Rows E6 to E8 are in test_e_tracking.py.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.dense_models import environ
from support.fault_rows import TRAIN, committed, tiny_job


@pytest.fixture
def refused(one_line):
    """Runs a command that must end at once in one line, and returns it: refused(77, *overrides, told="for the table")."""

    def run(code: int, *overrides: str, told: str = "", **more) -> str:
        line = one_line(code, overrides, tell=f"{told}: " if told else "", **more)
        assert len(line) < 1500
        return line

    return run


def without(*names: str, of: list[str]) -> list[str]:
    return [one for one in of if one.split("=")[0].lstrip("+") not in names]


@pytest.fixture
def marker(tmp_path) -> Path:
    return tmp_path / "ran"


# -- E1: code that a configuration names

E1 = pytest.mark.fault(
    "E1",
    injected="_target_ is os.system, builtins.eval, subprocess.check_output, an alias of one, os.getpid; nested, partial",
    expected="77 before anything is instantiated; only allowed prefixes pass",
)


@E1
@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "builtins.eval", "subprocess.check_output", "os.getpid"),
        *("logging.os.system", "pdb.Pdb._getval", "tfscaled.Evil", "support.faulty_tables.Gated"),
    ],
)
def test_a_target_outside_the_allowed_packages(refused, marker, target):
    overrides = [*tiny_job(task=target), "extensions.allow=[support.dense_models.]"]
    line = refused(77, *overrides, f"+task.command='mkdir {marker}'", told=target)
    assert f"_target_ '{target}' is outside the allowed packages" in line and "| task._target_ |" in line
    assert not marker.exists() and not list(marker.parent.iterdir())


NESTED = {
    "args": (["+task._args_=[{_target_: os.system, command: COMMAND}]"], "task._args_[0]._target_"),
    "partial": (["+task.inner={_partial_: true, _target_: os.system, command: COMMAND}"], "task.inner._target_"),
    "data": (["+data.inner=[[{_target_: os.system, command: COMMAND}]]"], "data.inner[0][0]._target_"),
    "tracker": (["+tracker.inner._target_=os.system", "+tracker.inner.command=COMMAND"], "tracker.inner._target_"),
    "interpolation": (["+task.inner._target_=${oc.env:TARGET}", "+task.inner.command=COMMAND"], "task.inner._target_"),
    "created": (["+task.inner='${oc.create:${oc.decode:${oc.env:NODE}}}'"], "task.inner._target_"),
}


@E1
@pytest.mark.parametrize("where", NESTED)
def test_a_target_below(refused, marker, where):
    overrides, key = NESTED[where]
    given = [part.replace("COMMAND", f"mkdir {marker}") for part in overrides]
    variables = {"TARGET": "os.system", "NODE": f"{{_target_: os.system, command: mkdir {marker}}}"}
    line = refused(77, *tiny_job(*given), told=where, more_environ=variables)
    assert f"| {key} |" in line
    assert not marker.exists()


@E1
def test_a_file_does_not_allow_itself(refused, marker, tmp_path):
    (tmp_path / "groups" / "recipe").mkdir(parents=True)
    (tmp_path / "groups" / "recipe" / "evil.yaml").write_text(
        "# @package _global_\nextensions:\n  allow: ['os.', 'support.dense_models.']\n"
        f"task:\n  _target_: os.system\n  command: mkdir {marker}\n"
    )
    job = without("task._target_", "task.dropout", "extensions.allow", of=tiny_job("+recipe=evil"))
    assert "extensions.allow" in refused(77, *job, "--config-dir", str(tmp_path / "groups"), told="a file")
    assert not marker.exists()


@E1
@pytest.mark.parametrize("target", ["tfscale.cli.os.system", "tfscale.cli.os", "tfscale.hardware.probe"])
def test_an_alias_below_an_allowed_prefix_is_not_called(refused, marker, target):
    job = without("task.dropout", of=tiny_job(f"+task.command='mkdir {marker}'", task=target))
    line = refused(64, *job, told=target)
    assert "can't be imported" in line or "is not a dataclass" in line
    assert not marker.exists()


# -- E2: names and places

E2 = pytest.mark.fault(
    "E2",
    injected="hydra.run.dir=OUTSIDE, run.name=../../x, names with NUL, newline or 5000 characters",
    expected="64 or 77, and nothing is made outside the root",
)


@E2
@pytest.mark.parametrize(
    ("code", "override"),
    [
        pytest.param(64, "hydra.run.dir=OUTSIDE", id="hydra"),
        pytest.param(64, "+hydra.searchpath=[file://OUTSIDE]", id="search path"),
        pytest.param(77, "run.name=../../x", id="parent"),
        pytest.param(77, "run.name=OUTSIDE", id="absolute"),
        pytest.param(77, "run.recipe=../../x", id="recipe"),
        pytest.param(64, "run.name='a\nb'", id="newline"),
        pytest.param(64, "run.dir='a\nb'", id="newline in run.dir"),
        pytest.param(64, f"run.name={'x' * 5000}", id="5000"),
        pytest.param(64, f"run.name={'x' * 256}", id="256"),
        pytest.param(64, f"run.root={'x' * 5000}", id="5000 in run.root"),
    ],
)
def test_a_name_that_leads_out_or_is_none(refused, tmp_path, tmp_path_factory, code, override):
    outside = tmp_path_factory.mktemp("outside")
    root = tmp_path / "a" / "b"
    job = without("run.dir", of=tiny_job(f"run.root={root}"))
    line = refused(code, *job, override.replace("OUTSIDE", str(outside / "x")), told=repr(override[:20]))
    assert override.split("=")[0].lstrip("+") in line
    assert not list(outside.iterdir()) and not list(tmp_path.iterdir())


@E2
def test_a_name_with_nul(refused, tmp_path):
    """No command line can hold one, but a file can."""
    recipe = tmp_path / "groups" / "recipe" / "nul.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text('# @package _global_\nrun:\n  name: "a\\0b"\n')
    job = without("run.dir", of=tiny_job("+recipe=nul", "run.root=root"))
    line = refused(64, *job, "--config-dir", str(tmp_path / "groups"), told="NUL")
    assert "| run.name |" in line
    assert not (tmp_path / "root").exists()


# -- E3: what people mistype

E3 = pytest.mark.fault(
    "E3",
    injected="optimzer.lr=1, values of a wrong type, ??? left, all in one command",
    expected="64 before TensorFlow, the nearest key, all problems in one report",
)


@E3
def test_all_that_is_wrong_is_in_one_report(refused, tmp_path):
    job = without("train.until", of=tiny_job())
    wrong = ("optimzer.lr=1", "train.seed=many", "task.dropout=half", "+data.train_exampels=9", "checkpoint.keep=two")
    line = refused(64, *job, *wrong, told="six problems")
    for part in (
        "unknown key 'optimzer.lr'; did you mean 'optimizer'?",
        "train.seed: ",
        "task.dropout: ",
        "data.train_exampels: ",
        "did you mean 'train_examples'?",
        "checkpoint.keep: ",
        "no value was given for train.until",
    ):
        assert part in line, part
    assert not list(tmp_path.iterdir())


@E3
def test_values_that_can_not_be(refused, tmp_path):
    line = refused(64, *tiny_job("train.until=soon", "optimizer.name=sdg", "task.dropout=half"), told="three values")
    assert all(part in line for part in ("train.until: ", "did you mean 'sgd'?", "task.dropout: "))
    assert not list(tmp_path.iterdir())


# -- E4: models from strangers

E4 = pytest.mark.fault(
    "E4",
    injected="a .keras or .h5 file with a Lambda, a module of Python, ../, cut short, larger than memory; safe_mode=false",
    expected="77 (unsafe) or 65 (broken); safe mode is never off",
)


def keras_job(model: Path | str, *more: str) -> list[str]:
    """Trains this model on the table of support.dense_models."""
    return ["task=keras", f"task.model={model}", *without("task._target_", "task.dropout", of=tiny_job(*more))]


@pytest.fixture(scope="module")
def models(tf, tmp_path_factory) -> Path:
    """plain and code, as .keras and as .h5: code is a Lambda that makes the folder `ran` beside the files."""
    import keras
    from keras import layers

    folder = tmp_path_factory.mktemp("models")
    inputs = keras.Input((6,), name="x")
    payload = layers.Lambda(eval(f"lambda x: (__import__('os').mkdir({str(folder / 'ran')!r}), x)[1]"))
    plain, code = (
        keras.Model(inputs, layers.Dense(2)(x)) for x in (layers.Dense(3)(inputs), payload(layers.Dense(3)(inputs)))
    )
    for model, name in ((plain, "plain"), (code, "code")):
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
    (folder / "ran").rmdir()
    for name in ("code.keras", "code.h5"):  # the payload works
        keras.saving.load_model(folder / name, safe_mode=False)
        (folder / "ran").rmdir()
    return folder


@pytest.fixture
def altered(models, tmp_path):
    """altered(config=change, **members) -> plain.keras with another config.json and further members."""

    def alter(change=lambda config: None, **members: str) -> Path:
        with zipfile.ZipFile(models / "plain.keras") as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(parts["config.json"])
        change(config)
        with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
            for name, content in {**parts, "config.json": json.dumps(config).encode(), **members}.items():
                archive.writestr(name, content)
        return tmp_path / "m.keras"

    return alter


@E4
@pytest.mark.parametrize("name", ["code.keras", "code.h5"])
def test_a_lambda(refused, models, name):
    assert f"| {models / name} |" in refused(77, *keras_job(models / name), told=name)
    assert f"| {models / name} |" in refused(77, *tiny_job(f"init_from={models / name}"), told=f"init_from={name}")
    assert not (models / "ran").exists()


@E4
def test_safe_mode_can_not_be_switched_off(refused, models):
    arguments = (f"+task.arguments.filepath={models / 'code.keras'}", "+task.arguments.safe_mode=false")
    line = refused(77, *keras_job("keras.saving.load_model", *arguments), told="safe_mode=false")
    assert "keras.saving.load_model" in line
    assert "did you mean" in refused(64, *keras_job(models / "code.keras", "task.safe_mode=false"))
    assert not (models / "ran").exists()


@E4
def test_a_module_in_the_configuration(refused, altered, marker):
    """Who may name which class is for Keras alone to know, so that this takes TensorFlow's start."""
    injected = {"module": "os", "class_name": "mkdir", "registered_name": None, "config": {"path": str(marker)}}
    file = altered(lambda config: config["config"]["layers"][1].update(injected))
    own = [word for word in keras_job(file) if not word.startswith("optimizer.")]  # the file is compiled
    assert f"| {file} |" in refused(77, *own, told="os.mkdir in config.json", program=TRAIN)
    assert not marker.exists()


@E4
def test_an_archive_that_leads_out(refused, altered, tmp_path):
    file = altered(**{"assets/../../../escaped": "x"})
    assert "escaped' leads out" in refused(77, *keras_job(file), told="../")
    assert not list(tmp_path.parent.rglob("escaped"))


@E4
@pytest.mark.parametrize("name", ["plain.keras", "plain.h5"])
def test_cut_short(refused, models, tmp_path, name):
    whole = (models / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert f"| {tmp_path / name} |" in refused(65, *keras_job(tmp_path / name), told=f"half of {name}")


@E4
def test_larger_than_the_memory(refused, models, tmp_path):
    from tfscale.hardware import memory_bytes

    shutil.copy(models / "plain.h5", tmp_path)
    os.truncate(tmp_path / "plain.h5", memory_bytes() + 2**30)  # a hole: it takes no room on the disk
    assert "bytes of memory" in refused(77, *keras_job(tmp_path / "plain.h5"), told="larger than memory")


# -- E5: pickles

E5 = pytest.mark.fault(
    "E5",
    injected="a pickle as .npy, in or as .npz, as init_from and as a checkpoint's data",
    expected="77 (the checkpoint: 76, as any that can't be read), and nothing is unpickled",
)


class Trap:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def payload(marker) -> bytes:
    dumped = pickle.dumps(Trap(marker))
    pickle.loads(dumped)  # it works
    marker.rmdir()
    return dumped


@E5
@pytest.mark.parametrize("kind", ["array", "member", "file"])
def test_a_pickle_as_data(refused, marker, payload, tmp_path, kind):
    file = tmp_path / "data.npz"
    if kind == "array":
        np.save(tmp_path / "data.npy", np.array([Trap(marker)], object))
        file = tmp_path / "data.npy"
    elif kind == "member":
        np.savez(file, x_train=np.array([Trap(marker)] * 50, object), y_train=np.zeros(50, int))
    else:
        file.write_bytes(payload)
    job = without("data._target_", of=tiny_job("data=numpy", f"data.path={file}"))
    line = refused(77, *job, told=kind)
    assert "pickled" in line and f"| {file} |" in line
    assert not marker.exists()


@E5
@pytest.mark.parametrize("name", ["model.keras", "model.pkl"])
def test_a_pickle_as_weights(refused, marker, payload, tmp_path, name):
    (tmp_path / name).write_bytes(payload)
    line = refused(77, *tiny_job(f"init_from={tmp_path / name}"), told=f"init_from={name}")
    assert "pickled" in line and f"| {tmp_path / name} |" in line
    assert not marker.exists()


@E5
def test_a_pickle_as_a_checkpoint(cli, alone_dir, marker, payload, tmp_path, got):
    """Its manifest is right, so that only reading tells. That is never an unpickling, whoever wrote the file."""
    import hashlib

    from tfscale.files import digest_of

    shutil.copytree(alone_dir, tmp_path / "it")
    (tmp_path / "it" / "result.json").unlink()
    for checkpoint in committed(tmp_path / "it"):
        told = json.loads((checkpoint / "manifest.json").read_text())
        for name in told["files"]:
            (checkpoint / name).write_bytes(payload)
            told["files"][name] = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
        told.pop("digest")
        (checkpoint / "manifest.json").write_text(json.dumps({**told, "digest": digest_of(told)}))
    ended = cli(*tiny_job(), environ=environ(), deadline=60)
    got(f"a checkpoint: {ended.code}")
    assert ended.code == 76, ended.err
    assert not marker.exists()
