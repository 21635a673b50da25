"""task=tabular: from the columns of a described table to a served model that takes raw rows."""

from __future__ import annotations

import csv
import datetime
import functools
import json
import math

import numpy as np
import pytest
from support.tables import import_table

from tfscale.errors import UsageError
from tfscale.tabular.columns import Limits, Table
from tfscale.tabular.tabular_task import TabularTask

TYPES = {
    "age": "number", "class": "number", "Is member? (é)": "boolean", "town": "category", "shop": "category", "9 since": "date",
    "note": "text", "row": "id", "country": "constant",
}  # fmt: skip
TOWNS = ["Ulm", "Köln", "Bonn", None, "Jena"]
LIMITS = Limits(bins=8, vocabulary=40, cross_buckets=50, text_buckets=60, text_length=5)
NAN = float("nan")


def rows(count: int, seed: int, label: str = "two") -> dict[str, list]:
    """Every type of column, with gaps; the label follows from age, town and note."""
    random = np.random.RandomState(seed)
    age, town = random.uniform(20, 60, count), random.randint(len(TOWNS), size=count)
    good = random.rand(count) < 0.5
    value = age / 10 + 2 * (town == 0) + 2 * good
    kinds = {
        "two": np.where(value > 5.5, "yes", "no"),
        "three": np.array(["a", "b", "c"])[np.digitize(value, [4.5, 6.5])],
        "number": 1000 + 100 * value,
        "several": np.array(
            [
                ";".join(n for n, has in zip("abc", row, strict=True) if has)
                for row in zip(good, value > 5.5, town == 0, strict=True)
            ]
        ),
    }
    days = [datetime.datetime(2019, 1, 1) + datetime.timedelta(hours=float(h)) for h in random.uniform(0, 3e4, count)]
    return {
        "age": [None if i % 7 == 3 else float(a) for i, a in enumerate(age)],
        "class": list(np.exp(random.normal(8, 2, count))),
        "Is member? (é)": [None if i % 5 == 1 else bool(i % 2) for i in range(count)],
        "town": [TOWNS[t] for t in town],
        "shop": [f"s{random.randint(100)}" for _ in range(count)],
        "9 since": [None if i % 9 == 0 else d.strftime("%Y-%m-%d" if i % 2 else "%Y-%m-%dT%H:%M:%SZ") for i, d in enumerate(days)],
        "note": [None if i % 6 == 5 else ("Good, really" if g else "Not so much") for i, g in enumerate(good)],
        "row": [f"r{i}" for i in range(count)],
        "country": ["de"] * count,
        "label": kinds[label].tolist(),
    }  # fmt: skip


def train(root, label: str = "two", *more: str):
    """Trains on such a table in this process: (the result, the table's folder, the run's)."""
    import tfscale

    splits, several = {"train": rows(400, 1, label), "test": rows(61, 2, label)}, "split(coalesce(label, ''), ';')"
    folder = import_table(root / "data", splits, TYPES, label=several if label == "several" else "label")
    config = tfscale.compose(
        [
            "task=tabular",
            "data=prepared",
            f"data.dir={root / 'data'}",
            "data.name=table",
            "tracker=none",
            f"run.dir={root / 'it'}",
            "train.global_batch=32",
            "train.until=4ep",
            "task.hidden=[16]",
            "task.vocabulary=40",
            "optimizer.name=adamw",
            "optimizer.learning_rate=0.02",
            "plan.precision=float32",
            "export.at_end=false",
            *more,
        ]
    )
    return tfscale.fit(config, environ={}), folder, root / "it"


