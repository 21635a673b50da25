"""Mixtures: each source's share in every block, its epochs whole, the same order for any workers, and what is refused."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from support.sightings import sighted_job, write_source

from tfscale.cluster import Cluster
from tfscale.composition.hydra_compose import compose
from tfscale.data.arrays import ArraySource
from tfscale.data.mixture import Mixture, shares_of
from tfscale.data.order import Portion, Shard
from tfscale.data.pipeline import build_dataset
from tfscale.data.seen import shown
from tfscale.errors import SecurityRefused, UsageError
from tfscale.hardware import probe
from tfscale.plan.execution_plan import make_plan
from tfscale.plan.request import PlanRequest
from tfscale.task import Task


@dataclass
class Numbers(ArraySource):
    """Numbers from `first` on, labelled 0 or 1."""

    first: int = 0
    count: int = 10
    extra: bool = False
    classes: int = 2
    width: int = 0

    def arrays(self, split):
        x = np.arange(self.first, self.first + (self.count if split == "train" else 3))
        more = {"extra": x} if self.extra else {}
        if self.width:
            more["row"] = np.zeros((len(x), self.width))
        return {"x": x.astype(np.float32), "label": x % self.classes, **more}

    def spec(self):
        return self.class_spec()


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ({"a": 0.7, "b": 0.3}, [7, 3]),
        ({"a": 2, "b": 1, "c": 1}, [2, 1, 1]),
        ({"a": 1}, [1]),
        ({"a": 0.999, "b": 1e-3}, [999, 1]),
    ],
)
def test_shares_are_the_weights_exactly_where_they_can_be(weights, shares):
    assert shares_of(weights) == shares


def test_weights_that_cannot_be_are_refused():
    for weight in (0, -1, float("nan"), float("inf"), True, "x"):
        with pytest.raises(UsageError, match="weight of b"):
            shares_of({"a": 1, "b": weight})
    with pytest.raises(UsageError, match="less than one example of 1000"):
        shares_of({"a": 1, "b": 1e-5})
    near = shares_of({"a": np.pi, "b": 1.0})
    assert near[0] / sum(near) == pytest.approx(np.pi / (1 + np.pi), abs=1e-5)


def mixed(**sources):
    weights = {"a": 0.6, "b": 0.3, "c": 0.1}
    source = Mixture(weights={name: weights[name] for name in sources}, sources=sources)
    source.check()
    source.prepare()
    return source


def read(source, steps, *, workers=1, first=0, batch=6, split="train"):
    """The numbers of every step."""
    plan = make_plan(probe(), Cluster(), PlanRequest(batch))
    parts = []
    for worker in range(workers):
        portion = Portion(split, Shard(batch, worker, workers), split == "train", seed=5, start_step=first)
        batches = build_dataset(source, Task(), portion, plan).take(steps)
        parts.append([b["x"].numpy()[b["weight"].numpy() > 0].astype(int).tolist() for b in batches])
    return [list(itertools.chain(*step)) for step in zip(*parts, strict=True)]


def test_shares_and_epochs_are_exact_and_any_step_is_reached_by_any_workers(tf):
    source = mixed(a=Numbers(0, 14), b=Numbers(first=100, count=9), c=Numbers(first=200, count=50))
    steps = read(source, 50)
    numbers = list(itertools.chain(*steps))
    blocks = [Counter(n // 100 for n in numbers[i : i + 10]) for i in range(0, 300, 10)]
    assert all(block == {0: 6, 1: 3, 2: 1} for block in blocks)
    times = Counter(numbers)
    assert [times[n] for n in range(14)].count(12) > 0 and {times[n] for n in range(14)} <= {12, 13, 14}
    assert {times[100 + n] for n in range(9)} == {10}  # 90 of them: ten whole epochs
    assert sorted(n for n in numbers if n >= 200) == sorted({n for n in numbers if n >= 200})  # less than one
    assert numbers[:60] != numbers[60:120]
    assert read(source, 12, workers=2, first=20) == steps[20:32] == read(source, 12, workers=3, first=20)
    about = shown(source, Portion("train", Shard(6), True, seed=5), steps=47)
    wanted = Counter(itertools.chain(*steps[:47]))
    assert about["parts"] == dict(
        zip("abc", (sum(wanted[n] for n in wanted if n // 100 == k) for k in range(3)), strict=True)
    )
    assert (about["examples"], about["different"]) == (282, len(wanted))
    assert about["labels"] == {str(k): sum(t for n, t in wanted.items() if n % 2 == k) for k in range(2)}
    tested = list(itertools.chain(*read(source, -1, split="test")))
    assert tested == [0, 1, 2, 100, 101, 102, 200, 201, 202]
    assert source.locate("train", 15) == "b: example 1 of the train split"
    assert source.identity()["shares"] == {"a": 6, "b": 3, "c": 1}


def test_sources_of_unlike_form_are_refused(tf):
    with pytest.raises(UsageError, match="a and b can't be mixed: extra is absent and int64"):
        mixed(a=Numbers(), b=Numbers(extra=True))
    with pytest.raises(UsageError, match="num_classes is 2 and 3"):
        mixed(a=Numbers(), b=Numbers(classes=3)).spec()
    with pytest.raises(UsageError, match="needs weights"):
        Mixture().check()
    with pytest.raises(UsageError, match="the source b has no weight"):
        Mixture(weights={"a": 1}, sources={"b": Numbers()}).check()


def test_sizes_must_be_alike_where_the_task_takes_examples_as_they_are(tf):
    source = mixed(a=Numbers(width=10), b=Numbers(width=12))
    with pytest.raises(UsageError, match=r"row is float64 of the shape \(10,\) and float64 of the shape \(12,\)"):
        read(source, 1)
    read(mixed(a=Numbers(width=10), b=Numbers(width=10)), 1)


@pytest.fixture
def tables(tmp_path):
    """Imported tables of 21 rows: one has other classes and a constant, one texts for numbers."""
    from tfscale.importer.dataset import import_data
    from tfscale.importer.import_request import parse_request

    for name, classes, places in (("day", "ba", "xy"), ("night", "cb", "x"), ("words", "ab", "xy")):
        sizes = ["few" if name == "words" and n % 2 else f"{n / 7:.3f}" for n in range(21)]
        rows = [f"{sizes[n]},{places[n % len(places)]},{classes[n % 3 % 2]}" for n in range(21)]
        (tmp_path / name).mkdir()
        for split, some in (("train", rows), ("test", rows[:3])):
            (tmp_path / name / f"{split}.csv").write_text("\n".join(["size,place,label", *some]) + "\n")
        import_data(
            parse_request([str(tmp_path / name), f"name={name}", f"dir={tmp_path / 'data'}", "data.label=label"])
        )
    return str(tmp_path / "data")


def test_tables_are_mixed_by_the_names_of_their_classes(tf, tables):
    from tfscale.labels import Labels

    source = Mixture(dir=tables, weights={"day": 3, "night": 1})
    source.check()
    source.prepare()
    assert source.class_names() == ("a", "b", "c") and source.spec()["num_classes"] == 3
    label = source.spec()["columns"]["label"]
    assert (label["classes"], label["counts"]) == (["a", "b", "c"], [10, 24, 7])  # of 42 rows as they are shown
    everything = tf.data.Dataset.from_tensors(tf.range(42, dtype=tf.int64))
    read = [source.parse(raw) for raw in source.read("train", everything, ram_bytes=10**6)]
    names = ["abc"[int(example["label"])] for example in read]
    assert names == ["abc"[i] for i in source.class_labels("train")]
    assert Counter(names[:21]) == {"b": 14, "a": 7} and Counter(names[21:]) == {"c": 14, "b": 7}
    assert "numbered by their names" in " ".join(source.remarks()) + source.labelling()
    with pytest.raises(UsageError, match="the data have 3 classes, and the model has 2 outputs"):
        source.settle([Labels("label", is_class=True, outputs=2)])
    with pytest.raises(UsageError, match="the column size is number and category"):
        Mixture(dir=tables, weights={"day": 1, "words": 1}).spec()
    assert source.identity() != Mixture(dir=tables, weights={"night": 1, "day": 3}).identity()


def test_sources_of_other_kinds_are_built_and_checked_as_data_are(tmp_path):
    def composed(words):
        job = [w for w in sighted_job(tmp_path, "table", "it", steps=10) if not w.startswith(("data=", "data."))]
        return compose([*job, "data=mixture", "data.weights={a: 1, b: 1}", f"data.sources={{a: {words}}}"])

    kind = "_target_: tfscale.data.numpy_files.NumpyFiles"
    source = composed(f"{{{kind}, path: x.npz}}").data.sources["a"]
    assert (type(source).__name__, source.path) == ("NumpyFiles", "x.npz")
    with pytest.raises(UsageError, match=r"data.sources.a.pth.*path"):
        composed(f"{{{kind}, pth: x.npz}}")
    with pytest.raises(UsageError, match=r"data.sources.a has no _target_"):
        composed("{path: x.npz}")
    with pytest.raises(UsageError, match=r"no value was given for data.sources.a.path"):
        composed(f"{{{kind}}}")
    with pytest.raises(SecurityRefused, match=r"os.system"):
        composed("{_target_: os.system, path: x.npz}")


def test_the_command_mixes_imported_data_and_resumes(tf, cli, tmp_path):
    from support.dense_models import environ

    from tfscale.importer.dataset import import_data
    from tfscale.importer.import_request import parse_request

    for name in ("day", "night"):
        source = write_source(tmp_path / name, "table")
        import_data(parse_request([str(source), f"name={name}", f"dir={tmp_path / 'data'}", "data.label=label"]))
    job = sighted_job(tmp_path / "data", "table", "it", steps=10)
    job = [word for word in job if not word.startswith(("data=", "data.name="))]
    job += ["data=mixture", "data.weights={day: 3, night: 1}"]
    assert cli(*job, environ=environ()).code == 0
    ended = cli(*job, "train.until=20st", environ=environ())
    assert ended.code == 0, ended.err
    assert "resuming at step 10 of 20" in ended.err + ended.out
    seen = json.loads((tmp_path / "it" / "result.json").read_text())["data"]["seen"]
    assert seen["parts"] == {"day": 90, "night": 30} and seen["examples"] == 120
    assert "day 90 (75.0%, 1.80 epochs); night 30 (25.0%, 0.60 epochs)" in ended.out
    refused = cli(*job, "data.weights.night=0", environ=environ())
    assert refused.code == 64 and "the weight of night is 0" in refused.err
    refused = cli(*job, "data.weights.dusk=1", environ=environ())
    assert refused.code in (64, 66) and "dusk" in refused.err
