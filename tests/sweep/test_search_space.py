"""What varies in a sweep, as people write it, and what makes no sweep."""

from __future__ import annotations

import pytest

from tfscale.errors import UsageError
from tfscale.sweep.search_space import Dimension, SearchSpace
from tfscale.sweep.sweep_request import SweepRequest

RATE = "optimizer.learning_rate=tag(log,interval(0.01,1))"


def test_words_that_vary_and_those_that_do_not():
    space = SearchSpace.of(
        ["+recipe=resnet", "task.width=4,8", RATE, "task.depth=int(interval(8,32))", "train.until=2ep"]
    )
    assert space.fixed == ("+recipe=resnet", "train.until=2ep")
    width, rate, depth = space.dimensions
    assert width == Dimension("task.width", ("4", "8"))
    assert rate == Dimension("optimizer.learning_rate", low=0.01, high=1.0, log=True) and not rate.is_whole
    assert depth == Dimension("task.depth", low=8, high=32) and depth.is_whole
    values = {"task.width": "8", "optimizer.learning_rate": 0.1, "task.depth": 9}
    made = space.overrides(values)
    assert made == [*space.fixed, "task.width=8", "optimizer.learning_rate=0.1", "task.depth=9"]
    assert space.describe()["optimizer.learning_rate"] == "numbers from 0.01 to 1 by magnitude"


@pytest.mark.parametrize(
    ("word", "choices"),
    [
        ("a=choice(x,y)", ("x", "y")),
        ("+a=1,2", ("1", "2")),
        ("a=range(1,4)", ("1", "2", "3")),
        ("a=true,null", ("true", "null")),
        ("a='x y',z", ("'x y'", "z")),
        ("a=[1,2],[3]", ("[1,2]", "[3]")),
    ],
)
def test_choices_are_texts_of_overrides(word, choices):
    (one,) = SearchSpace.of([word]).dimensions
    assert one.choices == choices
    assert one.override(choices[0]) == f"{word.partition('=')[0]}={choices[0]}"


def test_corners_hold_every_choice_and_both_ends_once():
    corners = SearchSpace.of(["a=1,2,3", "b=interval(0.5,1.5)"]).corners()
    assert corners == [["a=1", "b=0.5"], ["a=2", "b=0.5"], ["a=3", "b=0.5"], ["a=1", "b=1.5"]]


def test_a_grid_is_every_combination():
    grid = SearchSpace.of(["a=1,2", "b=x,y"]).grid()
    assert grid == [{"a": a, "b": b} for a in "12" for b in "xy"]
    with pytest.raises(UsageError, match="no end where b may be anything"):
        SearchSpace.of(["a=1,2", "b=interval(0,1)"]).grid()
    with pytest.raises(UsageError, match="has 10100 trials"):
        SearchSpace.of(["a=range(0,101)", "b=range(0,100)"]).grid()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["+recipe=resnet"], "no override varies"),
        (["a=1,2", "+a=3,4"], "a is given twice"),
        (["a=1,2", "a=3"], "a is given twice"),
        (["a=1,1"], "one value twice"),
        (["a=interval(1,1)"], "no room between"),
        (["a=interval(2,1)"], "no room between"),
        (["a=tag(log,interval(0,1))"], "no magnitude"),
        (["a=tag(log,choice(1,2))"], "only an interval"),
        (["a=1,2", "b=interval(1,2"], r"interval\(...\) can't be read"),
        (["a=tag(cube,interval(1,2))"], "the tag 'cube'"),
        (["a=range(1,1000000000)"], "more than 10000 values"),
        (["a=range(5,5)"], "no value"),
    ],
)
def test_what_makes_no_sweep(words, said):
    with pytest.raises(UsageError, match=said):
        SearchSpace.of(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep.trails=3"], "did you mean 'trials'"),
        (["sweep.trials=0"], "no number from 1 on"),
        (["sweep.trials=many"], "no number"),
        (["sweep.sampler=tpx"], "did you mean 'tpe'"),
        (["sweep.sampler=grid", "sweep.trials=3"], "tried whole: 2 trials"),
        (["sweep.name=a/b"], "can't name a folder"),
        (["run.dir=here"], "its own run.dir"),
        (["sweep.parallel=999"], "can't be shared by 999"),
    ],
)
def test_words_of_the_sweep_itself(words, said):
    with pytest.raises(UsageError, match=said):
        SweepRequest.of(["a=1,2", *words]).shares()


def test_the_same_words_are_the_same_sweep_and_others_another():
    def folder(*words):
        return SweepRequest.of(["+recipe=resnet", *words]).folder

    assert folder("a=1,2") == folder("a=1,2", "sweep.trials=7", "sweep.parallel=1")
    assert len({folder("a=1,2"), folder("a=1,2,3"), folder("a=1,2", "b=1")}) == 3
    assert str(folder("a=1,2", "run.root=elsewhere", "sweep.name=it")) == "elsewhere/sweeps/it"


def test_trials_share_the_cores(monkeypatch):
    import tfscale.sweep.sweep_request as module

    one = SweepRequest.of(["a=1,2"]).shares()
    assert [(share.cores, share.environ) for share in one] == [(None, ())]
    from pathlib import Path

    from tfscale.hardware import Hardware

    golden = Path(__file__).parents[1] / "golden" / "hardware" / "h100x8.json"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(module, "probe", lambda: Hardware.load(golden))
    two = SweepRequest.of(["a=1,2", "sweep.parallel=2"]).shares()
    assert [share.environ for share in two] == [
        (("CUDA_VISIBLE_DEVICES", "0,1,2,3"),),
        (("CUDA_VISIBLE_DEVICES", "4,5,6,7"),),
    ]