def test_a_table_of_all_types_is_trained_and_served_by_raw_rows(tf, tmp_path):
    from tfscale.export.conversion import Conversion
    from tfscale.export.converted import export_converted
    from tfscale.tabular.wide_deep import DECISION
    from tfscale.trained.predictions import predict_file
    from tfscale.trained.restored_run import RestoredRun

    more = ("task.threshold=best_f1", "task.crosses=[[town,shop]]", "export.at_end=true", "task.class_weight=balanced")
    result, _, run_dir = train(tmp_path, "two", *more)
    assert result.metrics["auc"] > 0.8
    threshold = result.metrics["threshold"]
    assert 0 < threshold < 1 and threshold != 0.5
    with RestoredRun.open(run_dir, checkpoint="last", environ={}) as run:
        predict_file(run, "test", tmp_path / "said.jsonl")
        records = run.source.read("test", tf.data.Dataset.range(61).batch(61), ram_bytes=0).map(run.source.parse)
        order = [int(record["row"].numpy()[1:]) for record in records]
        for format in ("litert", "onnx"):  # each counts only once it has answered like the model
            export_converted(run, Conversion(format))
        (bias,) = run.state.model.get_layer(DECISION).bias.numpy()
        assert bias == pytest.approx(math.log((1 - threshold) / threshold), abs=1e-5)
        assert run.evaluate("test") == pytest.approx(
            {k: v for k, v in result.metrics.items() if k != "threshold"}, abs=1e-5
        )
        count = sum(int(np.prod(v.shape)) for v in run.state.model.trainable_variables)
        assert run.task.footprint().parameters == count
    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]

    served = tf.saved_model.load(str(run_dir / "export/saved_model")).signatures["serving_default"]
    raw = {name: [column[i] for i in order] for name, column in rows(61, 2).items()}
    numbers = ("age", "class", "Is member? (é)")
    used = [name for name in TYPES if name not in ("row", "country")]

    def ask(raw):
        given = {
            name: tf.constant([NAN if v is None else float(v) for v in raw[name]], tf.float32)
            if name in numbers
            else tf.constant([v or "" for v in raw[name]], tf.string)
            for name in used
        }
        renamed = {"class": "input_class", "9 since": "input_9_since", "Is member? (é)": "Is_member"}
        assert {renamed.get(name, name) for name in used} == set(served.structured_input_signature[1])
        return {
            name: value.numpy() for name, value in served(**{renamed.get(n, n): v for n, v in given.items()}).items()
        }

    answered = ask(raw)
    np.testing.assert_allclose(answered["probabilities"], [one["probabilities"] for one in said], atol=1e-5)
    assert answered["class"].tolist() == [one["class"] for one in said]
    assert answered["class"].tolist() == (answered["probabilities"][:, 1] > threshold).astype(int).tolist()
    # Raw rows in a file, as people have them
    from tfscale.predict import source_of

    raw_csv = tmp_path / "raw.csv"
    shown = [name for name in reversed(raw) if name not in ("row", "label")]
    with raw_csv.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerows([shown, *zip(*(raw[name] for name in shown), strict=True)])
    asked = functools.partial(source_of, str(raw_csv))
    with RestoredRun.open(run_dir, checkpoint="last", unlabelled=asked, environ={}) as run:
        assert run.source.remarks() == ["columns that the model doesn't take: country"]
        predict_file(run, "test", tmp_path / "raw.jsonl")
    told = [json.loads(line) for line in (tmp_path / "raw.jsonl").read_text().splitlines()]
    assert [one["name"] for one in told[:2]] == ["raw.csv: row 1", "raw.csv: row 2"]
    np.testing.assert_allclose(answered["probabilities"], [one["probabilities"] for one in told], atol=1e-5)
    # What training has never seen, and rows of gaps alone
    strange = ask({**raw, "town": ["Rom"] * 61, "9 since": ["soon"] * 61, "age": [1e9] * 61, "note": ["\n;"] * 61})
    empty = ask({name: [None] * 61 for name in used})
    assert ask({name: [] for name in used})["class"].shape == (0,)
    for found in (strange, empty):
        assert np.isfinite(found["probabilities"]).all()
    assert not np.allclose(strange["probabilities"], answered["probabilities"])
    assert (run_dir / "export/model.keras").is_file()


@pytest.mark.parametrize("label", ["three", "number"])
def test_other_labels(tf, tmp_path, label):
    result, _, _ = train(tmp_path, label, f"task.wide={label != 'three'}".lower(), "task.threshold=auto")
    if label == "three":
        assert result.metrics["accuracy"] > 0.6 and "auc" not in result.metrics
    else:
        deviation = float(np.std(rows(61, 2, label)["label"]))
        assert result.metrics["rmse"] < 0.6 * deviation and result.metrics["mae"] < result.metrics["rmse"]
        assert result.metrics["r2"] == pytest.approx(1 - (result.metrics["rmse"] / deviation) ** 2, abs=1e-3)


