"""What a source of pictures holds, before any is decoded.

Owns where an item's bytes lie, what is known of it, and finding the picture that a table or an annotation names.
Refuses to know what is inside the bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tfscale.data.folder_tree import read_flat
from tfscale.data.pictures import DECODED

# What counts as a picture here: also what Pillow may turn into a PNG, and what is named as bad where it can't.
KINDS = (*DECODED, "TIFF", "AVIF", "HEIC", "JPEG 2000", "JPEG XL")


class Span(NamedTuple):
    """Bytes in a file: all of it, or a member of an archive that is read in place."""

    file: str
    offset: int = 0
    size: int = -1

    def content(self) -> bytes:
        """Raises OSError."""
        with open(self.file, "rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


class Box(NamedTuple):
    left: float  # pixels, as are the others; the picture's own corner is 0, 0
    top: float
    right: float
    bottom: float
    label: int
    flags: tuple[bool, ...] = ()


class Boxes(NamedTuple):
    width: int  # of the picture that they were drawn on; 0: not said
    height: int
    rows: tuple[Box, ...]


class Item(NamedTuple):
    name: str  # for people, and the record's "file"
    span: Span
    split: str = ""
    label: int = -1
    bad: str = ""  # why it can't be an example, where that is known already
    mask: Span | None = None
    boxes: Boxes | None = None


@dataclass
class PictureSet:
    """What there is.

    Attributes:
        kind: of the source.
        items: in an order that is the same every time.
        classes: the names of the labels, in their order.
        files: that were read besides the pictures, by their names.
        left_out: what was left out, for people.
        flags: what boxes say besides their class, such as "is_crowd".
        in_place: whether the pictures are parts of `files`.
        entered: the folder below the source that was read in its place.
    """

    kind: str
    items: list[Item]
    classes: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    flags: tuple[str, ...] = ()
    in_place: bool = False
    entered: str = ""


class PictureIndex:
    """The pictures below a folder, found by the names that tables and annotations give them.

    A name is looked up among what there is, so that none leads out of the folder.
    """

    def __init__(self, root: Path):
        """Raises DataMissing where there is no picture."""
        tree = read_flat(root, kinds=KINDS)
        self.root, self.left_out = root, list(tree.left_out)
        self.names = [picture.name.replace(os.sep, "/") for picture in tree.pictures()]
        self._paths = {name: name for name in self.names}
        self._plain: dict[str, str] = {}
        self._files: dict[str, list[str]] = {}
        for name in self.names:
            self._plain.setdefault(stem_of(name), name)
            for part in (name.rpartition("/")[2], stem_of(name.rpartition("/")[2])):
                self._files.setdefault(part, []).append(name)

    def span(self, name: str) -> Span:
        return Span(str(self.root / name))

    def left_out_but(self, read: Mapping[str, int]) -> list[str]:
        """What is left out where so many files of these endings are read besides the pictures."""
        said = []
        for line in self.left_out:
            count, _, what = line.partition(" ")
            left = int(count) - read[what] if what in read else 1
            if left > 0:
                said.append(f"{left} {what}" if what in read else line)
        return said

    def find(self, told: str, near: Iterable[str] = ()) -> str | None:
        """The picture's name below the root; None where there is none, or several.

        Args:
            told: a path below one of the folders `near` or the root, with or without its ending, or a file's name.
            near: folders below the root.
        """
        told = os.path.normpath(told.strip().replace("\\", "/"))
        for folder in (*near, ""):
            path = os.path.normpath(os.path.join(folder, told))
            if path in self._paths or path in self._plain:
                return self._paths.get(path) or self._plain[path]
        found = self._files.get(told.rpartition("/")[2], [])
        return found[0] if len(set(found)) == 1 else None


def stem_of(name: str) -> str:
    """A path without the ending of its file."""
    return os.path.splitext(name)[0]


def counted(count: int, what: str, more: str = "") -> str:
    """ "1 picture without a row", "2 pictures without a row"."""
    plural = "" if count == 1 else "es" if what.endswith("x") else "s"
    return f"{count:,} {what}{plural}{more}"
