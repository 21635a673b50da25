"""What is told of a data set: its splits, what its import found, classes, columns, and examples.

Owns what figures there are, and those that all kinds of data have. Refuses to know HTML, terminals and notebooks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.data.prepared import Prepared
from tfscale.data.table_rows import label_batches
from tfscale.errors import DataMissing, UsageError, nearest
from tfscale.files import read_json
from tfscale.importer.reader import split_reason
from tfscale.inspection.charts import Bars, Chart, numbers_of

MOST = 100_000  # records that are looked at one by one


@dataclass
class Card:
    """One column, or one property of all examples.

    Attributes:
        facts: its numbers; `told` writes one for people.
    """

    name: str
    kind: str
    facts: dict[str, Any]
    chart: Chart | None = None


@dataclass
class PictureExample:
    """One picture.

    Attributes:
        size: width and height.
        shown: uint8 [height, width, 3] of at most 160 points a side: itself, and its augmented looks.
        boxes: (left, top, width, height) as shares of the sides in percent, and the class.
    """

    name: str
    label: str
    size: tuple[int, int]
    shown: list[np.ndarray]
    boxes: list[tuple[float, float, float, float, str]] = field(default_factory=list)


@dataclass
class Figures:
    """All that is told.

    Attributes:
        kind: "table", "pictures" or "texts".
        splits: (name, examples, files), that which is trained on first.
        found: what the import left out or found odd, a line each.
        label: what a table's label is called, or "".
        classes: how often each comes in every split.
        looked_at: how many records of the training split the cards are of.
        split, chosen: whose examples are shown, and which of them: "label=shirt", or "" for all.
        fitting: how many examples fit that.
        rows: examples of a table or of texts: their columns by name.
        pictures: examples of pictures.
    """

    name: str
    folder: Path
    kind: str
    splits: list[tuple[str, int, int]]
    found: list[str]
    label: str = ""
    classes: Bars | None = None
    cards: list[Card] = field(default_factory=list)
    looked_at: int = 0
    split: str = "train"
    chosen: str = ""
    fitting: int = 0
    rows: dict[str, list[Any]] = field(default_factory=dict)
    pictures: list[PictureExample] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The numbers of all figures, without examples; JSON."""
        classes = self.classes
        return {
            "name": self.name,
            "folder": str(self.folder),
            "kind": self.kind,
            "splits": {name: {"examples": examples, "files": files} for name, examples, files in self.splits},
            "found": list(self.found),
            "classes": {
                split: dict(zip(classes.values, counts, strict=True)) for split, counts in classes.counts.items()
            }
            if classes
            else {},
            "looked_at": self.looked_at,
            "columns": {
                card.name: {
                    "kind": card.kind,
                    **card.facts,
                    **({"chart": numbers_of(card.chart)} if card.chart else {}),
                }
                for card in self.cards
            },
        }


def told(value: Any) -> str:
    """A fact as people read it."""
    if isinstance(value, tuple | list):
        return " to ".join(told(one) for one in value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


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


def every_of(source: Prepared, split: str, most: int) -> int:
    """Of so many records one is taken, so that they are not more than `most`."""
    return max(1, -(-source.count_in(split) // most))


def records_of(source: Prepared, split: str, *, every: int = 1) -> Iterator[Any]:
    """The features of a split's tf.train.Examples, evenly chosen."""
    import tensorflow as tf
    from tensorflow.train import Example

    records = tf.data.TFRecordDataset([str(file) for file in source.files_of(split)])
    for record in (records.shard(every, 0) if every > 1 else records).as_numpy_iterator():
        yield Example.FromString(record).features.feature


def class_counts(
    source: Prepared, names: Sequence[str], splits: Sequence[tuple[str, int, int]], *, several: bool = False
) -> Bars:
    """How often each class comes in every split, the most frequent of the training split first.

    Args:
        several: whether an example may have several of them.
    """
    by = {}
    for split, *_ in splits:
        counts = np.zeros(len(names), np.int64)
        for labels in label_batches(source, split, several=len(names) if several else 0):
            known = labels[(labels >= 0) & (labels < len(names))] if not several else np.nonzero(labels)[1]
            counts += np.bincount(known, minlength=len(names))
        by[split] = counts
    order = np.argsort(-by[splits[0][0]], kind="stable")
    counted = {split: counts[order].tolist() for split, counts in by.items()}
    return Bars([names[one] for one in order], counted, {split: count for split, count, _ in splits} if several else {})


def class_number(label: str, names: Sequence[str] | None) -> int:
    """The number of a class; raises UsageError."""
    if not names:
        raise UsageError(f"label={label}: there are no classes", where="label", fix="leave label away")
    if label not in names:
        text = f"there is no class {label!r}{nearest(label, list(names))}"
        raise UsageError(text, where="label", fix=f"the classes are {', '.join(names[:20])}")
    return list(names).index(label)


def nothing_fits(figures: Figures) -> DataMissing:
    """Raised where no example is what was asked for."""
    return DataMissing(f"no example of the split {figures.split} fits {figures.chosen}", where=figures.name,
                       fix="ask for others")  # fmt: skip


def values_of(features: Mapping[str, Any]) -> dict[str, Any]:
    """The first value of each feature, texts decoded."""
    found: dict[str, Any] = {}
    for name, feature in features.items():
        values = getattr(feature, feature.WhichOneof("kind") or "bytes_list").value
        value = values[0] if values else b""
        found[name] = value.decode(errors="replace") if isinstance(value, bytes) else value
    return found
