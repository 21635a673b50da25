"""Every example once per epoch: by names, over 1, 2, 3 or 16 files, by 1, 2 and 3 workers, before and after a resume."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from support.fault_rows import ProcessGroup, result_of
from support.sightings import FIELDS, TEST, TRAIN, Sighted, sighted_job, sightings, write_source

from tfscale.cluster import Cluster
from tfscale.data.order import Portion, Shard
from tfscale.data.pipeline import build_dataset
from tfscale.data.prepared import Prepared
from tfscale.data.seen import shown
from tfscale.hardware import probe
from tfscale.importer.dataset import import_data
from tfscale.importer.import_request import parse_request
from tfscale.plan.execution_plan import make_plan
from tfscale.plan.request import PlanRequest
from tfscale.text.rows import TextRows

BATCH, STEPS = 6, 25  # 25 steps of 6 are three whole epochs of 50, whose ends lie inside of steps
FILES = {"table": (1, 3, 16), "pictures": (1, 2), "text": (1, 3)}


@pytest.fixture(scope="module")
def data(tf, tmp_path_factory):
    """Data sets of every kind in so many files: table_16, pictures_2, text_1 ..."""
    base = tmp_path_factory.mktemp("sighted")
    for kind in FIELDS:
        source = write_source(base / kind, kind)
        more = ["data.kind=text"] if kind == "text" else ["data.label=label"] if kind == "table" else []
        for files in FILES[kind]:
            words = [str(source), f"name={kind}_{files}", f"dir={base / 'data'}", f"shards={files}", *more]
            import_data(parse_request(words))
    return base / "data"


def source_of(data, name):
    place = {"dir": str(data), "name": name}
    source = TextRows(**place, length=8) if name.startswith("text") else Prepared(**place)
    source.check()
    source.prepare()
    return source


def order(source, kind, workers, *, split="train", first=0, steps=STEPS):
    """The numbers of every step, worker after worker."""
    read, plan = [], make_plan(probe(), Cluster(), PlanRequest(BATCH))
    for worker in range(workers):
        portion = Portion(split, Shard(BATCH, worker, workers), split == "train", start_step=first)
        batches = build_dataset(source, Sighted(FIELDS[kind]), portion, plan).take(steps)
        read.append([b["number"].numpy()[b["weight"].numpy() > 0].tolist() for b in batches])
    return [list(itertools.chain(*parts)) for parts in zip(*read, strict=True)]


@pytest.mark.parametrize("kind", list(FIELDS))
def test_the_order_is_one_for_any_number_of_files_and_workers(tf, data, kind):
    one = order(source_of(data, f"{kind}_1"), kind, 1)
    numbers = list(itertools.chain(*one))
    epochs = [numbers[i : i + TRAIN] for i in range(0, STEPS * BATCH, TRAIN)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(TRAIN))] * 3
    assert epochs[0] != epochs[1] != sorted(epochs[1])
    for files, workers in zip(FILES[kind][1:], (3, 2), strict=False):
        source = source_of(data, f"{kind}_{files}")
        assert len(list((data / f"{kind}_{files}" / "1.0.0").glob(f"*-train.tfrecord-*-of-{files:05d}"))) == files
        assert order(source, kind, workers) == one
    assert order(source, kind, 2, first=10, steps=3) == one[10:13]
    seen = shown(source, Portion("train", Shard(BATCH), True), steps=20)
    assert (seen["examples"], seen["different"], seen["least_often"], seen["most_often"]) == (120, TRAIN, 2, 3)
    labels = Counter("ab"[number % 2] for number in itertools.chain(*one[:20]))
    assert seen.get("labels") == (None if kind == "text" else labels)
    assert 120 * 20 < seen["bytes"] < 120 * 300
    evaluated = order(source, kind, 2, split="test", steps=-1)
    assert sorted(itertools.chain(*evaluated)) == list(range(TRAIN, TRAIN + TEST))


# (data, workers that begin, what ends them in mid-epoch, workers that go on)
RESUMES = [
    ("table_16", 1, "kill", 2),
    ("pictures_2", 2, "end", 3),
    ("text_3", 2, "kill", 1),
]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_real_workers_see_every_example_once_also_after_a_resume_in_mid_epoch(data, tmp_path, tmp_path_factory):
    def train(name, workers, steps, **options):
        job, logs = sighted_job(data, name, name, steps=steps, global_batch=BATCH), tmp_path_factory.mktemp("logs")
        with ProcessGroup(job, workers, cwd=tmp_path, logs=logs, **options) as group:
            return group.codes(within=120), group.text(0)

    for name, before, how, after in RESUMES:
        if how == "kill":  # behind a checkpoint, which is written while training goes on, and a few steps more
            fault = "train.loop:step=13:sleep5,train.loop:step=13:kill"
            codes, text = train(name, before, STEPS, faults={before - 1: fault})
            assert codes[-1] == 137, text
        else:
            codes, text = train(name, before, 12)
            assert codes == [0] * before, text
        codes, text = train(name, after, STEPS)
        assert codes == [0] * after, text
        assert "resuming at step " in text
        seen = result_of(tmp_path / name)["data"]["seen"]  # in all, not by the last process alone
        assert (seen["examples"], seen["different"], seen["least_often"]) == (STEPS * BATCH, TRAIN, 3)
        assert "data seen" in text and "150 examples of 50, each 3 times" in text
        assert [sorted(step.elements()) for step in sightings(tmp_path / name)] == [
            sorted(step) for step in order(source_of(data, name), name.partition("_")[0], 1)
        ], name
