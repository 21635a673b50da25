"""A picture as cameras store it that are held in eight ways, and as it is to be seen."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image as PIL

HEIGHT, WIDTH = 24, 40


def upright():
    """Red grows downwards, green to the right: smooth, and of no symmetry."""
    rows, columns = np.meshgrid(np.linspace(0, 255, HEIGHT), np.linspace(0, 255, WIDTH), indexing="ij")
    return PIL.fromarray(np.stack([rows, columns, 90 + 0 * rows], -1).astype(np.uint8))


def stored(way, kind="JPEG", endian="<"):
    """The upright picture as a camera that was held like this stores it."""
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
             7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    picture = upright().transpose(PIL.Transpose[turns[way]]) if way in turns else upright()
    exif = PIL.Exif()
    exif.endian = endian
    exif[0x010F], exif[0x0112], exif[0x0131] = "Maker", way, "Program"
    stream = io.BytesIO()
    picture.save(
        stream,
        kind,
        exif=exif.tobytes(),
        **({"lossless": True} if kind == "WEBP" else {"quality": 98, "subsampling": 0}),
    )
    return stream.getvalue()
