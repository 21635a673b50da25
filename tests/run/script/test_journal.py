"""What a script is known to have done: which fit is which when it is started again, and what becomes of what it left."""

from __future__ import annotations

import pytest

from tfscale.errors import OutputError, UsageError
from tfscale.run.script.journal import Journal
from tfscale.run_dir.folder import RunDir


def start(folder, fits, *, fresh=False, ended=False, program="train.py"):
    """One start of a script that comes to these fits, (place, digest); (folder, is known, has changed) of each."""
    with Journal(RunDir(folder), program).open(fresh=fresh) as journal:
        found = [journal.enter(place, digest, "model") for place, digest in fits]
        for one in found:
            one.folder.mkdir(exist_ok=True)
        journal.ended = ended
    assert [one.number for one in found] == list(range(1, len(fits) + 1))
    return [(one.folder.name, one.is_known, one.has_changed) for one in found]


def test_an_interrupted_start_is_gone_on_with(tmp_path):
    folds = [("a.py:3", "x"), ("a.py:5", "y"), ("a.py:5", "y"), ("a.py:5", "z")]
    assert [name for name, *_ in start(tmp_path, folds)] == ["01-model", "02-model", "03-model", "04-model"]
    again = start(tmp_path, [*folds, ("a.py:9", "x")])
    assert again[:4] == [(f"0{i}-model", True, False) for i in range(1, 5)]
    assert again[4] == ("05-model", False, False)


def test_what_is_not_reached_shifts_nothing_and_what_has_changed_is_told(tmp_path):
    start(tmp_path, [("a.py:3", "x"), ("a.py:5", "y"), ("a.py:5", "y")])
    assert start(tmp_path, [("a.py:5", "y"), ("a.py:5", "q")]) == [("02-model", True, False), ("04-model", False, True)]
    assert start(tmp_path, [("a.py:3", "x"), ("a.py:5", "y"), ("a.py:5", "y")])[1:] == [
        ("02-model", True, False),
        ("03-model", True, False),
    ]


def test_one_that_came_to_its_end_begins_anew_and_the_last_one_is_kept(tmp_path):
    start(tmp_path, [("a.py:3", "x"), ("a.py:5", "y")], ended=True)
    (tmp_path / "01-model" / "of_the_first").touch()
    (tmp_path / "theirs").mkdir()
    assert start(tmp_path, [("a.py:3", "x")], ended=True) == [("01-model", False, False)]
    previous = tmp_path / "previous"
    assert sorted(file.name for file in previous.iterdir()) == ["01-model", "02-model", "script.json"]
    assert (previous / "01-model" / "of_the_first").exists() and (tmp_path / "theirs").exists()
    assert start(tmp_path, [("a.py:3", "x")]) == [("01-model", False, False)]
    assert sorted(file.name for file in previous.iterdir()) == ["01-model", "script.json"]
    assert start(tmp_path, [("a.py:3", "x")], fresh=True) == [("01-model", False, False)]


def test_another_script_and_a_second_start_are_refused(tmp_path):
    start(tmp_path, [("a.py:3", "x")])
    with pytest.raises(UsageError, match="train.py, which was interrupted"):
        start(tmp_path, [], program="other.py")
    with Journal(RunDir(tmp_path), "train.py").open(fresh=False), pytest.raises(OutputError) as error:
        start(tmp_path, [])
    assert "another run holds" in str(error.value) and "--run-dir DIR" in error.value.fix


def test_a_record_that_leads_elsewhere_is_none(tmp_path):
    start(tmp_path, [("a.py:3", "x")])
    file = tmp_path / "script.json"
    file.write_text(file.read_text().replace("01-model", "../01-model"))
    assert start(tmp_path, [("a.py:3", "x")]) == [("02-model", False, False)]
