"""The rows of a prepared table as Arrow, many at once: what statistics and SQL are made of, not training.

Refuses to know what is asked of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tfscale.statistics.findings import NUMERIC

if TYPE_CHECKING:
    import pyarrow as pa

    from tfscale.data.prepared import Prepared

_AT_ONCE = 8192  # records
_BYTES = 2**26  # of them


def row_batches(source: Prepared, split: str, *, label_as: str = "label", every: int = 1) -> Iterator[pa.Table]:
    """The columns and, as the last one, the label: the number of a class, a number, or of several labels the list of 0
    and 1.

    Args:
        label_as: what the label is called.
        every: of so many records the first is taken.
    """
    import pyarrow as pa
    import tensorflow as tf

    about = source.spec()["columns"]
    is_number = {name: one["type"] in NUMERIC for name, one in about["columns"].items()}
    features = {
        name: tf.io.FixedLenFeature([], tf.float32 if number else tf.string) for name, number in is_number.items()
    }
    label = about.get("label")
    if label is not None:
        shape = [len(label["classes"])] if label["kind"] == "multilabel" else []
        features["label"] = tf.io.FixedLenFeature(shape, tf.float32 if label["kind"] == "number" else tf.int64)
    for batch in _records(source, split, every).batch(_AT_ONCE):
        parsed = tf.io.parse_example(batch, features)
        arrays = {}
        for name, number in is_number.items():
            values = parsed[name].numpy()
            arrays[name] = (
                pa.array(values, from_pandas=True)  # NaN is a gap
                if number
                else pa.array([one.decode() for one in values.tolist()], pa.string())
            )
        if label is not None:
            values = parsed["label"].numpy()
            arrays[label_as] = pa.array(values if values.ndim == 1 else values.tolist())
        yield pa.table(arrays)


def label_batches(source: Prepared, split: str, *, several: int = 0) -> Iterator[Any]:
    """[n] the numbers of the classes, of records of any kind whose label is one; nothing else of them is parsed.

    Args:
        several: of so many labels at once [n, several] 0 and 1.
    """
    import tensorflow as tf

    spec = {"label": tf.io.FixedLenFeature([several] if several else [], tf.int64)}
    stored = sum(file.stat().st_size for file in source.files_of(split))
    fitting = _BYTES * source.count_in(split) // max(1, stored)  # they may be pictures
    for batch in _records(source, split, 1).batch(max(1, min(_AT_ONCE, fitting))):
        yield tf.io.parse_example(batch, spec)["label"].numpy()


def _records(source: Prepared, split: str, every: int) -> Any:
    import tensorflow as tf

    records = tf.data.TFRecordDataset([str(file) for file in source.files_of(split)])
    return records.shard(every, 0) if every > 1 else records
