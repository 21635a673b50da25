"""Trials as Optuna keeps them: what is chosen, given up, broken off and best."""

from __future__ import annotations

import pytest

from tfscale.errors import DataCorrupt, UsageError
from tfscale.sweep.search_space import SearchSpace
from tfscale.sweep.trial_store import Choice, TrialStore

SPACE = SearchSpace.of(["x=interval(-1,1)", "kind=a,b"])


def opened(folder, space=SPACE, mode="max", about="it", **choice):
    return TrialStore.open(folder / "study.db", space, Choice(**choice), mode=mode, about=about)


def worth(values) -> float:
    return -((values["x"] - 0.5) ** 2) + (values["kind"] == "b")


def test_it_finds_what_is_best(tmp_path):
    store = opened(tmp_path)
    for number in range(30):
        trial = store.next()
        assert trial.number == number and -1 <= trial.values["x"] <= 1 and trial.values["kind"] in "ab"
        store.tell(trial, worth(trial.values))
    best = store.best()
    assert best.value == max(worth(one.values) for one in store.told()) > 0.9
    assert store.ended() == 30 and store.waiting() == 0


def test_less_may_be_better(tmp_path):
    store = opened(tmp_path, mode="min")
    for value in (3.0, 1.0, 2.0):
        store.tell(store.next(), value)
    assert store.best().number == 1


def test_a_trial_far_behind_is_given_up_after_four_others(tmp_path):
    store = opened(tmp_path)
    for value in (0.8, 0.9, 0.85, 0.95):
        trial = store.next()
        assert not store.report(trial, step=1000, value=value)
        store.tell(trial, value)
    good, bad = store.next(), store.next()
    assert not store.report(good, step=1000, value=0.9)
    assert store.report(bad, step=1000, value=0.1)
    store.give_up(bad)
    assert store.told()[bad.number].state == "pruned" and store.best().number == 3
    patient = opened(tmp_path, pruner="none")
    assert not patient.report(patient.next(), step=1000, value=0.1)


def test_what_was_broken_off_goes_on_under_its_number(tmp_path):
    store = opened(tmp_path)
    store.tell(store.next(), 0.5)
    first, second = store.next(), store.next()
    store.report(first, step=1000, value=0.7)
    again = opened(tmp_path)
    assert [one.state for one in again.told()] == ["complete", "broken off", "broken off"]
    assert (again.ended(), again.waiting()) == (1, 2)
    taken = [again.next(), again.next()]
    assert [(one.number, one.values) for one in taken] == [(1, first.values), (2, second.values)]
    fresh = again.next()
    assert fresh.number == 3 and fresh.values not in [first.values, second.values]
    third = opened(tmp_path)  # and again
    assert {third.next().number for _ in range(3)} == {1, 2, 3}
    assert [one.state for one in third.told()] == ["complete", "running", "running", "running"]


def test_a_failed_trial_counts_and_says_why(tmp_path):
    store = opened(tmp_path)
    store.tell(store.next(), None, why="78: out of memory")
    store.tell(store.next(), float("nan"))
    assert [(one.state, one.why) for one in store.told()] == [
        ("failed", "78: out of memory"),
        ("failed", "its value is nan"),
    ]
    assert store.ended() == 2 and store.best() is None


def test_a_grid_is_tried_whole_and_once(tmp_path):
    space = SearchSpace.of(["a=1,2", "b=x,y"])
    store = opened(tmp_path, space, sampler="grid")
    assert store.waiting() == 4
    tried = []
    for value in range(3):
        trial = store.next()
        tried.append(tuple(trial.values.values()))
        store.tell(trial, float(value))
    again = opened(tmp_path, space, sampler="grid")
    assert again.waiting() == 1
    tried.append(tuple(again.next().values.values()))
    assert sorted(tried) == [("1", "x"), ("1", "y"), ("2", "x"), ("2", "y")]


def test_a_sweep_that_goes_on_does_not_draw_as_it_began(tmp_path):
    drawn = []
    for _ in range(3):
        store = opened(tmp_path, sampler="random", seed=7)
        trial = store.next()
        drawn.append(trial.values["x"])
        store.tell(trial, 0.5)
    assert len(set(drawn)) == 3


def test_another_sweep_of_the_same_name_and_a_damaged_file_are_refused(tmp_path):
    opened(tmp_path)
    for other in ({"about": "another"}, {"space": SearchSpace.of(["x=interval(-1,2)"])}, {"mode": "min"}):
        with pytest.raises(UsageError, match="begun with other words"):
            opened(tmp_path, **other)
    (tmp_path / "study.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(DataCorrupt, match="can't be read"):
        opened(tmp_path)


def test_mean_and_deviation_over_seeds():
    from tfscale.sweep.trial_runs import over_seeds
    from tfscale.sweep.trial_store import Told

    def told(number, value, state="complete", **values):
        return Told(number, state, {key.replace("_", "."): one for key, one in values.items()}, value)

    trials = [told(i, value, train_seed=str(i)) for i, value in enumerate((0.9, 0.8, 1.0))]
    assert over_seeds(trials, "accuracy") == ["accuracy 0.9 ± 0.1 over 3 seeds (mean, deviation)"]
    two = [
        told(0, 0.5, train_seed="0", width="4"),
        told(1, 0.7, train_seed="0", width="8"),
        told(2, None, "failed", train_seed="1", width="8"),
    ]
    assert over_seeds(two, "loss") == [
        "width=4: loss 0.5 over 1 seeds (mean, deviation)",
        "width=8: loss 0.7 over 1 seeds (mean, deviation)",
    ]
    assert over_seeds([told(0, 0.5, width="4")], "loss") == []
