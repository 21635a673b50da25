"""What `fit` leaves of an attempt: its lines in the book and exit.json."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from support.tiny_run import Classify, Vectors, fit_tiny

from tfscale.config.schema import OptimizerConfig, PlanConfig, RunConfig, RunSection, TrainConfig
from tfscale.errors import CheckpointUnusable, DataMissing, InternalError
from tfscale.run.api import fit
from tfscale.run_dir.folder import RunDir


@dataclasses.dataclass
class Absent(Vectors):
    """Data that are not there."""

    def check(self) -> None:
        raise DataMissing("no such file", where="data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tiny" / "it"


def told(folder: Path) -> dict:
    return json.loads((folder / "exit.json").read_text())


def refused(tmp_path: Path, *, environ=None, plan=None) -> None:
    config = RunConfig(
        task=Classify(),
        data=Absent(),
        tracker=None,
        train=TrainConfig(until="30st", global_batch=8),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.1, momentum=0.9),
        run=RunSection(root=str(tmp_path), recipe="tiny", name="it"),
        plan=plan or PlanConfig(),
    )
    with pytest.raises(DataMissing):
        fit(config, environ=environ or {})


def test_what_is_refused_before_the_folder_is_held_is_told_there(tmp_path, folder):
    refused(tmp_path)
    assert not folder.exists()
    folder.mkdir(parents=True)
    refused(tmp_path)
    assert (told(folder)["exit_code"], told(folder)["what"]) == (66, "no such file")
    assert [path.name for path in folder.iterdir()] == ["exit.json"]


def test_nobody_is_told_in_a_folder_that_another_run_holds(tmp_path, folder):
    folder.mkdir(parents=True)
    with RunDir(folder).claimed():
        refused(tmp_path)
    assert not (folder / "exit.json").exists()
    (folder / ".lock").write_text("{}")  # of another machine, perhaps: only waiting would tell
    refused(tmp_path)
    assert not (folder / "exit.json").exists()
    (folder / ".lock").unlink()
    refused(tmp_path)
    assert told(folder)["exit_code"] == 66


def test_only_the_chief_tells(tmp_path, folder):
    folder.mkdir(parents=True)
    for kind, index in (("worker", 1), ("evaluator", 0)):
        cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]} | ({"evaluator": ["127.0.0.1:3"]} if index == 0 else {})
        config = {"cluster": cluster, "task": {"type": kind, "index": index}}
        refused(tmp_path, environ={"TF_CONFIG": json.dumps(config)})
        assert not (folder / "exit.json").exists(), kind
    config["task"] = {"type": "worker", "index": 0}
    refused(tmp_path, environ={"TF_CONFIG": json.dumps(config)})
    assert told(folder)["exit_code"] == 66


def test_a_dry_run_tells_nobody(tmp_path, folder):
    folder.mkdir(parents=True)
    refused(tmp_path, plan=PlanConfig(dry_run=True))
    assert not (folder / "exit.json").exists()


def test_the_book_of_a_run(tf, tmp_path, folder):
    def lines() -> list[dict]:
        return [json.loads(line) for line in (folder / "attempts.jsonl").read_text().splitlines()]

    fit_tiny(tmp_path)
    first = lines()
    assert (first[0]["kind"], first[-1]["kind"], first[-1]["code"]) == ("start", "ended", 0)
    fit_tiny(tmp_path)  # already complete
    assert lines() == first
    with pytest.raises(CheckpointUnusable):
        fit_tiny(tmp_path, optimizer={"learning_rate": 0.2})
    assert lines() == first
    assert told(folder)["exit_code"] == 76
    fit_tiny(tmp_path, resume={"mode": "never"})
    assert {line["attempt"] for line in lines()} == {1}
    assert (folder / "previous-001" / "attempts.jsonl").exists()


def test_a_run_that_fails_again_and_again_ends(tf, tmp_path, folder):
    class Typo(Classify):
        def loss(self, model, batch, *, training):
            raise RuntimeError("a bug of the user's")

    for _ in range(3):
        with pytest.raises(Exception, match="a bug of the user's"):
            fit_tiny(tmp_path, task=Typo())
    with pytest.raises(InternalError, match="no progress in 3 attempts.*a bug of the user's"):
        fit_tiny(tmp_path, task=Typo())
    assert "no progress" in told(folder)["what"]
    result, _, _ = fit_tiny(tmp_path)  # mended
    assert result.step == 30
