"""Which steps are done, and why others are not."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tfscale.workflow.done_steps import FILE, DoneSteps, identity_of
from tfscale.workflow.steps import Step

BOTH = {"seconds": 1.0, "line": "done"}


@pytest.fixture
def steps(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("1")
    first = Step("import", ("data", "import", "in"), reads=(f"{tmp_path}/in",), leaves=(f"{tmp_path}/out*",))
    return [first, Step("train", ("train", "+recipe=resnet"), needs=("import",))]


def done(folder, steps):
    (folder / "out").touch()
    kept = DoneSteps(folder, steps)
    for step in steps:
        kept.began(step)
        kept.ended(step, "done", **BOTH)
    return steps


def why(folder, steps):
    return [DoneSteps(folder, steps).why(step) for step in steps]


def test_a_step_is_done_once_it_ended_well_and_as_long_as_nothing_changes(tmp_path, steps):
    assert why(tmp_path, steps) == ["not done yet"] * 2
    kept = DoneSteps(tmp_path, steps)
    kept.began(steps[0])
    assert why(tmp_path, steps) == ["was broken off", "not done yet"]
    kept.ended(steps[0], "failed", code=66, **BOTH)
    assert why(tmp_path, steps)[0] == "ended with 66"
    kept.ended(steps[0], "refused", code=1, **BOTH)
    assert why(tmp_path, steps)[0] == "was refused"
    done(tmp_path, steps)
    assert why(tmp_path, steps) == ["", ""]


def test_another_word_or_file_does_it_anew_and_what_comes_after_it(tmp_path, steps):
    first, second = done(tmp_path, steps)
    other = dataclasses.replace(first, command=(*first.command, "seed=1"))
    assert why(tmp_path, [other, second]) == ["seed=1 is new", "import is another"]
    assert why(tmp_path, [dataclasses.replace(first, command=("data", "import")), second])[0] == "without in"
    longer = dataclasses.replace(second, command=("train", "+recipe=resnet", "train.until=2ep", "run.dir=x"))
    assert why(tmp_path, [first, longer]) == ["", "train.until=2ep is new, run.dir=x is new"]
    (tmp_path / "in" / "b.csv").touch()
    assert why(tmp_path, steps) == [f"{tmp_path}/in has changed", "import is another"]


def test_what_it_left_must_still_be_there(tmp_path, steps):
    done(tmp_path, steps)
    (tmp_path / "out").unlink()
    (tmp_path / "out2").touch()  # another file of the pattern doesn't stand for it
    assert why(tmp_path, steps) == [f"{tmp_path}/out is gone", ""]


def test_a_file_of_another_version_or_a_torn_one_is_as_none(tmp_path, steps):
    done(tmp_path, steps)
    found = json.loads((tmp_path / FILE).read_text())
    found["steps"]["train"]["unknown"] = 1
    (tmp_path / FILE).write_text(json.dumps(found))
    assert why(tmp_path, steps) == ["", "not done yet"]
    (tmp_path / FILE).write_text('{"steps": {"imp')
    assert why(tmp_path, steps) == ["not done yet"] * 2


def test_secrets_are_not_written_down(tmp_path, steps):
    secret = dataclasses.replace(steps[1], command=("train", "tracker.uri=http://me:hidden-word@host"))
    done(tmp_path, [steps[0], secret])
    assert "hidden-word" not in (tmp_path / FILE).read_text() and why(tmp_path, [steps[0], secret]) == ["", ""]


def test_the_identity_of_files_folders_patterns_and_what_is_not_there(tmp_path):
    (tmp_path / "a").mkdir()
    places = [str(tmp_path / "a"), str(tmp_path / "a" / "*.csv"), str(tmp_path / "a" / "x.csv")]
    before = [identity_of(place) for place in places]
    (tmp_path / "a" / "x.csv").write_text("1")
    after = [identity_of(place) for place in places]
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert after == [identity_of(place) for place in places]
    (tmp_path / "a" / "x.csv").write_text("12")
    assert all(one != identity_of(place) for one, place in zip(after, places, strict=True))
    assert identity_of("s3://b/x.csv") == "s3://b/x.csv"
