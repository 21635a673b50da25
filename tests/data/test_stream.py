"""Streams: examples of people's own functions for ever, each once for any workers, resumed by address or read again."""

from __future__ import annotations

import itertools

import pytest
from support.dense_models import environ
from support.fault_rows import result_of
from support.sightings import TRAIN, Sighted, endless, sighted_job, sightings

from tfscale.cluster import Cluster
from tfscale.composition.hydra_compose import compose
from tfscale.data.order import Portion, Shard
from tfscale.data.pipeline import build_dataset
from tfscale.data.stream import Stream
from tfscale.errors import SecurityRefused, UsageError
from tfscale.hardware import probe
from tfscale.plan.execution_plan import make_plan
from tfscale.plan.request import PlanRequest

WANTED = [number * 7 % TRAIN for number in range(200)]


def data_set():
    import tensorflow as tf

    return tf.data.Dataset.range(2**40).map(
        lambda n: {"key": tf.strings.join(["k", tf.strings.as_string(n * 7 % TRAIN)])}
    )


def start_behind(size=10, start=0, *more, **others):
    assert size == 10 and not more and not others
    return endless(start)


@pytest.mark.parametrize(
    "function",
    [
        "support.sightings.endless",
        "support.sightings.without_start",
        f"{__name__}.data_set",
        f"{__name__}.start_behind",
    ],
)
def test_each_worker_reads_its_own_from_any_step_on(tf, function):
    source, plan = Stream(function=function, epoch=TRAIN), make_plan(probe(), Cluster(), PlanRequest(6))
    source.check()
    for workers, first in ((1, 0), (2, 4), (3, 4)):
        parts = []
        for worker in range(workers):
            portion = Portion("train", Shard(6, worker, workers), True, start_step=first)
            parts.append(
                [b["number"].numpy().tolist() for b in build_dataset(source, Sighted(), portion, plan).take(3)]
            )
        read = [n for step in zip(*parts, strict=True) for n in itertools.chain(*step)]
        assert read == WANTED[6 * first : 6 * first + 18]


def job(function, *more):
    left = ("data=", "data.", "eval.every=")
    words = [word for word in sighted_job("data", "table", "it", steps=4) if not word.startswith(left)]
    return [*words, "data=stream", f"data.function=support.sightings.{function}", "data.epoch=12", *more]


def test_a_run_on_a_stream_resumes_by_address_and_says_when_it_ends(cli, tmp_path):
    assert cli(*job("endless"), environ=environ()).code == 0
    ended = cli(*job("endless", "train.until=5ep"), environ=environ())
    assert ended.code == 0 and "resuming at step 4 of 10" in ended.out + ended.err, ended.err
    told = [sorted(step.elements()) for step in sightings(tmp_path / "it")]
    assert told == [sorted(WANTED[i : i + 6]) for i in range(0, 60, 6)]
    assert result_of(tmp_path / "it")["data"]["seen"] == {"examples": 60}
    ended = cli(*job("short", "train.until=8st", "run.dir=other"), environ=environ())
    assert ended.code == 65 and "support.sightings.short ended at example 30" in ended.err, ended.err


def test_what_is_no_stream_is_refused(tf):
    with pytest.raises(UsageError, match="no epoch"):
        Stream(function="support.sightings.endless", epoch=0).check()
    with pytest.raises(UsageError, match="endles"):
        Stream(function="support.sightings.endles", epoch=5).check()
    with pytest.raises(UsageError, match="gives int"):
        Stream(function=f"{__name__}.numbers", epoch=5).stream("train", Shard(2), training=True, start_step=0)
    for function, why in (
        ("support.sightings.write_source", "takes folder, kind"),
        (f"{__name__}.first_alone", "takes first"),
        (f"{__name__}.first_alone_by_place", "takes start"),
        (f"{__name__}.of_more_axes", "gives x of 0 and then of 1 axes"),
        (f"{__name__}.of_other_types", "gives x as a text and as a number"),
        (f"{__name__}.ragged", "gives x as rows of several lengths"),
    ):
        with pytest.raises(UsageError, match=why):
            Stream(function=function, epoch=5).stream("train", Shard(2), training=True, start_step=0)
    later = Stream(function=f"{__name__}.later_fractions", epoch=5).stream(
        "train", Shard(2), training=True, start_step=0
    )
    read = later.as_numpy_iterator()
    assert [next(read)["y"] for _ in range(4)] == [0, 1.5, 2, 3.5]
    with pytest.raises(Exception, match="gives x of int64 first, and a fraction in example 5"):
        [next(read) for _ in range(2)]
    with pytest.raises(SecurityRefused, match="data.function"):
        compose(
            [word for word in job("endless") if "extensions" not in word]
            + ["task=keras", "task.model=keras.applications.X"]
        )


def numbers():
    return itertools.count()


def first_alone(first):
    return endless(first)


def first_alone_by_place(start, /):
    return endless(start)


def of_more_axes():
    return itertools.cycle([{"x": 1}, {"x": [1, 2]}])


def of_other_types():
    return itertools.cycle([{"x": "a"}, {"x": 1}])


def later_fractions(start):
    return ({"x": 1.5 if number == 5 else number, "y": number + number % 2 / 2} for number in itertools.count(start))


def ragged():
    return itertools.cycle([{"x": [[1], [2, 3]]}])
