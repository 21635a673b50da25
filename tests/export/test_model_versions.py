"""Numbered versions of exports."""

from __future__ import annotations

import json

import pytest

from tfscale.errors import DataMissing, IOFailure
from tfscale.export.model_versions import add_version, take_back
from tfscale.serving.model_place import ModelPlace


def export(folder, step):
    (folder / "saved_model" / "variables").mkdir(parents=True)
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    (folder / "saved_model" / "variables" / "variables.index").write_bytes(b"index")
    (folder / "export.json").write_text(json.dumps({"step": step}))
    return folder


def test_each_export_is_the_next_version_and_the_same_one_none(tmp_path):
    first, second = export(tmp_path / "a", 10), export(tmp_path / "b", 7)
    models = tmp_path / "models" / "digits"
    assert add_version(first, models) == add_version(first, models) == models / "1"
    (models / "9").mkdir()  # someone's own
    assert add_version(second, models) == models / "10"
    assert sorted(file.name for file in (models / "10").iterdir()) == ["export.json", "saved_model.pb", "variables"]
    newest = ModelPlace.of(models).versions()[0]
    assert (newest.number, newest.about) == (10, {"step": 7})
    assert not list(models.glob(".*"))


def test_what_was_taken_back_is_kept_and_its_number_is_not_used_again(tmp_path):
    models = tmp_path / "models"
    for step in (1, 2):
        add_version(export(tmp_path / f"e{step}", step), models)
    with pytest.raises(DataMissing, match="version 1 isn't the newest"):
        take_back(models, 1)
    assert take_back(models, 2) == 1 and (models / "2.taken-back" / "saved_model.pb").is_file()
    assert [one.number for one in ModelPlace.of(models).versions()] == [1]
    with pytest.raises(DataMissing, match="version 1 is the only one"):
        take_back(models, 1)
    assert add_version(tmp_path / "e2", models) == models / "3"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(IOFailure, match="can't be written"):
        add_version(export(tmp_path / "a", 1), tmp_path / "models")


def test_half_a_version_is_never_there(tmp_path):
    whole = export(tmp_path / "a", 1)
    (whole / "export.json").unlink()
    with pytest.raises(IOFailure, match="can't be written"):
        add_version(whole, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []
