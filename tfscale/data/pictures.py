"""Whether files are pictures that training can decode.

Owns the check of one file: its header first, so that a false one takes no memory, then a whole decoding by the decoder
that training uses. Refuses to know splits and classes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tfscale.errors import first_line

MAX_PIXELS = 89478485  # of one picture; Pillow's limit against bombs
_HEADER = 2**18  # bytes of a file in which its size stands, behind what a camera writes before it
_AT_ONCE = 4096  # files handed to the threads together


def verify_pictures(
    files: Sequence[Path], *, channels: int, max_pixels: int, threads: int
) -> Iterator[tuple[int, int] | str]:
    """(height, width) of every file, or why training couldn't decode it; in the order of the files."""

    def verify(file: Path) -> tuple[int, int] | str:
        return verify_picture(file, channels=channels, max_pixels=max_pixels)

    with ThreadPoolExecutor(threads) as pool:  # TensorFlow's decoders let go of Python's lock
        for start in range(0, len(files), _AT_ONCE):
            yield from pool.map(verify, files[start : start + _AT_ONCE])


def verify_picture(file: Path, *, channels: int, max_pixels: int) -> tuple[int, int] | str:
    """(height, width), or the reason why the file is no picture."""
    try:
        content = file.read_bytes()
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return verify_content(content, channels=channels, max_pixels=max_pixels)


def verify_content(content: bytes, *, channels: int, max_pixels: int) -> tuple[int, int] | str:
    """(height, width), or the reason why these bytes are no picture."""
    import tensorflow as tf

    from tfscale.data.augment import decode

    if not content:
        return "the file is empty"
    try:
        with tf.device("CPU:0"):
            claimed = claimed_size(content)
            if claimed is None:
                return "neither JPEG, PNG, GIF, BMP nor WebP"
            if claimed[0] * claimed[1] > max_pixels:
                return f"claims {claimed[1]} x {claimed[0]} pixels, more than {max_pixels} in all"
            height, width, _ = decode(tf.constant(content), channels).shape
    except (tf.errors.OpError, struct.error) as error:
        return f"can't be decoded: {_cause(error)}"
    return height, width


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
            content = stream.read(_HEADER)
        size = _jpeg_size(content) if content.startswith(b"\xff\xd8\xff") else claimed_size(content)
    except (OSError, struct.error):
        return 0, 0
    return size or (0, 0)


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Of the frame's header, behind whatever other segments there are."""
    place = 2
    while place + 4 <= len(content):
        marker, length = struct.unpack_from(">HH", content, place)
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", content, place + 5)
            return height, width
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
    """TensorFlow's message without the names of its nodes."""
    return (
        re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:\w+\].*", "", str(error).splitlines()[0]) if str(error) else first_line(error)
    )
