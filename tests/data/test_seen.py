"""What a training has seen, counted from its address, beside a count of every example that the pipeline gave."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from tfscale.data import seen
from tfscale.data.arrays import ArraySource
from tfscale.data.order import Portion, Shard
from tfscale.data.pipeline import places
from tfscale.data.seen import held, shown, why_uncounted
from tfscale.run.what_it_saw import what_it_saw
from tfscale.run_dir.shown_data import figures, untracked

COUNT, BATCH = 23, 5


@dataclass
class Arrays(ArraySource):
    """Numbers of one byte and labels of 8."""

    whole_epochs = False
    bad: tuple[int, ...] = ()

    def arrays(self, split):
        return {"x": np.arange(COUNT, dtype=np.uint8), "label": np.arange(COUNT) % 3} if split == "train" else {}

    def bad_examples(self, split):
        return self.bad


@dataclass
class Whole(Arrays):
    whole_epochs = True


@pytest.mark.parametrize("kind", [Arrays, Whole])
def test_the_count_from_an_address_is_that_of_what_was_read(tf, kind, monkeypatch):
    monkeypatch.setattr(seen, "_AT_ONCE", 4)
    bad = (4, 17)
    source = kind(bad=bad)
    for steps, skip in ((3, ()), (12, (0, 7)), (23, ())):
        portion = Portion("train", Shard(BATCH), True, seed=3, skip=skip)
        wanted = Counter()
        for step, place in enumerate(places(source, Portion("train", Shard(BATCH), True, 3)).take(steps)):
            if step not in skip:
                wanted.update(place["index"].numpy()[place["weight"].numpy() > 0].tolist())
        about = shown(source, portion, steps=steps)
        assert about["examples"] == sum(wanted.values())
        assert (about["different"], about["repeats"]) == (len(wanted), sum(wanted.values()) - len(wanted))
        often = [wanted[i] for i in range(COUNT) if i not in bad]
        assert (about["most_often"], about["least_often"]) == (max(often), min(often))
        labels = Counter({str(label): 0 for label in range(3)})
        for index, times in wanted.items():
            labels[str(index % 3)] += times
        assert about["labels"] == dict(labels)
        assert about["bytes"] == 9 * sum(wanted.values())
    assert held(source, "train") == {
        "examples": COUNT - len(bad),
        "bad_records": len(bad),
        "bytes": 9 * (COUNT - len(bad)),
        "labels": dict(Counter(str(i % 3) for i in range(COUNT) if i not in bad)),
    }


def test_beyond_so_many_examples_only_their_number_is_counted(tf, monkeypatch):
    monkeypatch.setattr(seen, "COUNTED", 20)
    source = Arrays(bad=(4, 17))
    assert held(source, "train") == {"examples": COUNT - 2, "bad_records": 2}
    assert shown(source, Portion("train", Shard(BATCH), True, seed=3, skip=(1,)), steps=9) == {"examples": 8 * BATCH}
    assert "only how many there were" in why_uncounted(source, "train")


def test_few_labels_are_figures_and_many_are_told_by_the_result_alone():
    def told(classes):
        return {"seen": {"examples": 7, "labels": {str(i): i for i in range(classes)}}}

    assert figures(told(100))["seen/label/99"] == 99.0 and not untracked(told(100))
    assert figures(told(101)) == {"seen/examples": 7.0} and "101 classes" in untracked(told(101))


def test_a_count_that_fails_ends_nothing(messages):
    assert what_it_saw(SimpleNamespace(config=None, run_dir=None)) == {}
    assert "what the model saw of the data can't be counted: AttributeError" in messages.text
