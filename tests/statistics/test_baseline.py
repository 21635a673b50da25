"""The baseline of a data set: kept when the same command imports other data, and what training refuses for it."""

from __future__ import annotations

import pytest

from tests.validation.test_validation import rows, written
from tfscale.__main__ import main

DATA = ["task=tabular", "data=prepared", "data.name=flights", "train.global_batch=64", 
         "eval.every=2st"]  # fmt: skip


@pytest.fixture
def told(tmp_path, capfd):
    """A function of the words of a command: (its exit code, all that it printed)."""

    def run(*words):
        code = main([*words, f"data.dir={tmp_path / 'data'}"])
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    return run


def importing(path):
    return ["data", "import", str(path), "name=flights", "data.label=late", "data.processes=1"]


def july():
    """Rows that are otherwise than those of `rows`."""
    return {**rows(1), "delay": rows(1)["delay"] + 60, "late": ["late", "cancelled"] * 1000}


def test_training_refuses_data_that_break_their_baseline_unless_told(tf, tmp_path, told):
    path = tmp_path / "flights.csv"
    dry = ["train", *DATA, f"run.dir={tmp_path / 'run'}", "train.until=4st", "plan.dry_run=true"]
    written(path, rows())
    assert told(*importing(path))[0] == 0 and told(*dry)[0] == 0
    written(path, july())
    code, said = told(*importing(path), "fresh=true")
    assert code == 0 and "training will refuse them" in said
    code, said = told(*dry)
    assert (
        code == 65 and "delay: drift" in said and "'on time' has no example" in said and "data.validate=false" in said
    )
    assert told(*dry, "data.validate=false")[0] == 0
    assert told(*dry, "data.validate=false", "data.baseline=flights")[0] == 64  # no effect
    code, said = told("data", "validate", "flights", "noise=none")
    assert code == 1 and "beside the" in said
    code, said = told("data", "validate", "flights", "noise=none", "accept=true")
    assert code == 0 and "the baseline is now" in said and told(*dry)[0] == 0

    code, said = told(*importing(path), "fresh=true", "data.exclude=[place]")
    assert code == 0 and "made anew" in said and told(*dry)[0] == 0
    code, said = told(*dry, "data.baseline=flihgts")
    assert code == 66 and "no baseline" in said
    broken = tmp_path / "data/flights/1.0.0/baseline.pbtxt"
    broken.write_text(broken.read_text() + "feature { nme: 3 }")
    code, said = told(*dry)
    assert code == 65 and "baseline.pbtxt" in said
    broken.unlink()  # data of versions before have none
    assert told(*dry)[0] == 0


@pytest.mark.slow
def test_a_run_keeps_what_it_was_trained_on_and_goes_on_with_nothing_else(tf, tmp_path, told):
    path, run = tmp_path / "flights.csv", tmp_path / "run"
    train = ["train", *DATA, f"run.dir={run}"]
    written(path, rows())
    assert told(*importing(path))[0] == 0 and told(*train, "train.until=2st")[0] == 0
    assert (run / "baseline.pbtxt").is_file()
    written(path, july())
    assert told(*importing(path), "fresh=true")[0] == 0
    train.append("train.until=4st")
    assert told(*train)[0] == 65
    code, said = told(*train, "data.validate=false")
    assert code == 76 and "has changed since the run began" in said

    other = ["train", *DATA, f"run.dir={tmp_path / 'other'}", "train.until=2st", f"init_from={run}"]
    assert told("data", "validate", "flights", "noise=none", "accept=true")[0] == 0
    code, said = told(*other, f"data.baseline={run}")  # what the weights were trained on
    assert code == 65 and "delay: drift" in said
    assert told("data", "validate", "flights", "noise=none", f"against={run}")[0] == 1
    assert told(*other)[0] == 0  # a warm start takes any data
