"""Whether an export that is there saves making another one."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from support import warm

from tfscale.export.found_export import found_export


@pytest.fixture
def run(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "it")


def test_the_export_that_a_training_has_left_is_found_and_added_as_a_version_without_tensorflow(cli, run):
    program = ("-c", f"{warm.LIGHT}from tfscale.__main__ import main; sys.exit(main())")
    written = (run / "export" / "export.json").stat().st_mtime_ns
    ended = cli("export", f"run.dir={run}", f"versions={run}/served", program=program)
    assert (ended.code, ended.err) == (0, "")
    assert f"is there already: {run}/export" in ended.out and "served/1" in ended.out
    assert (run / "export" / "export.json").stat().st_mtime_ns == written
    assert (run / "served" / "1" / "saved_model.pb").is_file()


def _other_step(run):
    about = json.loads((run / "export" / "export.json").read_text())
    (run / "export" / "export.json").write_text(json.dumps({**about, "step": 3}))


def _damaged(run):
    (run / "export" / "saved_model" / "saved_model.pb").write_bytes(b"cut")


def _older(run):
    os.utime(run / "export" / "export.json", (1, 1))


def _another_best(run):
    (run / "evaluator.json").write_text("{}")


@pytest.mark.parametrize("change", [_other_step, _damaged, _older, _another_best])
def test_an_export_of_something_else_is_not_found(run, change):
    assert found_export(run, "best") == found_export(run, 6) == run / "export"
    assert found_export(run, 5) is None  # there is no such checkpoint: the command says so
    change(run)
    assert found_export(run, "best") is None
