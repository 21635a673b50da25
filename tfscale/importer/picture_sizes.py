"""Pictures made smaller once, at their import: data.picture.shorter_side=512.

Owns the option, the new size, and the encoding of what was made smaller. Refuses to know labels and boxes, which are
shares of the sides and stay as they are.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from tfscale.errors import UsageError
from tfscale.importer.picture_check import Checked

_QUALITY = 95  # of a JPEG that is written anew


@dataclass
class PictureOptions:
    """What `data.picture.*` says.

    Attributes:
        shorter_side: pixels; a picture whose shorter side has more is made smaller, so that it has as many. None: all
            are kept as they are.
    """

    shorter_side: Optional[int] = None

    def check(self) -> None:
        """Raises UsageError."""
        if self.shorter_side is not None and self.shorter_side < 1:
            raise UsageError(
                f"no picture has a side of {self.shorter_side} pixels",
                where="data.picture.shorter_side",
                fix="data.picture.shorter_side=512, or leave it away",
            )

    def check_installed(self) -> None:
        """Raises UsageError where there is nothing that makes pictures smaller."""
        if self.shorter_side is None:
            return
        try:
            import PIL  # noqa: F401
        except ImportError:
            raise UsageError(
                "pictures are made smaller by Pillow, which isn't installed",
                where="data.picture.shorter_side",
                fix='pip install "tfscale[images]"',
            ) from None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) as a picture of this size is kept."""
        short, side = min(height, width), self.shorter_side
        if side is None or short <= side:
            return height, width
        return max(1, round(height * side / short)), max(1, round(width * side / short))


def made_smaller(picture: Checked, options: PictureOptions) -> Checked | None:
    """The picture as training sees it, so much smaller: a JPEG (quality 95) where it was one, else a PNG; None where it
    is small enough. Every pixel counts: by Pillow's bicubic filter, whose support grows with the ratio."""
    height, width = options.size(picture.height, picture.width)
    if (height, width) == (picture.height, picture.width):
        return None
    from PIL import Image

    small = Image.fromarray(np.asarray(picture.pixels)).resize((width, height), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    if picture.content.startswith(b"\xff\xd8\xff"):
        small.save(stream, "JPEG", quality=_QUALITY)
    else:
        small.save(stream, "PNG")
    return picture._replace(content=stream.getvalue(), height=height, width=width, pixels=np.asarray(small))


def smaller_told(options: PictureOptions, written: Sequence[Sequence[int]]) -> str:
    """What was made smaller, for people; "" where it wasn't asked for.

    Args:
        written: of each file how many pictures were, their bytes before and after.
    """
    if options.shorter_side is None:
        return ""
    count, before, after = (sum(numbers) for numbers in zip(*written, strict=True))
    side = f"{options.shorter_side} pixels on {'its' if not count else 'their'} shorter side"
    if not count:
        return f"no picture has more than {side}: none was made smaller"
    return f"{count:,} made smaller, to {side}: {before / 1e6:,.1f} MB became {after / 1e6:,.1f} MB"


def mask_made_smaller(mask: bytes, picture: Checked) -> bytes:
    """A mask of one channel at the size of its picture, without new numbers: each pixel's nearest; PNG."""
    from PIL import Image

    numbers = Image.fromarray(np.asarray(Image.open(io.BytesIO(mask), formats=["PNG"])))
    stream = io.BytesIO()
    numbers.resize((picture.width, picture.height), Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()
