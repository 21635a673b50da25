"""What a page shows of a data set: its splits, what its import found, classes, columns, and examples.

Owns reading it out of a prepared data set. Refuses to know HTML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.data.prepared import Prepared
from tfscale.errors import UsageError
from tfscale.files import read_json
from tfscale.importer.reader import split_reason
from tfscale.inspection import charts
from tfscale.validation.findings import NUMERIC

_MOST = 100_000  # records that are looked at for charts
_VALUES = 15
_CELL = 200  # letters of an example's cell


@dataclass
class Card:
    """One column, or one property of all examples.

    Attributes:
        facts: (what, value) in a line each.
        chart: SVG, or "".
    """

    name: str
    kind: str
    facts: list[tuple[str, str]]
    chart: str = ""


@dataclass
class Page:
    """All that a page shows.

    Attributes:
        splits: (name, examples, files).
        found: what the import left out or found odd, a line each.
        classes: SVG of the shares of the classes in each split, or "".
        rows: examples of a table or of texts: their columns by name.
        pictures: `PictureExample`s, see picture_examples.py.
        looked_at: how many records of the training split the charts are of.
    """

    name: str
    folder: Path
    splits: list[tuple[str, int, int]]
    found: list[str]
    classes: str = ""
    cards: list[Card] = field(default_factory=list)
    rows: dict[str, list[Any]] = field(default_factory=dict)
    pictures: list[Any] = field(default_factory=list)
    looked_at: int = 0


def splits_of(folder: Path) -> list[tuple[str, int, int]]:
    """(name, examples, files) of each split, that which is trained on first."""
    about = read_json(folder / "dataset_info.json", trusted=True)
    found = [(one["name"], sum(map(int, one["shardLengths"])), len(one["shardLengths"])) for one in about["splits"]]
    return sorted(found, key=lambda one: one[0] != "train")


def found_at_import(folder: Path) -> list[str]:
    """What import.json names; nothing where another program wrote the data set."""
    file = folder / "import.json"
    about = read_json(file, trusted=True) if file.is_file() else {}
    lines = [f"left out: {one}" for one in about.get("left_out", [])]
    lines += [f"bad: {one['item']}: {one['reason']}" for one in about.get("bad", [])]
    odd = Counter(split_reason(reason)[0] for one in about.get("odd", []) for reason in one["reasons"])
    lines += [f"odd: {count:,} with {reason}" for reason, count in odd.most_common()]
    lines += [f"copy: {one['item']} is {one['is']}" for one in about.get("copies", [])]
    return lines


def records_of(source: Prepared, split: str, *, most: int = _MOST) -> Iterator[Any]:
    """tf.train.Examples of a split, evenly chosen where there are more."""
    import tensorflow as tf
    from tensorflow.train import Example

    files = source.files_of(split)
    total = source.count_in(split)
    every = max(1, -(-total // most))
    records = tf.data.TFRecordDataset([str(file) for file in files])
    if every > 1:
        records = records.shard(every, 0)
    for record in records.as_numpy_iterator():
        yield Example.FromString(record).features.feature


def values_of(features: Mapping[str, Any]) -> dict[str, Any]:
    """The first value of each feature, texts decoded."""
    found: dict[str, Any] = {}
    for name, feature in features.items():
        values = getattr(feature, feature.WhichOneof("kind") or "bytes_list").value
        value = values[0] if values else b""
        found[name] = value.decode(errors="replace") if isinstance(value, bytes) else value
    return found


def table_page(source: Prepared, page: Page, *, examples: int) -> None:
    """Fills in what a table has."""
    columns = source.spec()["columns"]
    label = columns.get("label")
    chosen: dict[str, list[Any]] = {name: [] for name in (*columns["columns"], *(["label"] if label else []))}
    for features in records_of(source, "train"):
        page.looked_at += 1
        for name, value in values_of(features).items():
            chosen[name].append(value)
    for name, about in columns["columns"].items():
        page.cards.append(_card(name, about, chosen.get(name, [])))
    if label is not None and label["kind"] == "class":
        page.classes = classes_chart(source, label["classes"], page.splits)
        names = dict(enumerate(label["classes"]))
        chosen["label"] = [names[int(one)] for one in chosen["label"]]
    page.rows = {name: [_cell(one) for one in values[:examples]] for name, values in chosen.items()}


def classes_chart(source: Prepared, classes: list[str], splits: list[tuple[str, int, int]]) -> str:
    """The share of each class in each split."""
    by = {}
    for split, *_ in splits:
        counts = Counter(int(features["label"].int64_list.value[0]) for features in records_of(source, split))
        by[split] = [counts.get(number, 0) for number in range(len(classes))]
    order = sorted(range(len(classes)), key=lambda one: -by["train"][one])
    return charts.bars(
        [(classes[one], by["train"][one]) for one in order],
        by={split: [counts[one] for one in order] for split, counts in by.items()},
    )


def _card(name: str, about: Mapping[str, Any], values: list[Any]) -> Card:
    kind = about["type"]
    facts = [("missing", f"{about.get('missing', 0):,}")] if about.get("missing") else []
    chart = ""
    if kind in NUMERIC:
        quantiles = about.get("quantiles") or []
        if quantiles:
            facts += [("mean", f"{about['mean']:.6g}"), ("median", f"{quantiles[len(quantiles) // 2]:.6g}")]
            facts += [("range", f"{quantiles[0]:.6g} to {quantiles[-1]:.6g}")]
        chart = charts.histogram(np.asarray(values, np.float64))
    elif kind == "category":
        vocabulary = about.get("vocabulary", [])
        facts.append(("values", f"{about.get('values', len(vocabulary)):,}"))
        chart = charts.bars([(str(value), int(count)) for value, count in vocabulary[:_VALUES]])
    elif kind == "date" and about.get("min"):
        facts.append(("range", f"{about['min']} to {about['max']}"))
    elif kind == "text":
        chart = charts.histogram(np.asarray([len(one.split()) for one in values], np.float64))
        facts.append(("chart", "words"))
    return Card(name, kind, facts, chart)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 6)
    return value if not isinstance(value, str) or len(value) <= _CELL else f"{value[:_CELL]}…"


def text_page(source: Prepared, page: Page, *, examples: int) -> None:
    """Fills in what texts have."""
    lengths: dict[str, list[int]] = {}
    rows: dict[str, list[Any]] = {}
    for features in records_of(source, "train"):
        page.looked_at += 1
        for name, value in sorted(values_of(features).items()):
            if isinstance(value, str) and name != "file":
                lengths.setdefault(name, []).append(len(value))
            if len(rows.get(name, ())) < examples:
                rows.setdefault(name, []).append(_cell(value))
    for name, several in lengths.items():
        counts = np.asarray(several)
        facts = [("letters", f"{counts.sum():,}"), ("median", f"{np.median(counts):,.0f}")]
        facts.append(("longest", f"{counts.max():,}"))
        page.cards.append(Card(name, "text", facts, charts.histogram(counts)))
    page.rows = rows


def known_kind(source: Prepared) -> str:
    """ "table", "pictures" or "texts"; raises UsageError."""
    spec, folder = source.spec(), source.folder()
    assert folder is not None
    features = read_json(folder / "features.json", trusted=True)["featuresDict"]["features"]
    if "image" in features:
        return "pictures"
    if spec.get("columns", {}).get("columns"):
        return "table"
    if any("text" in one for one in features.values()):
        return "texts"
    raise UsageError(f"{source.name} holds neither pictures nor texts nor a table", where="NAME", fix="import it anew")
