"""Decoding and augmentation of single pictures, every draw a pure function of the example's seed.

Images are uint8 [height, width, channels] or encoded bytes (string scalars); results are uint8. What costs little on
the device, and what takes two pictures, is only drawn here and done there, on whole batches (mixing.py).

    steps = transforms("photos")
    fields = prepare(example["image"], example["seed"], steps, Looks(training=True, size=224, channels=3))
    images, mix = augmented(batch, steps)      # of mixing.py, in the task's loss
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from tfscale.autograph import no_autograph
from tfscale.data import mixing
from tfscale.data.orientation import APART, is_marked_jpeg, orientation, stored_window, turned, turned_shape
from tfscale.data.rand_augment import rand_augment
from tfscale.data.source import READING
from tfscale.data.transforms import Jitter, PadCrop, RandAugment, ResizedCrop, Transform, find

_RATIOS = (2, 4, 8)  # by which a JPEG's decoder makes pictures smaller


@dataclass(frozen=True)
class Looks:
    """How a model sees pictures.

    Attributes:
        training: whether to augment.
        size: height and width.
        reading: how encoded bytes are decoded, see `Source.reading`.
    """

    training: bool
    size: int
    channels: int
    reading: int = READING


@no_autograph
def prepare(image: tf.Tensor, seed: tf.Tensor, steps: Sequence[Transform], looks: Looks) -> dict[str, tf.Tensor]:
    """One picture as the model takes it.

    Args:
        image: encoded bytes, or uint8 [height, width, channels].
        seed: int64 [2], all the randomness that is used.
        steps: of `transforms`.

    Returns:
        "image": uint8 [size, size, channels] and, in training, what `mixing.augmented` needs for it.

    Raises:
        UsageError: a transform of colours for pictures that are neither grey nor RGB.
    """
    size, channels, training = looks.size, looks.channels, looks.training
    if crop := find(steps, ResizedCrop):
        image = resized_crop(image, seed, crop, looks) if training else central_crop(image, looks, scaled=crop.scaled)
    else:
        image = decode(image, channels, looks.reading)
        if image.shape[:2] != (size, size):
            image = resize(image, size, channels)
    if not training:
        return {"image": image}
    mixing.refuse_channels(steps, channels)
    if pad := find(steps, PadCrop):
        image = pad_crop(image, seed, pad=pad.pad)
    if move := find(steps, Jitter):
        image = jitter(image, seed, move)
    if some := find(steps, RandAugment):
        image = rand_augment(image, seed + 2, layers=some.layers, magnitude=some.magnitude)
    return {"image": image, **mixing.draws(steps, seed)}


def decode(image: tf.Tensor, channels: int, reading: int = READING) -> tf.Tensor:
    """uint8 [height, width, channels] from encoded bytes, as the picture is to be seen: turned as its EXIF record says,
    a BMP in the colours of its palette. Decoded images pass through."""
    if image.dtype != tf.string:
        return image
    if reading < READING:
        return _decode(image, channels)
    decoded = tf.cond(_has_palette(image), lambda: _decode_palette(image, channels), lambda: _decode(image, channels))
    return tf.ensure_shape(turned(decoded, orientation(image)), [None, None, channels])


def _decode(image: tf.Tensor, channels: int) -> tf.Tensor:
    decoded = tf.io.decode_image(image, channels=channels, expand_animations=False)
    return tf.ensure_shape(decoded, [None, None, channels])


def _has_palette(image: tf.Tensor) -> tf.Tensor:
    """Whether it is a BMP of 256 colours, whose numbers TensorFlow would take for shades of grey."""
    head = tf.strings.substr(image, 0, 30)
    bmp = tf.equal(tf.strings.substr(image, 0, 2), b"BM") & (tf.strings.length(head) >= 30)
    return tf.cond(bmp, lambda: tf.equal(tf.strings.substr(head, 28, 2), b"\x08\0"), lambda: tf.constant(False))


@tf.function(autograph=False, experimental_attributes=APART)
def _decode_palette(image: tf.Tensor, channels: int) -> tf.Tensor:
    places = tf.cast(tf.image.decode_bmp(image, channels=0)[..., 0], tf.int32)
    size = tf.io.decode_raw(tf.strings.substr(image, 14, 4), tf.int32, little_endian=True)[0]
    palette = tf.io.decode_raw(tf.strings.substr(image, 14 + size, 4 * 256), tf.uint8)  # blue, green, red, 0
    palette = tf.reshape(palette[: tf.size(palette) // 4 * 4], [-1, 4])
    colours = tf.gather(tf.gather(palette, [2, 1, 0], axis=1), places)
    if channels == 1:
        return tf.image.rgb_to_grayscale(colours)
    return (
        colours
        if channels == 3
        else tf.concat([colours, tf.fill([*tf.unstack(tf.shape(places)), 1], tf.constant(255, tf.uint8))], -1)
    )


def jitter(image: tf.Tensor, seed: tf.Tensor, move: Jitter, *, outside: int | None = None) -> tf.Tensor:
    """Shifts, rotates and zooms by up to these amounts, in one bilinear resampling, with 0 from outside.

    Args:
        outside: of a mask, whose numbers aren't mixed: what comes from outside.
    """
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    draw = tf.random.stateless_uniform([4], seed, -1.0, 1.0)
    angle, scale = draw[2] * move.rotate, 1.0 + draw[3] * move.zoom
    cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
    center_y, center_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    # output (x, y) takes input (a0 x + a1 y + a2, b0 x + b1 y + b2): a turn about the centre, then the shift
    offset_x = center_x - cos * center_x + sin * center_y + draw[0] * move.shift
    offset_y = center_y - sin * center_x - cos * center_y + draw[1] * move.shift
    transform = tf.stack([cos, -sin, offset_x, sin, cos, offset_y, 0.0, 0.0])[tf.newaxis]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=transform,
        output_shape=tf.shape(image)[:2],
        interpolation="BILINEAR" if outside is None else "NEAREST",
        fill_mode="CONSTANT",
        fill_value=float(outside or 0),
    )
    return tf.ensure_shape(moved[0], image.shape)


def pad_crop(image: tf.Tensor, seed: tf.Tensor, *, pad: int) -> tf.Tensor:
    """CIFAR's standard: pad by zeros, crop at random to the former size."""
    shape = image.shape
    padded = tf.pad(image, [[pad, pad], [pad, pad], [0, 0]])
    return tf.image.stateless_random_crop(padded, shape, seed)


