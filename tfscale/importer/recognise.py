"""Which kind of source a path is.

Owns the list of kinds, in the order in which they are asked, and what is said where none fits. Refuses to know how a
kind is read: a `Reader` of another module does, which is imported once its kind is found.
"""

from __future__ import annotations

import glob
import importlib
import itertools
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from tfscale.errors import DataMissing, UsageError, nearest
from tfscale.importer.import_request import ImportRequest
from tfscale.importer.picture_shapes import SHAPES, shape_of
from tfscale.importer.reader import Reader
from tfscale.importer.text_options import ENDINGS, RECORDS, text_fields

_MOST = 20_000  # names that are looked at
_PACKED = {"gz", "zst", "bz2", "xz"}


@dataclass(frozen=True)
class Found:
    """What lies at a path, before any file is read.

    Attributes:
        path: as it was given: a file, a folder or a pattern.
        files: what is read: the file, those that fit the pattern, or the folder itself.
    """

    path: str
    files: tuple[Path, ...]

    @property
    def is_folder(self) -> bool:
        return self.files[0].is_dir()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the files in the folder or archive, below it; else of the files themselves. Sorted, 20,000 at most."""
        first = self.files[0]
        if first.is_dir():
            found = (
                os.path.relpath(os.path.join(at, name), first) for at, _, names in os.walk(first) for name in names
            )
            return tuple(sorted(name for name in itertools.islice(found, _MOST) if not is_hidden(name)))
        if len(self.files) == 1 and zipfile.is_zipfile(first):
            with zipfile.ZipFile(first) as archive:
                members = [one.filename for one in archive.infolist() if not one.is_dir()]
            return tuple(sorted(name for name in members[:_MOST] if not is_hidden(name)))
        return tuple(sorted(file.name for file in self.files))

    @cached_property
    def endings(self) -> Counter[str]:
        """How often each ending comes, such as "csv": small letters, what only packs a file left out."""
        return Counter(map(ending, self.names))

    @cached_property
    def pictures(self) -> str:
        """In which of SHAPES pictures lie there, "" where there are none."""
        return shape_of(self.files, self.names)

    def share(self, *endings: str) -> float:
        """Of the files, those with one of these endings."""
        return sum(self.endings[one] for one in endings) / max(1, len(self.names))


@dataclass(frozen=True)
class Kind:
    """One kind of source.

    Attributes:
        test: says in a few words what the source is, such as "a CSV file"; "" where it is none of this kind.
        reader: "module:Class" of its `Reader`, which is made from the request, what was found, and a folder for
            scratch files that is removed in the end: `Class(request, found, scratch)`.
        trained_by: the words of a command line that trains on it, but for the name.
    """

    name: str
    test: Callable[[Found], str]
    reader: str
    trained_by: str = "data=prepared"

    def load(self) -> Callable[[ImportRequest, Found, Path], Reader]:
        module, _, name = self.reader.partition(":")
        made: Any = getattr(importlib.import_module(module), name)
        return made


def ending(name: str) -> str:
    """ "csv" of "a/B.CSV.gz"."""
    parts = [part.lower() for part in PurePosixPath(name).name.split(".")[1:]]
    if len(parts) > 1 and parts[-1] in _PACKED:
        parts.pop()
    return parts[-1] if parts else ""


def _is_table(found: Found) -> str:
    words = {"csv": "CSV", "tsv": "TSV", "tab": "TSV", "parquet": "Parquet", "pq": "Parquet",
             "jsonl": "JSON lines", "ndjson": "JSON lines", "npz": "NumPy arrays", "npy": "a NumPy array"}  # fmt: skip
    known = Counter({words[one]: count for one, count in found.endings.items() if one in words})
    if not known or found.share(*words) < 0.5:
        return ""
    kind, count = known.most_common(1)[0]
    where = "a folder of " if found.is_folder else ""
    return f"{where}{kind}" + (f" ({count} files)" if count > 1 else "")


def _is_pictures(shape: str, found: Found) -> str:
    return SHAPES[shape] if found.pictures == shape else ""


def _is_text(found: Found) -> str:
    several = f" ({len(found.names)} files)" if len(found.names) > 1 else ""
    if found.names and found.share(*ENDINGS) > 0.5:  # a README beside a table is none
        return f"text{several}"
    if not found.names or found.share(*RECORDS) < 0.5:
        return ""
    first = found.files[0] / found.names[0] if found.is_folder else found.files[0]
    fields = text_fields(first) if ending(first.name) in RECORDS and first.is_file() else ()
    return f"JSON lines with {' and '.join(fields)}{several}" if fields else ""


# The first that says what it is has it.
KINDS = [
    *(Kind(shape, partial(_is_pictures, shape), "tfscale.importer.picture_reader:PictureReader") for shape in SHAPES),
    Kind("text", _is_text, "tfscale.importer.text_reader:TextReader", "task=text data=text"),
    Kind("table", _is_table, "tfscale.importer.tables:TableReader", "task=tabular data=prepared"),
]


def look(path: str) -> Found:
    """What lies there; raises DataMissing."""
    given = Path(path)
    if given.exists():
        return Found(path, (given,))
    files = tuple(Path(name) for name in sorted(glob.glob(path, recursive=True)) if os.path.isfile(name))
    if files:
        return Found(path, files)
    beside = [one.name for one in given.parent.glob("*")] if given.parent.is_dir() else []
    raise DataMissing(
        f"there is no file, folder or pattern {path}{nearest(given.name, beside)}",
        where="PATH",
        fix="tfscale data import PATH with what is to be read",
    )


def recognised(request: ImportRequest) -> tuple[Kind, Found, str]:
    """(the kind, what was found, what it is in a few words); raises DataMissing, UsageError."""
    names = [kind.name for kind in KINDS]
    if request.kind is not None and request.kind not in names:
        raise UsageError(
            f"there is no kind {request.kind!r}{nearest(request.kind, names)}",
            where="data.kind",
            fix=f"the kinds are {', '.join(names)}",
        )
    found = look(request.path)
    for kind in KINDS:
        if request.kind in (None, kind.name) and (told := kind.test(found)):
            return kind, found, told
    if request.kind is not None:
        return next(kind for kind in KINDS if kind.name == request.kind), found, f"read as {request.kind}, as told"
    seen = ", ".join(f"{count} .{name}" if name else f"{count} without an ending" for name, count in
                     found.endings.most_common(5))  # fmt: skip
    raise DataMissing(
        f"it is none of what can be imported ({seen or 'it is empty'})",
        where=request.path,
        fix=f"say what it is: data.kind={' or '.join(names)}",
    )


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder on the way to it, is what programs keep for themselves: .git, .ipynb_checkpoints."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
