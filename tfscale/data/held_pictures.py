"""Pictures that are decoded once and held in memory, so that later epochs only cut and resize them.

Owns what is held, and that it never shows: where plan.decoded_ram_bytes is set, every picture is decoded whole, held or
not. (A crop that is decoded alone may differ by a little in its outermost columns.) Refuses to know tasks and order.

    held = HeldPictures(source, channels_of(source, task), ram_bytes=2**30)
    parse = held.parse("train")           # in the place of source.parse
    print(held.summary())
    held.release()
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfscale.autograph import no_autograph, with_autograph
from tfscale.data.augment import decode
from tfscale.data.keras_source import KerasSource
from tfscale.data.source import Source
from tfscale.data.transforms import ResizedCrop, find, transforms
from tfscale.errors import UsageError
from tfscale.task import Example, Task

SETTING = "plan.decoded_ram_bytes"
Parse = Callable[[Mapping[str, tf.Tensor], Any], Example]


class HeldPictures:
    """The decoded pictures of a source's splits, by the index of their example: those that came first, as far as there
    is room.

    Args:
        source: read by index; its examples have the encoded picture "image".
        channels: 1 (grey), 3 (RGB) or 4 (RGBA), as the task takes them.
        ram_bytes: of the pixels that are held at most, of all splits together; 0: every picture is decoded when it is
            needed.
    """

    def __init__(self, source: Source, channels: int, ram_bytes: int):
        self._source, self._channels, self._ram_bytes = source, channels, ram_bytes
        self._tables: dict[str, Any] = {}
        with tf.init_scope(), tf.device("CPU:0"):
            self._bytes = tf.Variable(0, trainable=False, dtype=tf.int64)

    def parse(self, split: str) -> Parse:
        """From an example's place, {"index": int64 []}, and its raw element to its fields: those of `source.parse`,
        with the picture as uint8 [height, width, channels]."""
        read, table = with_autograph(self._source.parse), self._table(split) if self._ram_bytes else None

        @no_autograph
        def parsed(place: Mapping[str, tf.Tensor], raw: Any) -> Example:
            def decoded() -> tf.Tensor:  # reads again: what is held needs no file
                return decode(dict(read(raw))["image"], self._channels, self._source.reading)

            example = dict(read(raw))
            if _is_encoded(example.get("image")):
                example["image"] = decoded() if table is None else self._held(table, place["index"], decoded)
            return example

        return parsed

    def _table(self, split: str) -> Any:
        if split not in self._tables:
            with tf.init_scope(), tf.device("CPU:0"):
                self._tables[split] = tf.lookup.experimental.MutableHashTable(
                    tf.int64, tf.variant, tf.raw_ops.OptionalNone(), experimental_is_anonymous=True
                )
        return self._tables[split]

    def _held(self, table: Any, index: tf.Tensor, decoded: Callable[[], tf.Tensor]) -> tf.Tensor:
        """The picture, of which nothing is copied: an optional shares the memory of its tensor."""
        shape = tf.TensorShape([None, None, self._channels])
        found = table.lookup(index)

        def again() -> tf.Tensor:
            values = tf.raw_ops.OptionalGetValue(optional=found, output_types=[tf.uint8], output_shapes=[shape])
            return values[0]

        def first() -> tf.Tensor:
            image = decoded()
            size = tf.size(image, tf.int64)
            # Added before it is compared: threads that come together may find too little room, and never too much.
            self._bytes.assign_add(size, read_value=False)

            def hold() -> tf.Tensor:
                table.insert(index, tf.raw_ops.OptionalFromValue(components=[image]))
                return tf.constant(True)

            def leave() -> tf.Tensor:
                self._bytes.assign_sub(size, read_value=False)
                return tf.constant(False)

            tf.cond(self._bytes.read_value() <= self._ram_bytes, hold, leave)
            return image

        return tf.ensure_shape(tf.cond(tf.raw_ops.OptionalHasValue(optional=found), again, first), shape)

    def summary(self) -> str:
        """How many are held of which split, for people."""
        counts = {split: int(table.size()) for split, table in self._tables.items()}
        told = [f"{held:,} of {self._source.num_examples(split):,} of {split}" for split, held in counts.items()]
        return f"decoded pictures held: {', '.join(told) or 'none'}; {int(self._bytes) / 2**20:,.1f} MiB"

    def release(self) -> None:
        """Lets go of all pictures; they are held anew when they come again."""
        for table in self._tables.values():
            with tf.device("CPU:0"):
                nothing = tf.reshape(tf.raw_ops.OptionalNone(), [1])[:0]
                tf.raw_ops.LookupTableImportV2(
                    table_handle=table.resource_handle, keys=tf.zeros([0], tf.int64), values=nothing
                )
        self._bytes.assign(0)
        _give_back()


def _give_back() -> None:
    """What C's library keeps of freed memory goes to the system, where it knows how (glibc's malloc_trim)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def channels_of(source: Source, task: Task) -> int:
    """How many channels the task takes pictures with, or else the data have; 0 where neither says it."""
    channels = getattr(task, "channels", None) or source.spec().get("channels") or 0
    return max(0, int(channels))


def refuse_nothing_to_hold(source: Source, task: Task) -> None:
    """Raises UsageError where holding decoded pictures would have no effect, or take another setting's."""
    crop = None
    with contextlib.suppress(UsageError):  # a task of one's own may call something else so
        crop = find(transforms(getattr(task, "augment", "none")), ResizedCrop)
    if crop is not None and crop.scaled:
        raise UsageError(
            "pictures that are held are decoded whole, so that scaled: true of resized_crop would do nothing",
            where=f"{SETTING}, task.augment",
            fix="choose one of them",
        )
    if why := _why_not(source, task):
        raise UsageError(f"no decoded pictures can be held: {why}", where=SETTING, fix="leave it away")


def _why_not(source: Source, task: Task) -> str:
    if isinstance(source, KerasSource):
        return "the model reads its own data"
    if not source.by_index:
        return "the data can't be read by index"
    raw = source.read("train", tf.data.Dataset.from_tensors(tf.zeros([1], tf.int64)), ram_bytes=0)
    fields = raw.map(with_autograph(source.parse)).element_spec
    if not isinstance(fields, dict) or not _is_encoded(fields.get("image")):
        return "the data have no field `image` with encoded pictures"
    if not channels_of(source, task):
        return "neither the data nor the task tell how many channels pictures have"
    return ""


def _is_encoded(image: Any) -> bool:
    return image is not None and image.dtype == tf.string and image.shape.rank == 0
