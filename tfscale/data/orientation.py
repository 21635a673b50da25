"""How a picture is to be turned, by the EXIF record in its file, in TensorFlow's operations.

They become part of the graph that reads the data, and of the exported model, so that all of them see the same picture.
Owns finding that record in JPEG, PNG and WebP, and the eight ways to lie. Refuses to know pixels' values.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Asked first, since most files have no record. The first takes two nanoseconds a byte; of a JPEG the second is
# replaced, which takes a tenth of that, and not finding it leaves the length as it was.
_MARKED = r"\C*(?:eXIf|EXIF)\C*"
_MARKED_JPEG = r"Exif\x00\x00"
_HEAD = 2**18  # bytes of a JPEG before which its record stands: before its tables and pixels
_CHUNKS = 4096  # that are looked at in one file
_ORIENTATION = 0x0112  # the tag

# Kept as a function of its own in the graph: inlined, its many small operations would cost as much as decoding a small
# picture, also where it isn't called.
APART = {"_noinline": True}

_Step = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


def orientation(content: tf.Tensor) -> tf.Tensor:
    """1 to 8 as EXIF counts, int32; 1 (as it is stored) where the file says nothing, or nonsense.

    Args:
        content: an encoded picture, a string scalar.
    """
    jpeg = tf.io.is_jpeg(content)
    marked = tf.cond(jpeg, lambda: is_marked_jpeg(content), lambda: tf.strings.regex_full_match(content, _MARKED))
    return tf.cond(marked, lambda: _look(content, jpeg), lambda: tf.constant(1))


def is_marked_jpeg(content: tf.Tensor) -> tf.Tensor:
    """Whether a JPEG may have an EXIF record: a bool."""
    head = tf.strings.substr(content, 0, _HEAD)
    without = tf.strings.regex_replace(head, _MARKED_JPEG, "", replace_global=False)
    return tf.not_equal(tf.strings.length(without), tf.strings.length(head))


@tf.function(autograph=False, experimental_attributes=APART)
def _look(content: tf.Tensor, jpeg: tf.Tensor) -> tf.Tensor:
    data = tf.io.decode_raw(content, tf.uint8)
    png = tf.equal(tf.strings.substr(content, 0, 4), b"\x89PNG")
    webp = tf.equal(tf.strings.substr(content, 0, 4), b"RIFF")
    first = tf.where(jpeg, 2, tf.where(png, 8, 12))

    def step(at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        def other() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            return tf.cond(png, lambda: _png_step(data, at), lambda: _webp_step(data, at))

        return tf.cond(jpeg, lambda: _jpeg_step(data, at), other)

    return tf.cond(jpeg | png | webp, lambda: _tag(data, _find(step, first)), lambda: tf.constant(1))


def turned(image: tf.Tensor, way: tf.Tensor) -> tf.Tensor:
    """A picture [height, width, channels] as it is to be seen; where `way` is 5 to 8, its sides change places."""

    return tf.cond(way > 1, lambda: _turn(image, way), lambda: image)


@tf.function(autograph=False, experimental_attributes=APART)
def _turn(image: tf.Tensor, way: tf.Tensor) -> tf.Tensor:
    seen = tf.cond(way >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    seen = tf.cond(_is_mirrored(way), lambda: tf.reverse(seen, [1]), lambda: seen)
    return tf.cond(_is_upside_down(way), lambda: tf.reverse(seen, [0]), lambda: seen)


def turned_shape(shape: tf.Tensor, way: tf.Tensor) -> tf.Tensor:
    """[height, width, channels] of what `turned` returns."""
    return tf.where(way >= 5, tf.gather(shape, [1, 0, 2]), shape)


def stored_window(window: tf.Tensor, shape: tf.Tensor, way: tf.Tensor) -> tf.Tensor:
    """Where a window [top, left, height, width] of the picture as it is seen lies in the picture as it is stored.

    Args:
        shape: of the picture as it is seen.
    """
    top, left, height, width = tf.unstack(window)
    left = tf.where(_is_mirrored(way), shape[1] - left - width, left)
    top = tf.where(_is_upside_down(way), shape[0] - top - height, top)
    return tf.where(way >= 5, tf.stack([left, top, width, height]), tf.stack([top, left, height, width]))


def _is_mirrored(way: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(tf.equal(way, [2, 3, 6, 7]))


def _is_upside_down(way: tf.Tensor) -> tf.Tensor:
    return tf.reduce_any(tf.equal(way, [3, 4, 7, 8]))


def _bytes(data: tf.Tensor, at: tf.Tensor, count: int) -> tf.Tensor:
    """int32 [count]; behind the end of the data -1."""
    places = at + tf.range(count)
    known = (places >= 0) & (places < tf.size(data))
    return tf.where(known, tf.cast(tf.gather(data, tf.where(known, places, 0)), tf.int32), -1)


def _number(some: tf.Tensor, *, big: tf.Tensor | bool) -> tf.Tensor:
    """A whole number of these bytes; a negative one where any of them is missing, or beyond int32."""
    some = tf.where(big, tf.reverse(some, [0]), some)
    value = tf.reduce_sum(some * 256 ** tf.range(tf.size(some)))
    return tf.where(tf.reduce_any(some < 0), -1, value)


def _find(step: _Step, first: tf.Tensor) -> tf.Tensor:
    """The place of the EXIF record's TIFF header, or -1. `step` says: where to look next, what was found (-1), and
    whether to look on."""

    def going(at: tf.Tensor, found: tf.Tensor, on: tf.Tensor) -> tf.Tensor:
        return on & (found < 0)

    def look(at: tf.Tensor, found: tf.Tensor, on: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        after, found, on = step(at)
        return after, found, on & (after > at)  # a negative length would lead back

    return tf.while_loop(
        going, look, (first, tf.constant(-1), tf.constant(True)), maximum_iterations=_CHUNKS, parallel_iterations=1
    )[1]


def _jpeg_step(data: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """A segment of an application or a comment: FF, its kind, its length. They stand before tables and pixels."""
    some = _bytes(data, at, 10)
    kind = some[1]
    filling = tf.equal(kind, 0xFF)
    length = tf.where(filling, 1, 2 + _number(some[2:4], big=True))
    exif = tf.reduce_all(tf.equal(some[4:10], [0x45, 0x78, 0x69, 0x66, 0, 0])) & tf.equal(kind, 0xE1)
    on = tf.equal(some[0], 0xFF) & (((kind >= 0xE0) & (kind <= 0xEF)) | tf.equal(kind, 0xFE) | filling)
    return at + length, tf.where(exif, at + 10, -1), on


def _png_step(data: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """A chunk: length, kind, content, checksum."""
    some = _bytes(data, at, 8)
    kind = some[4:8]
    exif = tf.reduce_all(tf.equal(kind, [0x65, 0x58, 0x49, 0x66]))
    pixels = tf.reduce_all(tf.equal(kind, [0x49, 0x44, 0x41, 0x54]))
    return at + 12 + _number(some[:4], big=True), tf.where(exif, at + 8, -1), ~pixels & (some[0] >= 0)


def _webp_step(data: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """A chunk: kind, length, content filled up to an even length. The record stands behind the pixels, and some write
    JPEG's "Exif" before it."""
    some = _bytes(data, at, 14)
    exif = tf.reduce_all(tf.equal(some[:4], [0x45, 0x58, 0x49, 0x46]))
    begins = tf.where(tf.equal(some[8], 0x45), at + 14, at + 8)
    length = _number(some[4:8], big=False)
    return at + 8 + length + length % 2, tf.where(exif, begins, -1), (some[0] >= 0) & (length >= 0)