def test_several_labels_at_once(tf, tmp_path):
    from tfscale.tabular.wide_deep import DECISION
    from tfscale.trained.predictions import predict_file
    from tfscale.trained.restored_run import RestoredRun

    more = ("task.threshold=best_f1", "task.class_weight=balanced", "export.at_end=true")
    result, folder, run_dir = train(tmp_path, "several", *more)
    label = json.loads((folder / "columns.json").read_text())["label"]
    assert label["classes"] == ["a", "b", "c"] and label["rows"] == 400 and 150 < label["counts"][0] < 250
    limits = [result.metrics[f"threshold.{name}"] for name in "abc"]
    areas = [result.metrics[f"auc.{name}"] for name in "abc"]
    assert result.metrics["auc"] == pytest.approx(np.mean(areas)) and min(areas) > 0.7
    with RestoredRun.open(run_dir, checkpoint="last", environ={}) as run:
        predict_file(run, "test", tmp_path / "said.jsonl")
        predict_file(run, "test", tmp_path / "said.parquet")
        bias = run.state.model.get_layer(DECISION).bias.numpy()
    assert bias.tolist() == pytest.approx([math.log((1 - one) / one) for one in limits], abs=1e-5)
    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    told = sorted(";".join(one["label_names"]) for one in said)
    assert told == sorted(rows(61, 2, "several")["label"])
    for one in said:
        assert one["labels"] == [int(p > limit) for p, limit in zip(one["probabilities"], limits, strict=True)]
        assert one["labels_names"] == [name for name, has in zip("abc", one["labels"], strict=True) if has]
    served = tf.saved_model.load(str(run_dir / "export/saved_model")).signatures["serving_default"]
    assert {name: spec.shape.as_list() for name, spec in served.structured_outputs.items()} == {
        "labels": [None, 3], "probabilities": [None, 3],
    }  # fmt: skip


def test_rows_are_prepared_at_once_as_one_by_one(tf, tmp_path):
    from support.tiny_run import plan_for

    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset
    from tfscale.data.prepared import Prepared

    class OneByOne(TabularTask):
        preprocesses_rows = False

    import_table(tmp_path, {"train": rows(40, 1), "test": rows(21, 2)}, TYPES)
    source = Prepared(name="table", dir=str(tmp_path))
    assert source.parses_rows
    for portion in (Portion("train", Shard(16), training=True, seed=3), Portion("test", Shard(16), training=False)):
        found = []
        for task in (
            TabularTask(unknown=0.3, crosses=[["town", "shop"]]),
            OneByOne(unknown=0.3, crosses=[["town", "shop"]]),
        ):
            batches = build_dataset(source, task.for_data(source.spec()), portion, plan_for(16)).take(2)
            found.append([{name: value.numpy() for name, value in batch.items()} for batch in batches])
            assert all(spec.shape[0] == 16 for spec in batches.element_spec.values())
        for at_once, one_by_one in zip(*found, strict=True):
            assert at_once.keys() == one_by_one.keys() and {"ids", "words", "label", "weight"} < at_once.keys()
            for name, value in at_once.items():
                np.testing.assert_array_equal(value, one_by_one[name], name)


def column(kind: str, **more) -> dict:
    return {"type": kind, "missing": 0, **more}


COLUMNS = {
    "x": column("number", missing=2, mean=3.0, variance=4.0, quantiles=np.linspace(0, 10, 101).tolist()),
    "town": column("category", vocabulary=[["Ulm", 3], ["Bonn", 2]]),
    "many": column("category", vocabulary=[[f"v{i}", 1] for i in range(41)]),
    "day": column("date", min="2019-01-01", max="2021-05-05T10:00:00"),
    "note": column("text"),
    "row": column("id"),
}


