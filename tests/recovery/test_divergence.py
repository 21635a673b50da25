"""A loss that is no number: what is told, what is kept, and how training goes on without the batch."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

import numpy as np
import pytest
from support.tiny_run import Classify, Vectors, fit_tiny

from tfscale.data.stream import Stream
from tfscale.errors import DataCorrupt, Diverged

BATCH, SEED = 8, 0


@dataclass
class Poisoned(Vectors):
    """One record holds NaN."""

    bad: int = 0

    def arrays(self, split):
        x, y = super().arrays(split)
        if split == "train":
            x[self.bad] = np.nan
        return x, y


@pytest.fixture
def order(tf):
    """The training examples of each of the first six steps, one epoch without its remainder."""
    from tfscale.data.order import Shard, training_order

    steps = training_order(50, Shard(BATCH), seed=SEED).take(6)
    return [step["index"].numpy().tolist() for step in steps]


@pytest.fixture
def run(tf, tmp_path):
    def run(data, *, until="6st", every="1st", root=tmp_path, **train):
        return fit_tiny(
            root,
            task=Classify(activation="tanh"),  # on some processors TensorFlow's relu makes 0 of NaN
            data=data,
            train={"until": until, "log_every": "1st", **train},
            checkpoint={"every": every, "metric": "loss", "mode": "min"},
            eval={"every": "100st"},
        )

    return run


def losses(folder):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}


def test_the_batch_is_named_and_the_last_good_state_kept(run, order, tmp_path):
    with pytest.raises(Diverged, match="the loss became nan at step 3") as caught:
        run(Poisoned(bad=order[3][5]), every="2st")
    error, folder = caught.value, tmp_path / "tiny" / "it"
    assert "the batch itself is bad" in error.what and "at the weights of step 2" in error.what
    assert f"training examples {', '.join(map(str, order[3]))}" in error.where
    assert "train.max_rollbacks=1" in error.fix
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000000002"]
    told = json.loads((folder / "diverged.json").read_text())
    assert (told["step"], told["checkpoint"], told["examples"]) == (3, 2, order[3])
    assert (told["loss"], told["gradient_norm"]) == ("nan", "nan")


def test_a_sound_batch_is_told_from_a_bad_one(tf, run, tmp_path):
    with pytest.raises(Diverged) as caught:
        fit_tiny(
            tmp_path,
            train={"until": "6st", "log_every": "1st"},
            optimizer={"learning_rate": 1e12},
            checkpoint={"every": "1st", "keep": 9},
            task=Classify(l2=1e3),
        )
    assert "the training diverged" in caught.value.what and "gradients of norm" in caught.value.what


def test_rolled_back_it_goes_on_without_that_batch_at_a_lower_rate(run, order):
    result, _, folder = run(Poisoned(bad=order[3][5]), every="2st", until="5st", max_rollbacks=1)
    assert (result.status, result.step) == ("complete", 5)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = {row["step"]: row["learning_rate"] for row in rows if row["kind"] == "train"}
    assert rates == {1: pytest.approx(0.1), 2: pytest.approx(0.1), **{step: pytest.approx(0.05) for step in (3, 4, 5)}}


def test_every_later_attempt_leaves_the_batch_out_as_well(run, order, tmp_path):
    bad = Poisoned(bad=order[3][5])
    run(bad, every="2st", until="4st", max_rollbacks=1)
    run(bad, every="2st", until="5st", max_rollbacks=1)
    run(bad, every="2st", until="5st", max_rollbacks=1, root=tmp_path / "whole")
    rows = [losses(path / "tiny" / "it") for path in (tmp_path, tmp_path / "whole")]
    assert rows[0] == rows[1]
    assert set(rows[0]) == {1, 2, 3, 4, 5}


def test_more_than_are_allowed_end_the_run(run, order):
    with pytest.raises(Diverged):
        run(Poisoned(bad=order[3][5]), until="16st", max_rollbacks=1)  # the record comes again in the next epoch


def test_without_a_checkpoint_there_is_no_way_back(run, order):
    with pytest.raises(Diverged, match="no checkpoint was written before it"):
        run(Poisoned(bad=order[3][5]), every="100st", max_rollbacks=1)


def stream(start):
    """Vectors for ever, of which the 27th holds NaN."""
    for number in itertools.count(start):
        yield {"x": np.full(6, np.nan if number == 27 else number % 3, np.float32), "label": number % 2}


def test_the_examples_of_a_stream_are_those_in_its_order(run, tmp_path):
    with pytest.raises(DataCorrupt, match="row 3 of the batch of step 3"):
        run(Stream(function=f"{__name__}.stream", epoch=50))
    told = json.loads((tmp_path / "tiny" / "it" / "diverged.json").read_text())
    assert (told["step"], told["epoch"], told["examples"]) == (3, 0, list(range(24, 32)))


@pytest.mark.parametrize(
    ("skipped", "steps"),
    [([], [0, 1, 2, 3, 4]), ([0], [1, 2, 3, 4, 5]), ([2], [0, 1, 3, 4, 5]), ([3, 2], [0, 1, 4, 5, 6])],
)
def test_steps_and_places_in_the_order(skipped, steps):
    from types import SimpleNamespace

    from tfscale.recovery.roll_back import Recovery

    recovery = Recovery(SimpleNamespace(state=SimpleNamespace(memory={"skipped": skipped})), watchdog=None)
    assert [recovery.data_steps(step)[0] for step in range(5)] == steps
    assert recovery.data_steps(0)[1:] == [s for s in sorted(skipped) if s > steps[0]]


@pytest.mark.parametrize("devices", [1, 2])
def test_a_pipeline_that_leaves_steps_out(tf, devices):
    import dataclasses

    from support.tiny_run import plan_for

    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset

    plan = dataclasses.replace(plan_for(BATCH), local_devices=devices)

    def build(**options):
        return build_dataset(Vectors(), Classify(), Portion("train", Shard(BATCH), training=True, **options), plan)

    def steps(count, **options):
        batches = [b["index"].numpy().tolist() for b in build(**options).take(count * devices)]
        return [sum(batches[i : i + devices], []) for i in range(0, len(batches), devices)]

    whole = steps(9)
    assert steps(6, start_step=1, skip=(2, 3, 6)) == [whole[i] for i in (1, 4, 5, 7, 8)] + steps(1, start_step=9)
    assert build(skip=(2,)).cardinality() == tf.data.INFINITE_CARDINALITY
    assert build(skip=(2,)).element_spec == build().element_spec
