"""Whether files are pictures that training can decode.

Owns the check of one file: its header first, so that a false one takes no memory, then a whole decoding by the decoder
that training uses. Refuses to know splits and classes.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tfscale.data.source import READING
from tfscale.errors import first_line

if TYPE_CHECKING:
    import tensorflow as tf

MAX_PIXELS = 89478485  # of one picture; Pillow's limit against bombs
DECODED = ("JPEG", "PNG", "GIF", "BMP", "WebP")  # what TensorFlow decodes
HEAD = 132  # bytes of a file that tell its kind
_HEADER = 2**18  # bytes of a file in which its size stands, behind what a camera writes before it
_AT_ONCE = 4096  # files handed to the threads together
_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"8BPS": "Photoshop",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
}
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}
_BRANDS |= {b"avif": "AVIF", b"avis": "AVIF"}
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes, behind the file's own header of 14 bytes


def kind_of(head: bytes) -> str | None:
    """Which kind of picture a file is by its first bytes: one of `DECODED`, or a name of another; None: no picture."""
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    return "DICOM" if head[128:132] == b"DICM" else None


def verify_pictures(
    files: Sequence[Path], *, channels: int, max_pixels: int, threads: int, reading: int = READING
) -> Iterator[tuple[int, int] | str]:
    """(height, width) of every file, or why training couldn't decode it; in the order of the files."""

    def verify(file: Path) -> tuple[int, int] | str:
        return verify_picture(file, channels=channels, max_pixels=max_pixels, reading=reading)

    with ThreadPoolExecutor(threads) as pool:  # TensorFlow's decoders let go of Python's lock
        for start in range(0, len(files), _AT_ONCE):
            yield from pool.map(verify, files[start : start + _AT_ONCE])


def verify_picture(file: Path, *, channels: int, max_pixels: int, reading: int = READING) -> tuple[int, int] | str:
    """(height, width), or the reason why the file is no picture."""
    try:
        content = file.read_bytes()
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return verify_content(content, channels=channels, max_pixels=max_pixels, reading=reading)


def verify_content(content: bytes, *, channels: int, max_pixels: int, reading: int = READING) -> tuple[int, int] | str:
    """(height, width) as training sees it, or the reason why these bytes are no picture."""
    pixels = decoded_content(content, channels=channels, max_pixels=max_pixels, reading=reading)
    if isinstance(pixels, str):
        return pixels
    height, width, _ = pixels.shape
    return height, width


def decoded_content(content: bytes, *, channels: int, max_pixels: int, reading: int = READING) -> tf.Tensor | str:
    """uint8 [height, width, channels] as training sees it, or the reason why these bytes are no picture."""
    import tensorflow as tf

    if not content:
        return "the file is empty"
    try:
        with tf.device("CPU:0"):
            claimed = claimed_size(content)
            if claimed is None:
                other = kind_of(content[:HEAD])
                return f"neither JPEG, PNG, GIF, BMP nor WebP{f', but {other}' if other else ''}"
            if content.startswith(b"BM") and (fault := _bmp_fault(content)):
                return fault
            if claimed[0] * claimed[1] > max_pixels:
                return f"claims {claimed[1]} x {claimed[0]} pixels, more than {max_pixels} in all"
            return _decoder(channels, reading)(tf.constant(content))
    except (tf.errors.OpError, struct.error) as error:
        return f"can't be decoded: {_cause(error)}"


@functools.cache
def _decoder(channels: int, reading: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """What training decodes by, traced once: from encoded bytes to uint8 [height, width, channels]."""
    import tensorflow as tf

    from tfscale.data.augment import decode

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.string)])
    def decoded(content):
        return decode(content, channels, reading)

    return decoded


def _bmp_fault(content: bytes) -> str:
    """Why TensorFlow would read something else in this BMP than there is, or ""."""
    (header,) = struct.unpack_from("<I", content, 14)
    if header < 40:
        return "a BMP with a header of OS/2, which can't be decoded"
    if header not in _BMP_HEADERS:
        return "a BMP with a broken header"
    bits, compression = struct.unpack_from("<HI", content, 28)
    if bits < 8:
        return f"a BMP of {bits} bits a pixel, which can't be decoded"
    return "a compressed BMP, which can't be decoded" if compression not in (0, 3) else ""


def claimed_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) as the header says, or None for an unknown kind; raises struct.error or tf.errors.OpError."""
    if content.startswith(b"\xff\xd8\xff"):
        import tensorflow as tf

        height, width, _ = tf.image.extract_jpeg_shape(content).numpy()
        return int(height), int(width)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack_from(">II", content, 16)
    elif content.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", content, 6)
    elif content.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", content, 18)
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _webp_size(content)
    else:
        return None
    return abs(height), abs(width)  # a BMP that runs from top to bottom has a negative height


def size_of_file(file: Path) -> tuple[int, int]:
    """(height, width) as the header says, told without TensorFlow; (0, 0) where it doesn't say so."""
    try:
        with file.open("rb") as stream:
            return size_of(stream.read(_HEADER))
    except OSError:
        return 0, 0


def size_of(content: bytes) -> tuple[int, int]:
    """The same of a file's first bytes."""
    try:
        if content.startswith(b"\xff\xd8\xff"):
            return (jpeg_frame(content[:_HEADER]) or (0, 0, 0))[:2]
        return claimed_size(content) or (0, 0)
    except struct.error:
        return 0, 0


def jpeg_frame(content: bytes) -> tuple[int, int, int] | None:
    """(height, width, channels) of a JPEG's frame, behind whatever other segments there are; raises struct.error."""
    place = 2
    while place + 4 <= len(content):
        marker, length = struct.unpack_from(">HH", content, place)
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            return struct.unpack_from(">HHB", content, place + 5)
        place += 2 + length
    return None


def _webp_size(content: bytes) -> tuple[int, int]:
    """Of its three kinds of first chunk: lossy, lossless, extended (RFC 9649)."""
    kind = content[12:16]
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return 1 + ((bits >> 14) & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", content, 24)
        return 1 + low_h + (high_h << 16), 1 + low_w + (high_w << 16)
    width, height = struct.unpack_from("<HH", content, 26)
    return height & 0x3FFF, width & 0x3FFF


def _cause(error: Exception) -> str:
    """TensorFlow's message without the names of its nodes, nor what stands around it in a graph's."""
    return re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:\w+\].*", "", first_line(error))
