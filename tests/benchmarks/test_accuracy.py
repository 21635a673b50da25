"""Seconds to an accuracy: who reached it, who didn't, and whether all learnt alike; one tiny training of both sides."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks import accuracy, outcomes
from benchmarks.accuracy_trial import FULL, QUICK, Curve
from benchmarks.asking import NotAsked
from benchmarks.side_by_side import ROOT

OURS, AGAIN, KERAS, LOOPS = accuracy.OURS, accuracy.AGAIN, accuracy.WRITTEN, accuracy.LOOPS


def curve(*accuracies, second=1.0, parameters=10):
    """Evaluated once in so many seconds."""
    points = tuple((second * (i + 1), one) for i, one in enumerate(accuracies))
    return Curve(points, parameters, "float32", "so")


def concluded(curves, *, quick=False):
    return accuracy.outcome("accuracy:digits", FULL, curves, seed=0, quick=quick)


def test_what_counts_is_the_first_evaluation_that_was_good_enough():
    good = curve(0.9, 0.98, 0.97, 0.99)
    assert (good.seconds_to(0.98), good.final, good.best) == (2.0, 0.99, 0.99)
    assert curve(0.9, 0.979).seconds_to(0.98) is None
    assert Curve.from_json(good.to_json()) == good
    found = concluded({
        OURS: [curve(0.9, 0.98, 0.985), curve(0.98, 0.98, 0.985)],
        AGAIN: [curve(0.9, 0.98, 0.985), curve(0.98, 0.98, 0.985)],
        KERAS: [curve(0.9, 0.98, 0.985, second=3.0), curve(0.9, 0.98, 0.985, second=3.0)],
    })  # fmt: skip
    assert found.values == {OURS: [2.0, 1.0], AGAIN: [2.0, 1.0], KERAS: [6.0, 6.0]}
    assert found.pairs == ((OURS, KERAS),)
    assert found.control is not None and found.control.holds
    assert not found.unequal
    assert found.facts[KERAS]["final"] == [0.985, 0.985]


def test_who_never_is_good_enough_has_no_seconds():
    good, bad = curve(0.9, 0.985), curve(0.9, 0.975)
    found = concluded({OURS: [good, good, bad], KERAS: [good, good, good], LOOPS: [bad, bad, bad]})
    assert found.values == {OURS: [2.0, 2.0], KERAS: [2.0, 2.0]}
    assert f"{LOOPS} never reached 0.98: at best 0.9750." in found.notes
    assert "Left out, since not all reached 0.98 in them: seeds 2." in found.notes
    assert found.pairs == ((OURS, KERAS),)
    with pytest.raises(NotAsked, match=r"no seed in which all reached 0\.98\. ours never reached"):
        concluded({OURS: [bad], KERAS: [good]})
    with pytest.raises(NotAsked, match="no seed in which all"):
        concluded({OURS: [bad, good], KERAS: [good, bad]})


def test_another_model_or_another_end_is_no_equal_work():
    good = curve(0.9, 0.99)
    assert concluded({OURS: [good], KERAS: [curve(0.98, 0.981)]}).unequal == ()
    (text,) = concluded({OURS: [good], KERAS: [curve(0.98, 0.9751)]}).unequal
    assert text.startswith(f"{KERAS}: ends at accuracies that are -0.0149 apart")
    assert not accuracy.unequal({OURS: [good], KERAS: [curve(0.5, 0.5)]}, quick=True)
    (text,) = concluded({OURS: [good], KERAS: [curve(0.98, 0.99, parameters=11)]}).unequal
    assert text == f"{KERAS}: 11 parameters, ours 10"


@pytest.mark.slow
def test_a_quick_training_of_both_sides_is_timed_and_says_that_any_accuracy_will_do(tmp_path, data_dir):
    file = tmp_path / "quick.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "accuracy", "--quick", "--json", str(file)],
        cwd=ROOT, env={**os.environ, "TFSCALE_DATA_DIR": str(data_dir)}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = outcomes.read(file).outcomes
    assert "any accuracy is taken for good" in found.notes[0]
    for name in (OURS, KERAS):
        points = found.facts[name]["points"][0]
        assert len(points) == QUICK.evaluations
        assert found.values[name] == [points[0][0]]
        assert 0 < points[0][0] < points[1][0] < 200
        assert all(0 <= accuracy <= 1 for _, accuracy in points)
    assert found.facts[OURS]["parameters"] == found.facts[KERAS]["parameters"] > 1000