def test_what_becomes_of_a_row(tf):
    from tfscale.tabular.features import Features

    table = Table.of(COLUMNS, crosses=[["town", "many"]], limits=LIMITS)
    assert table.left_out == {"row": "it names rows"} and table.sizes == (4, 41)
    features = tf.function(Features(table), autograph=False)

    def ask(x=1.0, town="Ulm", many="v1", day="2020-02-29T18:30:00Z", note="One TWO, two-three! four five six"):
        given = {"town": town, "many": many, "day": day, "note": note}
        return features({"x": tf.constant(x), **{name: tf.constant(text) for name, text in given.items()}})

    found = ask()
    assert found["numbers"].numpy().tolist() == [1.0]
    assert [int(ask(town=town)["ids"][0]) for town in ("Ulm", "Bonn", "Rom", "")] == [2, 3, 1, 0]
    places = [int(ask(many=f"v{i}")["ids"][1]) for i in range(80)]
    assert min(places) >= 1 and max(places) <= 40 and len(set(places)) > 20
    assert int(ask(many="")["ids"][1]) == 0
    crossed = [int(ask(town=a, many=b)["ids"][2]) for a in ("Ulm", "Bonn") for b in ("v1", "v2")]
    assert len(set(crossed)) > 2 and max(crossed) < 50
    words = found["words"].numpy()[0]
    assert words.shape == (5,) and words[1] == words[2] and (words > 0).all()
    assert ask(note="")["words"].numpy().tolist() == [[0] * 5]
    turns = [(1 + 28 / 31) / 12, 5 / 7, 18 / 24]  # a Saturday
    expected = [0.5, *(f(2 * math.pi * t) for t in turns for f in (math.sin, math.cos))]
    assert found["dates"].numpy()[0] == pytest.approx(expected, abs=1e-5)
    for text in ("", "soon", "29.2.2020", "2020-13-01", "2020-02-29T25:00"):
        assert np.isnan(ask(day=text)["dates"].numpy()).all()
    for days in range(0, 3000, 17):
        day = datetime.date(1999, 12, 27) + datetime.timedelta(days)
        turn = ask(day=day.isoformat())["dates"].numpy()[0, 3:5]
        assert turn == pytest.approx([f(2 * math.pi * day.weekday() / 7) for f in (math.sin, math.cos)], abs=1e-5)
    several = {
        "x": [1.0, 2.0],
        "town": ["Ulm", "Rom"],
        "many": ["v1", ""],
        "day": ["2020-02-29", ""],
        "note": ["One two", ""],
    }
    at_once = Features(table)({name: tf.constant(values) for name, values in several.items()})
    for i in range(2):
        for name, value in ask(**{name: values[i] for name, values in several.items()}).items():
            np.testing.assert_array_equal(at_once[name][i], value)
    # In training some are shown as unknown, by the seed of the example alone
    hiding = Features(table, unknown=0.5)
    row = {"x": tf.constant(1.0), "town": tf.constant("Ulm"), "many": tf.constant("v1"), "day": tf.constant(""), "note": tf.constant("")}  # fmt: skip
    hidden = [int(hiding(row, tf.constant([0, i], tf.int64))["ids"][0]) for i in range(40)]
    assert set(hidden) == {1, 2}
    assert hidden[:5] == [int(hiding(row, tf.constant([0, i], tf.int64))["ids"][0]) for i in range(5)]


def test_scores_are_those_of_all_pairs_and_thresholds(tf):
    from tfscale.tabular import scores

    random = np.random.RandomState(0)
    labels = (random.rand(500) < 0.2).astype(int)
    logits = random.normal(labels * 1.5 - 1, 1).astype("float32")
    weights = np.ones(500, "float32")
    weights[400:] = 0
    sums = scores.histogram(logits, labels, weights).numpy()
    labels, logits = labels[:400], logits[:400]
    first, second = logits[labels == 0], logits[labels == 1]
    assert scores.auc(sums) == pytest.approx((second[:, None] > first[None]).mean(), abs=1e-3)
    shares = 1 / (1 + np.exp(-logits))

    def f1(limit):
        chosen = shares > limit
        return 2 * (chosen & (labels == 1)).sum() / (chosen.sum() + labels.sum())

    found, best = scores.threshold(sums, "best_f1"), max(f1(limit) for limit in shares)
    assert f1(found) == pytest.approx(best, abs=0.01) == pytest.approx(scores.figures(sums, found)["f1"], abs=0.01)
    found = scores.threshold(sums, "best_accuracy")
    best = max(((shares > limit) == labels).mean() for limit in shares)
    assert scores.figures(sums, found)["accuracy"] == pytest.approx(best, abs=0.005)
    assert ((shares > found) == labels).mean() == pytest.approx(best, abs=0.005)
    assert scores.threshold(scores.histogram(first, first * 0, first * 0 + 1).numpy(), "best_f1") == 0.5


