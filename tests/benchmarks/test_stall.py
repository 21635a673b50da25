"""What photos cost a training: what is told of it, and both sides in a small size."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from benchmarks import outcomes, stall
from benchmarks.asking import Asking, NotAsked
from benchmarks.side_by_side import ROOT, Measured


def test_without_photos_nothing_is_asked():
    with pytest.raises(NotAsked, match="--photos FILE"):
        stall.outcomes("photos", Asking())


def test_the_cost_is_told_by_the_clock_and_in_processor_seconds(tmp_path):
    seconds = {stall.OURS: 0.12, stall.OURS_MEMORY: 0.1, stall.KERAS: 0.3, stall.KERAS_MEMORY: 0.2}
    cpu = {stall.OURS: 2.0, stall.OURS_MEMORY: 1.5, stall.KERAS: 2.0, stall.KERAS_MEMORY: 1.4}
    facts = {name: {"parameters": 10} for name in seconds}
    arrays = [{name: np.array([value] * 3) for name, value in one.items()} for one in (seconds, cpu)]
    measured = Measured(stall.question("photos", tmp_path), *arrays, facts, 0)
    ours, keras = stall.costs(measured)
    assert ours.startswith("A step from photos takes 1.200 [1.200, 1.200] times that from memory (ours)")
    assert ours.endswith("CPU time 240 ms beside 150 ms, 2.81 ms for each photo.")
    assert "1.500 [1.500, 1.500] times that from memory (Keras)" in keras
    assert not stall.unequal(measured)
    facts[stall.KERAS] = {"parameters": 11}
    assert stall.unequal(measured) == ["keras from photos: 11 parameters, ours 10"]


def test_both_sides_train_from_photos_in_a_small_size(tmp_path):
    file = tmp_path / "quick.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "stall", "--quick", "--json", str(file)],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = outcomes.read(file).outcomes
    assert found.pairs == ((stall.OURS, stall.KERAS),)
    assert all(value > 0 for values in found.values.values() for value in values)
    ours, keras = (found.facts[name] for name in found.pairs[0])
    assert ours["parameters"] == keras["parameters"] > 1000
    assert ours["how"].endswith("from photos") and keras["how"].endswith("from photos")
