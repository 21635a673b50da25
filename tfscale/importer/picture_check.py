"""One look at a picture before it becomes a record: whether training can decode it, and what it sees otherwise.

Owns the whole decoding by TensorFlow, the only one of an import, whose pixels others take, too; the re-encoding of
what only Pillow decodes; and the reasons for which a picture is odd: they say what training sees. Refuses to know
where a picture comes from.
"""

from __future__ import annotations

import functools
import io
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfscale.data.pictures import HEAD, MAX_PIXELS, decoded_content, jpeg_frame, kind_of
from tfscale.errors import first_line

if TYPE_CHECKING:
    import tensorflow as tf

CHANNELS, ALPHA = 3, 4
# What Pillow may read, by our names and its own: never what starts another program, as its PostScript does.
_BY_PILLOW = {"TIFF": "TIFF", "AVIF": "AVIF", "JPEG 2000": "JPEG2000", "BMP": "BMP", "WebP": "WEBP"}
_AS_IT_IS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B", "I;16L")  # modes that a PNG holds
_LONG = 4  # times as long as the other side
_SMALL = 8  # pixels
_COLOURS_WITH_ALPHA = (b"\4", b"\6")  # PNG's kinds of colour with a channel for it


class Checked(NamedTuple):
    """A picture that training can decode.

    Attributes:
        content: as it is kept.
        height, width: as training sees it.
        pixels: uint8 [height, width, 3], which training sees.
        reasons: for which it is odd.
    """

    content: bytes
    height: int
    width: int
    pixels: tf.Tensor
    reasons: tuple[str, ...]


def checked(content: bytes) -> Checked | str:
    """What is kept of an encoded picture, or why training couldn't decode it."""
    pixels = _decoded(content)
    reasons = []
    if isinstance(pixels, str):
        kind = kind_of(content[:HEAD])
        if kind not in _BY_PILLOW:
            return pixels
        again = _as_png(content, kind)
        if isinstance(again, str):
            return f"{pixels}; {again}"
        content, how = again
        reasons.append(f"{kind}, which TensorFlow doesn't decode: kept as PNG, {how}")
        pixels = _decoded(content)
        if isinstance(pixels, str):
            return pixels
    height, width, channels = pixels.shape
    reasons += _oddities(content, pixels)
    return Checked(content, height, width, pixels[..., :CHANNELS] if channels > CHANNELS else pixels, tuple(reasons))


def _decoded(content: bytes) -> tf.Tensor | str:
    """[height, width, 3], or 4 channels where a PNG has them: the first three are the same ones."""
    channels = ALPHA if kind_of(content[:HEAD]) == "PNG" and _has_alpha(content) else CHANNELS
    return decoded_content(content, channels=channels, max_pixels=MAX_PIXELS)


def _as_png(content: bytes, kind: str) -> tuple[bytes, str] | str:
    """A PNG of the same pixels and how that was done, or why Pillow can't."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return 'Pillow may decode it: pip install "tfscale[images]"'
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which we bound ourselves, and of odd tags
            picture = Image.open(io.BytesIO(content), formats=[_BY_PILLOW[kind]])
            if picture.width * picture.height > MAX_PIXELS:
                return f"claims {picture.width} x {picture.height} pixels, more than {MAX_PIXELS} in all"
            pages = getattr(picture, "n_frames", 1)
            seen = ImageOps.exif_transpose(picture)
            how = "without loss"
            if seen.mode not in _AS_IT_IS:
                if seen.mode in ("I", "F"):
                    return f"its pixels are numbers of 32 bits (Pillow's mode {seen.mode}), not colours"
                how = f"turned from {seen.mode} into RGB"
                seen = seen.convert("RGB")
            stream = io.BytesIO()
            seen.save(stream, "PNG", exif=b"")
    except Exception as error:  # Pillow's decoders raise whatever they meet in a broken file
        return f"Pillow can't decode it either: {first_line(error)}"
    return stream.getvalue(), how + (f", the first of several pictures in it ({pages})" if pages > 1 else "")


def _oddities(content: bytes, pixels: tf.Tensor) -> Iterator[str]:
    """What training sees otherwise than people may think."""
    kind = kind_of(content[:HEAD])
    yield from {"JPEG": _of_jpeg, "PNG": _of_png, "GIF": _of_gif}.get(kind or "", lambda _: iter(()))(content)
    height, width, channels = pixels.shape
    if channels == ALPHA and (pixels[..., CHANNELS].numpy() < 255).any():
        yield "transparent parts, seen in the colours that lie below"
    way = _orientation(content)
    if way > 1:
        yield f"turned as its EXIF record says (orientation {way})"
    long, short = max(height, width), min(height, width)
    if long > _LONG * short:
        yield f"one side more than {_LONG} times as long as the other ({width} x {height} pixels)"
    elif long < _SMALL:
        yield f"less than {_SMALL} pixels wide and high ({width} x {height})"


def _of_jpeg(content: bytes) -> Iterator[str]:
    frame = jpeg_frame(content)
    if frame and frame[2] == 4:
        yield "CMYK, seen as RGB without its colour profile"


def _of_png(content: bytes) -> Iterator[str]:
    depth, colours = content[24], content[25]
    if depth == 16:
        yield "16 bits a channel, of which the upper 8 are seen"
    if colours == 3:
        yield "a palette, seen as the RGB of its colours"
    if b"acTL" in _chunks(content):
        yield "an animation, of which the first picture is seen"


def _has_alpha(content: bytes) -> bool:
    """Whether a PNG may be transparent in parts."""
    return content[25:26] in _COLOURS_WITH_ALPHA or b"tRNS" in _chunks(content)


def _chunks(content: bytes) -> Iterator[bytes]:
    """The kinds of a PNG's chunks before its pixels."""
    at = 8
    while at + 8 <= len(content) and content[at + 4 : at + 8] != b"IDAT":
        yield content[at + 4 : at + 8]
        at += 12 + struct.unpack_from(">I", content, at)[0]


