"""Examples as the data hold them: those that are shown to people, and one column of all, by which slices are cut.

Owns how they are read by their place, and what of them people see. Refuses to know figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfscale.data.thumbnails import small
from tfscale.errors import UsageError, nearest
from tfscale.trained.restored_run import RestoredRun

_AT_ONCE = 1024  # examples
_TEXT = 300  # characters that are shown of one
_NUMBERS = 16  # of a vector that is shown
_LABELS = ("label", "y")


@dataclass
class Shown:
    """What people see of one example.

    Attributes:
        picture: uint8 [height, width, 1 or 3], or None.
        overlay: the same as the model sees it, with its saliency painted over it: uint8 [height, width, 3], or None.
        fields: of rows and texts, by name; of pictures the file, where it is known.
    """

    picture: np.ndarray | None = None
    fields: dict[str, str] = field(default_factory=dict)
    overlay: np.ndarray | None = None


def shown_examples(run: RestoredRun, split: str, places: Sequence[int]) -> list[Shown] | None:
    """The examples at some places, in this order; None of data that aren't read by index."""
    if not run.source.resolved().by_index:
        return None
    return [_shown(example) for example in read_examples(run, split, places)]


def column_of(run: RestoredRun, split: str, name: str, places: np.ndarray) -> np.ndarray:
    """One column of the examples at these places: texts, or numbers with NaN for gaps.

    Raises:
        UsageError: there is no such column of single values, or the data aren't read by index.
    """
    if not run.source.resolved().by_index:
        raise UsageError(
            f"{type(run.source).__name__} isn't read by index, so that its columns can't be had apart",
            where="report.slices",
            fix="leave report.slices away, or import the data with tfscale data import",
        )
    first = next(read_examples(run, split, places[:1]))
    single = [key for key, value in first.items() if not np.ndim(value)]
    if name not in single:
        raise UsageError(
            f"the data have no column {name!r} of single values{nearest(name, single)}",
            where="report.slices",
            fix=f"use one of {', '.join(sorted(single))}" if single else "leave report.slices away",
        )
    return np.asarray([_value(example[name]) for example in read_examples(run, split, places, only=name)])


def read_examples(
    run: RestoredRun, split: str, places: Sequence[int] | np.ndarray, only: str | None = None
) -> Iterator[dict[str, Any]]:
    import tensorflow as tf

    from tfscale.autograph import no_autograph, with_autograph

    source = run.source.resolved()

    @no_autograph
    def parse(raw: Any) -> Mapping[str, Any]:
        example = dict(with_autograph(source.parse)(raw))
        return example if only is None else {only: example[only]}

    indices = tf.data.Dataset.from_tensor_slices(np.asarray(places, np.int64)).batch(_AT_ONCE)
    raw = source.read(split, indices, ram_bytes=run.plan.input_ram_bytes)
    yield from raw.map(parse, num_parallel_calls=run.plan.input_threads, deterministic=True).as_numpy_iterator()


def prepared_examples(run: RestoredRun, split: str, places: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The examples at some places, of data that are read by index, as the task prepares them for its model."""
    import tensorflow as tf

    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import finisher_of

    source, index = run.source.resolved(), np.asarray(places, np.int64)
    raw = source.read(
        split, tf.data.Dataset.from_tensor_slices(index).batch(_AT_ONCE), ram_bytes=run.plan.input_ram_bytes
    )
    portion = Portion(split, Shard(1), training=False, seed=run.config.train.seed)
    order = tf.data.Dataset.from_tensor_slices({"index": index, "epoch": np.zeros_like(index)})
    finish = finisher_of(source, run.task, portion, run.plan)
    finished = tf.data.Dataset.zip((order, raw)).map(
        finish, num_parallel_calls=run.plan.input_threads, deterministic=True
    )
    for example in finished.as_numpy_iterator():
        yield {name: value for name, value in example.items() if name not in _LABELS}


def _value(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _shown(example: Mapping[str, Any]) -> Shown:
    """A picture where there is one, else all single values."""
    for name in ("image", "x"):
        if name in example and (picture := _picture(example[name])) is not None:
            file = example.get("file")
            return Shown(small(picture), {"file": _value(file)} if isinstance(file, bytes) else {})
    fields = {name: _told(value) for name, value in example.items() if name not in _LABELS}
    return Shown(None, {name: text for name, text in fields.items() if text is not None})


def _told(value: Any) -> str | None:
    """A single value, or few numbers in a row; None of all else."""
    if np.ndim(value) == 1 and 0 < len(value) <= _NUMBERS and np.asarray(value).dtype.kind in "fiub":
        return ", ".join(f"{one:.4g}" for one in np.asarray(value).tolist())
    if np.ndim(value):
        return None
    text = _value(value) if isinstance(value, bytes) else f"{value:.7g}" if _is_float(value) else str(value)
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"


def _is_float(value: Any) -> bool:
    return isinstance(value, float) or getattr(getattr(value, "dtype", None), "kind", "") == "f"


def _picture(value: Any) -> np.ndarray | None:
    """uint8 [height, width, 1 or 3] of encoded bytes, or of an array that can be seen as one; else None."""
    if isinstance(value, bytes):
        import tensorflow as tf

        from tfscale.data.augment import decode

        try:
            decoded: np.ndarray = decode(tf.constant(value), 3).numpy()
        except tf.errors.InvalidArgumentError:  # some other bytes
            return None
        return decoded
    array = np.asarray(value)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.dtype.kind not in "fiu" or min(array.shape[:2]) < 4 or array.shape[2] not in (1, 3):
        return None
    if array.dtype == np.uint8:
        return array
    low, high = float(array.min()), float(array.max())
    scaled = (array - low) * (255 / (high - low) if high > low else 0)
    return np.asarray(scaled.round(), np.uint8)