def resized_crop(image: tf.Tensor, seed: tf.Tensor, crop: ResizedCrop, looks: Looks) -> tf.Tensor:
    """Inception's crop: a share of the area from `least_area` to 1, aspect ratio 3/4-4/3, at the model's size."""
    return _crop(image, lambda shape: drawn_window(shape, seed, crop), looks, scaled=crop.scaled)


def drawn_window(shape: tf.Tensor, seed: tf.Tensor, crop: ResizedCrop) -> tf.Tensor:
    """[top, left, height, width] of a picture of this shape."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.zeros([1, 0, 4]),
        seed,
        min_object_covered=0.0,
        area_range=(crop.least_area, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], 0)


def _crop(image: tf.Tensor, window: Callable[[tf.Tensor], tf.Tensor], looks: Looks, *, scaled: bool) -> tf.Tensor:
    """A window of a picture, at the model's size.

    Of a JPEG only the window is decoded; where it is at least twice, four or eight times the size, and `scaled`, at a
    half, a quarter or an eighth, so that no pixel is skipped by what resizes it.

    Args:
        window: [top, left, height, width] of a picture of this shape.
    """
    size, channels = looks.size, looks.channels

    def of_window(place: tf.Tensor) -> tf.Tensor:
        if scaled and looks.reading >= READING:
            return decode_window(image, place, size=size, channels=channels)
        return tf.io.decode_and_crop_jpeg(image, place, channels=channels)

    def of_whole(image: tf.Tensor) -> tf.Tensor:
        whole = decode(image, channels, looks.reading)
        top, left, height, width = tf.unstack(window(tf.shape(whole)))
        return resize(whole[top : top + height, left : left + width], size, channels)

    def of_turned(image: tf.Tensor) -> tf.Tensor:
        way = orientation(image)
        seen = turned_shape(tf.io.extract_jpeg_shape(image), way)
        return resize(turned(of_window(stored_window(window(seen), seen, way)), way), size, channels)

    def as_stored() -> tf.Tensor:
        found = of_window(window(tf.io.extract_jpeg_shape(image)))
        return _resize_small(found, size, channels) if scaled else resize(found, size, channels)

    def of_jpeg() -> tf.Tensor:
        if looks.reading < READING:
            return as_stored()
        return tf.cond(is_marked_jpeg(image), lambda: _apart(of_turned)(image), as_stored)

    if image.dtype != tf.string:
        return of_whole(image)
    return tf.cond(tf.io.is_jpeg(image), of_jpeg, lambda: _apart(of_whole)(image))


def _apart(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """In the graph one operation, which costs next to nothing where it isn't called."""
    return tf.function(function, autograph=False, experimental_attributes=APART)