def _of_gif(content: bytes) -> Iterator[str]:
    if sum(1 for _ in zip(_frames(content), range(2), strict=False)) > 1:
        yield "an animation, of which the first picture is seen"


def _frames(content: bytes) -> Iterator[int]:
    """The places of a GIF's pictures, told by its blocks."""

    def behind_table(flags: int) -> int:
        return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0

    def behind_blocks(at: int) -> int:
        while content[at]:
            at += 1 + content[at]
        return at + 1

    try:
        at = 13 + behind_table(content[10])
        while content[at] in (0x21, 0x2C):
            if content[at] == 0x2C:
                yield at
                at = behind_blocks(at + 11 + behind_table(content[at + 9]))
            else:
                at = behind_blocks(at + 2)
    except IndexError:  # it ends early, which decoders forgive behind the first picture
        return


def _orientation(content: bytes) -> int:
    if not any(mark in content for mark in (b"Exif", b"EXIF", b"eXIf")):
        return 1
    import tensorflow as tf

    with tf.device("CPU:0"):
        return int(_way()(tf.constant(content)))


@functools.cache
def _way() -> Callable[..., Any]:
    """What training asks, traced once."""
    import tensorflow as tf

    from tfscale.data.orientation import orientation

    return tf.function(orientation, autograph=False, input_signature=[tf.TensorSpec([], tf.string)])


def checked_mask(content: bytes, picture: Checked) -> tuple[bytes, list[str]] | str:
    """A PNG of one channel with the number of each pixel's class, and what was done; or why it can't be that.

    A palette is left away: its colours are for people, and the numbers below them are the classes.
    """
    try:
        from PIL import Image

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mask = Image.open(io.BytesIO(content), formats=["PNG", "TIFF", "BMP", "GIF", "JPEG"])
            if mask.size != (picture.width, picture.height):
                return f"its mask has {mask.width} x {mask.height} pixels, and it {picture.width} x {picture.height}"
            kind, mode, numbers = mask.format, mask.mode, np.asarray(mask)
    except ImportError:
        return 'masks are read by Pillow: pip install "tfscale[images]"'
    except Exception as error:
        return f"its mask can't be decoded: {first_line(error)}"
    if kind == "JPEG":
        return "its mask is a JPEG, which changes the numbers in it: write it as PNG"
    reasons = []
    if numbers.ndim == 3:
        colours = numbers[..., :1] if mode in ("LA", "PA") else numbers[..., :3]
        if (colours != colours[..., :1]).any():
            return "its mask has colours, not the number of a class for each pixel"
        numbers = colours[..., 0]
        reasons.append("a mask of several channels, of which one is kept")
    if numbers.min() < 0 or numbers.max() > 255:
        return f"its mask has the number {int(numbers.max())}, and 255 is the most"
    if kind == "PNG" and mode == "L" and not reasons:
        return content, reasons
    stream = io.BytesIO()
    Image.fromarray(numbers.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue(), reasons
