"""Keras files that are refused without TensorFlow."""

from __future__ import annotations

import json
import pickle
import zipfile

import h5py
import pytest

from tfscale.errors import DataCorrupt, DataMissing, SecurityRefused
from tfscale.keras_task.file import check_keras_file, policy_of

PLAIN = {"class_name": "Sequential", "config": {"dtype": "float32"}}
CODE = {"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__", "config": {"value": "4wEA"}}}}


@pytest.fixture
def archive(tmp_path):
    def write(*, name="m.keras", config=PLAIN, **members):
        with zipfile.ZipFile(tmp_path / name, "w") as out:
            out.writestr("config.json", json.dumps(config))
            for member, content in members.items():
                out.writestr(member, content)
        return tmp_path / name

    return write


@pytest.fixture
def hdf5(tmp_path):
    def write(config):
        with h5py.File(tmp_path / "m.h5", "w") as out:
            out.attrs["model_config"] = json.dumps(config)
            out["weights"] = list(range(1000))
        return tmp_path / "m.h5"

    return write


def test_whole_ones_pass(archive, hdf5):
    check_keras_file(archive())
    check_keras_file(hdf5(PLAIN))
    assert policy_of(archive(config={"config": {"dtype": "float64"}})) == "float64"


def test_python_code(archive, hdf5):
    for file in (archive(config=CODE), hdf5(CODE)):
        with pytest.raises(SecurityRefused, match="code of a Python function") as error:
            check_keras_file(file)
        assert error.value.where == str(file)


@pytest.mark.parametrize("name", ["../x", "/x", "assets/../../x", "..\\\\x"])
def test_names_that_lead_out_of_the_archive(archive, name):
    with pytest.raises(SecurityRefused, match="leads out"):
        check_keras_file(archive(**{name: "x"}))


def test_pickles(tmp_path):
    for protocol in (2, 3, 4, 5):
        (tmp_path / "m.keras").write_bytes(pickle.dumps({"a": 1}, protocol))
        with pytest.raises(SecurityRefused, match="pickled"):
            check_keras_file(tmp_path / "m.keras")


def test_more_than_the_memory(archive, hdf5, monkeypatch):
    small, stored = archive(assets="x" * 5000), hdf5(PLAIN)
    monkeypatch.setattr("tfscale.keras_task.file.memory_bytes", lambda: 4000)
    for file in (small, stored):
        with pytest.raises(SecurityRefused, match="4000 bytes of memory"):
            check_keras_file(file)
    squeezed = small.with_name("z.keras")
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("config.json", json.dumps(PLAIN))
        out.writestr("model.weights.h5", bytes(100_000))
    assert squeezed.stat().st_size < 4000
    with pytest.raises(SecurityRefused, match="unpacks to 100"):
        check_keras_file(squeezed)


def test_broken_ones(archive, hdf5, tmp_path):
    with pytest.raises(DataMissing):
        check_keras_file(tmp_path / "absent.keras")
    for file in (archive(), hdf5(PLAIN)):
        whole = file.read_bytes()
        for content in (whole[: len(whole) // 2], b"junk" * 99, b""):
            file.write_bytes(content)
            with pytest.raises(DataCorrupt, match="can't be read"):
                check_keras_file(file)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as out:
        out.writestr("other.json", "{}")
    with pytest.raises(DataCorrupt, match=r"config\.json"):
        check_keras_file(tmp_path / "m.keras")