def test_scores_of_several_labels_are_those_of_each(tf):
    from tfscale.tabular import scores
    from tfscale.tabular.several_labels import SeveralLabels

    random = np.random.RandomState(0)
    labels = (random.rand(300, 3) < (0.2, 0.5, 0.0)).astype("int64")
    logits = random.normal(labels * 1.5 - 1, 1).astype("float32")
    weight = np.ones(300, "float32")
    weight[200:] = 0
    several = SeveralLabels(("no", "b > 0", "b < 0"), (20.0, 50.0, 0.0), 100.0, {"no": 3.0})
    batch = {"label": tf.constant(labels), "weight": tf.constant(weight)}
    answer = {"logits": tf.constant(logits), "margin": tf.constant(logits)}
    loss, right, sums = several.loss(answer, batch, training=False)
    assert sums.shape == several.state_size and several.bins == scores.BINS
    np.testing.assert_allclose(right, ((logits > 0) == labels).mean(1), atol=1e-6)
    entropy = np.log1p(np.exp(logits)) - labels * logits
    np.testing.assert_allclose(loss, entropy.mean(1), rtol=1e-5)
    weighted = several.loss(answer, batch, training=True)[0]
    np.testing.assert_allclose(weighted, (entropy * np.where(labels == 1, (3, 1, 1), 1)).mean(1), rtol=1e-5)
    found, limits = several.result(sums.numpy(), "best_f1")
    assert set(found) == {"auc", "f1", "accuracy", *(f"{metric}.{name}" for metric in ("auc", "threshold") for name in
                                                       ("no", "b_0", "b_0_2"))}  # fmt: skip
    for i in range(2):
        alone = scores.histogram(logits[:, i], labels[:, i], weight).numpy()
        assert found[("auc.no", "auc.b_0")[i]] == pytest.approx(scores.auc(alone))
        assert limits[i] == scores.threshold(alone, "best_f1")
    assert math.isnan(found["auc.b_0_2"]) and found["auc"] == pytest.approx((found["auc.no"] + found["auc.b_0"]) / 2)
    assert set(several.result(sums.numpy() * np.append(np.ones(several.state_size - 1), 0), "best_f1")[0]) == {
        "auc",
        "f1",
    }
    many = SeveralLabels([f"l{i}" for i in range(200)], None, 0.0, None)
    assert many.bins == 250 and many.bias() == [0.0] * 200
    balanced = SeveralLabels(("a", "b"), (20.0, 50.0), 100.0, "balanced")
    assert balanced.weights() == ([0.625, 1.0], [2.5, 1.0]) and balanced.bias() == pytest.approx([0, 0])


LABEL = {"name": "late", "kind": "class", "classes": ["no", "yes"], "counts": [90, 10]}
SEVERAL = {"name": "[rain, wind]", "kind": "multilabel", "classes": ["rain", "wind"], "counts": [5, 20], "rows": 100}


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"columns": None}, "data"),
        ({"columns": {"columns": COLUMNS, "label": None}}, "data"),
        ({"exclude": ["twon"]}, "task.exclude"),
        ({"crosses": [["town", "x"]]}, "task.crosses"),
        ({"exclude": [name for name in COLUMNS if name != "row"]}, "data"),
        ({"class_weight": {"maybe": 2.0}}, "task.class_weight"),
        ({"kind": "number"}, "task.kind"),
        ({"columns": {"columns": {"seed": column("boolean")}, "label": LABEL}}, "task.exclude"),
        ({"threshold": "best"}, "task.threshold"),
        ({"threshold": 1.5}, "task.threshold"),
        ({"class_weight": "fair"}, "task.class_weight"),
        ({"columns": {"columns": COLUMNS, "label": SEVERAL}, "kind": "number"}, "task.kind"),
        ({"columns": {"columns": COLUMNS, "label": SEVERAL}, "class_weight": {"winds": 2.0}}, "task.class_weight"),
    ],
)
def test_what_cannot_be_learnt_is_refused_before_training(fields, where):
    with pytest.raises(UsageError) as refused:
        TabularTask(**{"columns": {"label": LABEL, "columns": COLUMNS}, **fields}).check_data({})
    assert refused.value.where == where and refused.value.fix


def test_weights_and_numbers_of_classes():
    task = TabularTask(columns={"label": LABEL, "columns": COLUMNS}, class_weight="balanced")
    assert task._weights == pytest.approx([100 / 180, 5.0])
    assert "columns" not in task.identity() and task.identity()["threshold"] == 0.5
    counted = {**LABEL, "classes": ["1", "3"]}
    task = TabularTask(columns={"label": counted, "columns": COLUMNS}, kind="number", class_weight={"no": 1.0})
    assert task._scale == pytest.approx((1.2, 0.6)) and "class_weight" in task.ignored()


def test_weights_of_classes_are_numbers_of_classes_that_are_there():
    from tfscale.tabular.class_weights import given_weights
    from tfscale.tabular.several_labels import SeveralLabels

    assert given_weights({"b": 3, 7: 0}, ("a", "b", "7"), "class") == [1.0, 3.0, 0.0]
    for given, told in (({"c": 1}, "there is no class 'c'"), ({"a": -1}, "-1 is no weight"), ({"a": "x"}, "no weight")):
        with pytest.raises(UsageError, match=told):
            given_weights(given, ("a", "b"), "class")
    assert all(math.isfinite(one) for one in SeveralLabels(("a", "b"), (3.0, 0.0), 3.0, {"a": 0}).bias())