def _tag(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """The orientation in the first directory of a TIFF that begins there."""

    def read() -> tf.Tensor:
        big = tf.equal(_bytes(data, start, 1)[0], 0x4D)  # MM for Motorola, II for Intel
        directory = start + _number(_bytes(data, start + 4, 4), big=big)
        count = _number(_bytes(data, directory, 2), big=big)
        places = directory + 2 + 12 * tf.range(tf.clip_by_value(count, 0, 1024))[:, None] + tf.range(12)
        known = (directory >= start) & (places >= 0) & (places < tf.size(data))
        entries = tf.where(known, tf.cast(tf.gather(data, tf.where(known, places, 0)), tf.int32), 0)
        high, low = tf.where(big, 0, 1), tf.where(big, 1, 0)
        tags = 256 * tf.gather(entries, high, axis=1) + tf.gather(entries, low, axis=1)
        long = tf.equal(entries[:, 2] + entries[:, 3], 4)  # else a short, which stands in front
        values = tf.gather(entries, tf.where(big & long, 11, tf.where(big, 9, 8)), axis=1, batch_dims=1)
        found = tf.boolean_mask(values, tf.equal(tags, _ORIENTATION) & (values >= 1) & (values <= 8))
        return tf.reduce_max(tf.concat([[1], found[:1]], 0))

    return tf.cond(start < 0, lambda: tf.constant(1), read)
