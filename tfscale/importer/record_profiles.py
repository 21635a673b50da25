"""Profiles of the splits of a data set, and the protos that are written beside its records.

Owns measuring records of texts, finding the picture of a record, and which files a data set has of it. Tables tell
their own profile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.data.pictures import HEAD, kind_of
from tfscale.errors import DataCorrupt
from tfscale.importer.picture_looks import Encoded, Look, PictureNotes, looks, picture_profile
from tfscale.importer.record_files import records_of
from tfscale.importer.text_measures import text_profile
from tfscale.statistics.protos import (
    SCHEMA,
    file_of,
    schema_of,
    statistics_of,
    write_schema_proto,
    write_statistics,
)


def write_protos(folder: Path, split: str, profile: Mapping[str, Any], features: Any) -> None:
    """Writes what a split is like and, of the training split, what data must be like to be as it is.

    Args:
        features: TFDS's of the records.
    """
    write_statistics(folder / file_of(split), statistics_of(profile, split))
    if split == "train":
        write_schema_proto(folder / SCHEMA, schema_of(profile, _types(features)))


def _types(features: Any) -> dict[str, str]:
    """The types of all features of a record, as a schema names them."""
    found = {}

    def look(name: str, info: Any) -> None:
        if isinstance(info, Mapping):
            for key, value in info.items():
                look(f"{name}/{key}" if name else key, value)
        else:
            kind = np.dtype(info.np_dtype)
            found[name] = "BYTES" if kind.kind in "OSU" else "FLOAT" if kind.kind == "f" else "INT"

    look("", features.get_serialized_info())
    return found


def record_profile(
    files: Sequence[Path], folder: Path, columns: Mapping[str, Any], noted: PictureNotes
) -> dict[str, Any] | None:
    """Of the records of a split of pictures or texts; None of what is neither.

    Args:
        folder: of the data set, which has the names of its classes.
        columns: what its columns.json holds.
        noted: of its pictures, when they were written: none is decoded again.
    """
    if fields := columns.get("text", {}).get("fields"):
        return text_profile(texts_of(files, fields), fields, class_names(folder))
    if not len(noted):
        return None
    return picture_profile(noted, class_names(folder), class_names(folder, "objects-label"))


def _has_picture(features: Mapping[str, Any]) -> bool:
    """Whether a record holds an encoded picture, and not its pixels or something else of that name."""
    content = list(features["image"].bytes_list.value) if "image" in features else []
    return len(content) == 1 and kind_of(content[0][:HEAD]) is not None


def class_names(folder: Path, of: str = "label") -> list[str]:
    file = folder / f"{of}.labels.txt"
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def of_boxes(features: Any) -> Mapping[str, Any]:
    """TFDS's features of a picture's boxes, by their names; {} where it has none."""
    return getattr(features["objects"], "feature", {}) if "objects" in features else {}


def refuse_class_names(features: Any) -> None:
    """Raises DataCorrupt where classes have names that can't be read back: TFDS keeps them a line each."""
    for one in (*features.values(), *of_boxes(features).values()):
        for name in getattr(one, "names", None) or ():
            if not name.strip() or "\n" in name or "\r" in name:
                raise DataCorrupt(
                    f"{name!r} can't name a class: names are kept a line each",
                    where="data.label",
                    fix="give it a name of one line in the source",
                )


def examples_of(files: Sequence[Path]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(a name for people, the features) of each record."""
    from tensorflow.train import Example

    for file in files:
        for place, record in enumerate(records_of(file), 1):
            yield f"{file.name}: record {place}", Example.FromString(record).features.feature


def looks_of(files: Sequence[Path]) -> Iterator[Look]:
    """A look at each picture of the records; some may have none."""
    return looks(_picture(*one) for one in examples_of(files) if _has_picture(one[1]))


def picture_of(record: bytes) -> Encoded:
    """The picture of a record that has one."""
    from tensorflow.train import Example

    return _picture("", Example.FromString(record).features.feature)


def _picture(name: str, features: Mapping[str, Any]) -> Encoded:
    told = features["file"].bytes_list.value if "file" in features else ()
    label = features["label"].int64_list.value if "label" in features else ()
    boxes = tuple(features["objects/label"].int64_list.value) if "objects/label" in features else ()
    named = told[0].decode("utf-8", "replace") if told else name
    return Encoded(named, label[0] if label else -1, features["image"].bytes_list.value[0], boxes)


def texts_of(files: Sequence[Path], fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each text of the records with its fields, its label or -1, and its name for people."""
    for name, features in examples_of(files):
        label = features["label"].int64_list.value if "label" in features else ()
        told = {field: features[field].bytes_list.value[0].decode("utf-8", "replace") for field in fields}
        yield {**told, "label": label[0] if label else -1, "name": name}