def decode_window(jpeg: tf.Tensor, window: tf.Tensor, *, size: int, channels: int) -> tf.Tensor:
    """A window [top, left, height, width] of a JPEG: uint8, as small as the decoder makes it without either side
    falling below `size`; its edges move by half a pixel of that at most."""
    shorter = tf.reduce_min(window[2:])

    def smaller(jpeg: tf.Tensor, window: tf.Tensor, shorter: tf.Tensor) -> tf.Tensor:
        def by(ratio: int) -> tf.Tensor:
            whole = -(-tf.io.extract_jpeg_shape(jpeg)[:2] // ratio)
            begin = (window[:2] + ratio // 2) // ratio
            end = tf.minimum((window[:2] + window[2:] + ratio // 2) // ratio, whole)
            return tf.io.decode_and_crop_jpeg(jpeg, tf.concat([begin, end - begin], 0), channels=channels, ratio=ratio)

        at = tf.reduce_sum(tf.cast(shorter >= [ratio * size for ratio in _RATIOS], tf.int32)) - 1
        return tf.switch_case(at, [lambda ratio=ratio: by(ratio) for ratio in _RATIOS])

    return tf.cond(
        shorter >= _RATIOS[0] * size,
        lambda: _apart(smaller)(jpeg, window, shorter),
        lambda: tf.io.decode_and_crop_jpeg(jpeg, window, channels=channels),
    )


def central_crop(image: tf.Tensor, looks: Looks, *, scaled: bool = False) -> tf.Tensor:
    """The standard evaluation on ImageNet: the middle 87.5 % of the shorter side, resized to the model's size."""

    def middle(shape: tf.Tensor) -> tf.Tensor:
        side = tf.maximum(1, tf.cast(0.875 * tf.cast(tf.minimum(shape[0], shape[1]), tf.float32), tf.int32))
        return tf.stack([(shape[0] - side) // 2, (shape[1] - side) // 2, side, side])

    if scaled:
        return _crop(image, middle, looks, scaled=True)
    image = decode(image, looks.channels, looks.reading)
    top, left, height, width = tf.unstack(middle(tf.shape(image)))
    return resize(image[top : top + height, left : left + width], looks.size, looks.channels)


def resize(image: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    """uint8 [size, size, channels], bilinear."""
    small = tf.size(image) <= 16 * size * size * channels  # a large picture would take four times its memory

    def large() -> tf.Tensor:
        return tf.cast(tf.round(tf.image.resize(image, [size, size])), tf.uint8)

    made = tf.cond(small, lambda: _resize_small(image, size, channels), large)
    return tf.ensure_shape(made, [size, size, channels])


def _resize_small(image: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    """The same: of float32 TensorFlow resizes faster than of uint8, to the same bits."""
    resized = tf.image.resize(tf.cast(image, tf.float32), [size, size])
    return tf.ensure_shape(tf.cast(tf.round(resized), tf.uint8), [size, size, channels])
