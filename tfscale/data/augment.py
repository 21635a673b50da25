"""Decoding and augmentation of images, every draw a pure function of the example's seed.

Images are uint8 [height, width, channels] or encoded bytes (string scalars); results are uint8. The horizontal flip is
only drawn here: the step mirrors whole batches on the device, where it costs next to nothing.

    image, flip = prepare(example["image"], example["seed"], "photos", training=True, size=224, channels=3)
    images = mirror(batch["image"], batch["flip"])      # in the task's loss
"""

from __future__ import annotations

import tensorflow as tf

from tfscale.data.orientation import APART, orientation, stored_window, turned, turned_shape
from tfscale.data.source import READING

_MIRRORED = ("cifar", "photos", "imagenet")


def prepare(
    image: tf.Tensor,
    seed: tf.Tensor,
    kind: str,
    *,
    training: bool,
    size: int,
    channels: int,
    reading: int = READING,
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """One picture as a model of this input size takes it, and whether it is to be mirrored.

    Args:
        image: encoded bytes, or uint8 [height, width, channels].
        seed: int64 [2], all the randomness that is used.
        kind: of tfscale.data.AUGMENTS: "none"; "digits" shifts, turns and zooms a little; "cifar" pads and crops;
            "photos" and "imagenet" crop 35-100 % and 8-100 % of the area, with the central crop in evaluation. The last
            three mirror half of the pictures.
        reading: how encoded bytes are decoded, see `Source.reading`.

    Returns:
        uint8 [size, size, channels], and a bool for `mirror`, or None where nothing is ever mirrored (in evaluation).
    """
    flip = tf.random.stateless_uniform([], seed + 1) < 0.5 if training and kind in _MIRRORED else None
    if kind in ("photos", "imagenet"):
        if training:
            least = 0.35 if kind == "photos" else 0.08
            return resized_crop(image, seed, size=size, channels=channels, least_area=least, reading=reading), flip
        return central_crop(image, size=size, channels=channels, reading=reading), None
    image = decode(image, channels, reading)
    if image.shape[:2] != (size, size):
        image = resize(image, size, channels)
    if training and kind == "digits":
        image = jitter(image, seed, shift=2.0, rotate=0.2, zoom=0.1)
    elif training and kind == "cifar":
        image = pad_crop(image, seed, pad=4)
    return image, flip


def mirror(images: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Mirrors those of the images [examples, height, width, channels] whose flip [examples] is true: on the device,
    where it costs next to nothing."""
    return tf.where(flip[:, None, None, None], tf.reverse(images, [2]), images)


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


def jitter(image: tf.Tensor, seed: tf.Tensor, *, shift: float, rotate: float, zoom: float) -> tf.Tensor:
    """Shifts (pixels), rotates (radians) and zooms (share) by up to these amounts, in one bilinear resampling."""
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    draw = tf.random.stateless_uniform([4], seed, -1.0, 1.0)
    angle, scale = draw[2] * rotate, 1.0 + draw[3] * zoom
    cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
    center_y, center_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    # output (x, y) takes input (a0 x + a1 y + a2, b0 x + b1 y + b2): a turn about the centre, then the shift
    offset_x = center_x - cos * center_x + sin * center_y + draw[0] * shift
    offset_y = center_y - sin * center_x - cos * center_y + draw[1] * shift
    transform = tf.stack([cos, -sin, offset_x, sin, cos, offset_y, 0.0, 0.0])[tf.newaxis]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=transform,
        output_shape=tf.shape(image)[:2],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )
    return tf.ensure_shape(moved[0], image.shape)


def pad_crop(image: tf.Tensor, seed: tf.Tensor, *, pad: int) -> tf.Tensor:
    """CIFAR's standard: pad by zeros, crop at random to the former size."""
    shape = image.shape
    padded = tf.pad(image, [[pad, pad], [pad, pad], [0, 0]])
    return tf.image.stateless_random_crop(padded, shape, seed)


def resized_crop(
    image: tf.Tensor, seed: tf.Tensor, *, size: int, channels: int, least_area: float, reading: int = READING
) -> tf.Tensor:
    """Inception's crop: a share of the area from `least_area` to 1, aspect ratio 3/4-4/3, resized to `size`.

    Of a JPEG only the crop is decoded.
    """

    def window(shape: tf.Tensor) -> tf.Tensor:
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            tf.zeros([1, 0, 4]),
            seed,
            min_object_covered=0.0,
            area_range=(least_area, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            use_image_if_no_bounding_boxes=True,
        )
        return tf.stack([begin[0], begin[1], extent[0], extent[1]])

    def of_whole() -> tf.Tensor:
        whole = decode(image, channels, reading)
        top, left, height, width = tf.unstack(window(tf.shape(whole)))
        return whole[top : top + height, left : left + width]

    def of_jpeg() -> tf.Tensor:
        way = orientation(image) if reading >= READING else tf.constant(1)
        seen = turned_shape(tf.io.extract_jpeg_shape(image), way)
        crop = tf.io.decode_and_crop_jpeg(image, stored_window(window(seen), seen, way), channels=channels)
        return turned(crop, way)

    crop = tf.cond(tf.io.is_jpeg(image), of_jpeg, of_whole) if image.dtype == tf.string else of_whole()
    return resize(crop, size, channels)


def central_crop(image: tf.Tensor, *, size: int, channels: int, reading: int = READING) -> tf.Tensor:
    """The standard evaluation on ImageNet: the middle 87.5 % of the shorter side, resized to `size`."""
    image = decode(image, channels, reading)
    shape = tf.shape(image)
    side = tf.cast(0.875 * tf.cast(tf.minimum(shape[0], shape[1]), tf.float32), tf.int32)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    return resize(image[top : top + side, left : left + side], size, channels)


def resize(image: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    """uint8 [size, size, channels], bilinear."""
    resized = tf.image.resize(image, [size, size], method="bilinear", antialias=False)
    return tf.ensure_shape(tf.cast(tf.round(resized), tf.uint8), [size, size, channels])
