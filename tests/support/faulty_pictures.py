"""Pictures of every kind that people have, and those with something wrong, by the names of their files."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

PIL = pytest.importorskip("PIL.Image")


def image(seed=0, size=(30, 20)):
    small = np.random.RandomState(seed).randint(0, 256, (3, 4, 3), np.uint8)
    return PIL.fromarray(small).resize(size, PIL.Resampling.BILINEAR)


def encode(picture, kind="JPEG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def put(root, files):
    """Files by relative name: bytes, a text, JSON, or a seed for a JPEG."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, int):
            content = encode(image(content))
        elif isinstance(content, dict):
            content = json.dumps(content)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def with_orientation(way):
    picture = image(5)
    record = picture.getexif()
    record[0x112] = way
    return encode(picture, exif=record)


def see_through():
    picture = image(9).convert("RGBA")
    picture.putalpha(PIL.new("L", picture.size, 100))
    return picture


GREY16 = PIL.fromarray((np.arange(600).reshape(20, 30) * 100).astype(np.uint16))
PALETTE_BMP = encode(image(1).convert("P"), "BMP")
BAD = {
    "broken.bmp": (b"BM>\xff" + PALETTE_BMP[4:17] + b"\xff" + PALETTE_BMP[18:], "a BMP with a broken header"),
    "truncated.jpg": (encode(image(1))[:-20], "can't be decoded"),
    "empty.jpg": (b"", "the file is empty"),
    "text.jpg": (b"dear diary\n" * 9, "neither JPEG"),
    "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(20), "but HEIC"),
    "bomb.png": (encode(PIL.new("1", (20_000, 5_000)), "PNG"), "claims 20000 x 5000 pixels"),
    "broken.tif": (encode(image(), "TIFF")[:700], "Pillow can't decode it either"),
    "float.tif": (encode(image().convert("F"), "TIFF"), "numbers of 32 bits"),
}
ODD = {
    "cmyk.jpg": (encode(image(2).convert("CMYK")), "CMYK, seen as RGB"),
    "sixteen.png": (encode(GREY16, "PNG"), "16 bits a channel"),
    "palette.png": (encode(image(3).convert("P", palette=PIL.Palette.ADAPTIVE, colors=50), "PNG"), "a palette"),
    "turned.jpg": (with_orientation(6), "orientation 6"),
    "panorama.jpg": (encode(PIL.new("RGB", (20_000, 1_000))), "times as long as the other (20000 x 1000 pixels)"),
    "scan.tif": (encode(image(4), "TIFF"), "TIFF, which TensorFlow doesn't decode: kept as PNG, without loss"),
    "print.tif": (encode(image(4).convert("CMYK"), "TIFF"), "kept as PNG, turned from CMYK into RGB"),
    "new.avif": (encode(image(6), "AVIF"), "AVIF, which TensorFlow doesn't decode"),
    "clear.webp": (encode(see_through(), "WEBP", lossless=True, exact=True), "WebP, which TensorFlow doesn't decode"),
    "clear.png": (encode(see_through(), "PNG"), "transparent parts"),
    "moving.gif": (encode(image(7), "GIF", save_all=True, append_images=[image(8)]), "an animation"),
    "dot.png": (encode(image(size=(2, 2)), "PNG"), "less than 8 pixels wide and high (2 x 2)"),
}
