"""Thumbnails: pictures made small, and as an address that holds all of them, for pages that open without a network."""

from __future__ import annotations

import base64

import numpy as np

SIDE = 160  # points of the longer side


def small(picture: np.ndarray, side: int = SIDE) -> np.ndarray:
    """A picture, uint8 [height, width, channels], of at most so many points a side."""
    import tensorflow as tf

    scale = side / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = [max(1, round(length * scale)) for length in picture.shape[:2]]
    resized = tf.image.resize(picture, size, method="area")
    shown: np.ndarray = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8).numpy()
    return shown


def address(picture: np.ndarray, *, exact: bool = False) -> str:
    """The picture in a data: address, as a JPEG, or as a PNG that shows each point as it is."""
    import tensorflow as tf

    content = tf.io.encode_png(picture) if exact else tf.io.encode_jpeg(picture, quality=85)
    return f"data:image/{'png' if exact else 'jpeg'};base64,{base64.b64encode(content.numpy()).decode()}"
