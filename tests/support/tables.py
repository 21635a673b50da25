"""Tables as `tfscale data import` leaves them, written from arrays, and the source that reads them with their columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.data.tfds import Tfds

Rows = Mapping[str, Sequence[Any]]  # None or NaN: missing


@dataclass
class Described(Tfds):
    """A TFDS folder with its columns.json."""

    download: bool = False

    def spec(self) -> dict[str, Any]:
        folder = self.folder()
        assert folder is not None
        return {**super().spec(), "columns": json.loads((folder / "columns.json").read_text())}


def write_table(root: Path, splits: Mapping[str, Rows], types: Mapping[str, str], *, name: str = "table") -> Path:
    """Writes root/name/1.0.0; `types` names the type of every column, and "label": "class" or "number"."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)
    label = types["label"]
    classes = sorted({str(v) for v in splits["train"]["label"]}) if label == "class" else []
    kinds = {column: kind for column, kind in types.items() if column != "label"}
    described = {
        "label": _label(splits["train"]["label"], label, classes),
        "columns": {column: _column(splits["train"][column], kind) for column, kind in kinds.items()},
    }
    (folder / "columns.json").write_text(json.dumps(described))
    features = {c: np.float32 if k in ("number", "boolean") else tfds.features.Text() for c, k in kinds.items()}
    features["label"] = tfds.features.ClassLabel(names=classes) if classes else np.float32
    features = tfds.features.FeaturesDict(features)
    infos = []
    for split, rows in splits.items():
        count = len(rows["label"])
        file = folder / f"{name}-{split}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(file)) as writer:
            for i in range(count):
                row = {c: _value(rows[c][i], k) for c, k in kinds.items()}
                row["label"] = str(rows["label"][i]) if classes else np.float32(rows["label"][i])
                writer.write(features.serialize_example(features.encode_example(row)))
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[count],
                num_bytes=file.stat().st_size,
                filename_template=tfds.core.ShardedFileTemplate(
                    dataset_name=name, data_dir=folder, filetype_suffix="tfrecord"
                ),
            )
        )
    tfds.folder_dataset.write_metadata(data_dir=folder, features=features, split_infos=infos, check_data=False)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "name": name}))
    return folder


def _missing(value: Any) -> bool:
    return value is None or value != value


def _value(value: Any, kind: str) -> Any:
    if kind in ("number", "boolean"):
        return np.float32("nan") if _missing(value) else np.float32(value)
    return "" if _missing(value) else str(value)


def _label(values: Sequence[Any], kind: str, classes: Sequence[str]) -> dict[str, Any]:
    if kind == "class":
        counts = Counter(map(str, values))
        return {"name": "label", "kind": kind, "classes": list(classes), "counts": [counts[c] for c in classes]}
    return {"name": "label", "kind": kind, "mean": float(np.mean(values)), "variance": float(np.var(values))}


def _column(values: Sequence[Any], kind: str) -> dict[str, Any]:
    there = [value for value in values if not _missing(value)]
    found: dict[str, Any] = {"type": kind, "missing": len(values) - len(there)}
    if kind in ("number", "boolean"):
        numbers = np.array(there, float)
        found.update(mean=float(numbers.mean()), variance=float(numbers.var()))
        found["quantiles"] = np.quantile(numbers, np.linspace(0, 1, 101)).tolist()
    if kind == "category":
        found["vocabulary"] = sorted(Counter(map(str, there)).items(), key=lambda pair: (-pair[1], pair[0]))
    if kind == "date":
        found.update(min=min(there), max=max(there))
    return found
