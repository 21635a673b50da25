"""Which kind of source a path is.

Owns the list of kinds, in the order in which they are asked, and what is said where none fits. Refuses to know how a
kind is read: a `Reader` of another module does, which is imported once its kind is found.
"""

from __future__ import annotations

import glob
import importlib
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from tfscale.data.records import is_header
from tfscale.errors import DataMissing, UsageError, nearest
from tfscale.importer.import_request import ImportRequest
from tfscale.importer.picture_shapes import CLASSIFIED, SHAPES, shape_of
from tfscale.importer.reader import Reader
from tfscale.importer.text_options import ENDINGS, RECORDS, text_fields

_TOLD = 5  # files that are left out
_LOOKED_AT = 10  # files without an ending whose first bytes tell what they are
_PACKED = {"gz", "zst", "bz2", "xz"}
_RECORDS = re.compile(r"\.(tfrecords?|tfrec)([-_.]?\d+)?(-of-\d+)?(\.(gz|zlib))?$")
_DOCUMENTATION = re.compile(
    r"(?i)(readme|licen[cs]e|copying|notice|change_?log|citation|authors|contributing)"
    r"([_ -][^.]*)?((\.[\w-]{2,5})?\.(txt|text|md|rst))?"  # readme.de.md, and no authors.csv
)


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

    @property
    def is_zip(self) -> bool:
        return len(self.files) == 1 and self.files[0].is_file() and zipfile.is_zipfile(self.files[0])

    @cached_property
    def root(self) -> Path:
        """The folder below which the files have their names: of a pattern the part without signs."""
        first = self.files[0]
        if first.is_dir():
            return first
        if Path(self.path).exists() or not glob.has_magic(self.path):
            return first.parent
        parts = Path(self.path).parts
        return Path(*parts[: next(place for place, part in enumerate(parts) if glob.has_magic(part))])

    @cached_property
    def named(self) -> dict[str, Path]:
        """The files on the disk by their names below the root, sorted; those that programs keep for themselves only
        where they were asked for."""
        if self.is_folder:
            return {name: self.root / name for name in sorted(files_below(self.root))}
        return dict(sorted((os.path.relpath(file, self.root), file) for file in self.files))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the files in the folder or archive, below it; else of the files themselves. Sorted."""
        if not self.is_zip:
            return tuple(self.named)
        with zipfile.ZipFile(self.files[0]) as archive:
            members = [one.filename for one in archive.infolist() if not one.is_dir()]
        return tuple(sorted(name for name in members if not is_hidden(name)))

    @cached_property
    def content(self) -> tuple[str, ...]:
        """The names without those of documentation, where there are others."""
        return tuple(name for name in self.names if not is_documentation(name)) or self.names

    @cached_property
    def endings(self) -> Counter[str]:
        """How often each ending comes, such as "csv": small letters, what only packs a file left out."""
        return Counter(map(ending, self.content))

    @cached_property
    def pictures(self) -> str:
        """In which of SHAPES pictures lie there, "" where there are none."""
        return shape_of(self.files, self.names)

    def share(self, *endings: str) -> float:
        """Of the files, those with one of these endings."""
        return sum(self.endings[one] for one in endings) / max(1, len(self.content))


@dataclass(frozen=True)
class Kind:
    """One kind of source.

    Attributes:
        test: says in a few words what the source is, such as "a CSV file"; "" where it is none of this kind.
        reader: "module:Class" of its `Reader`, which is made from the request, what was found, and a folder for
            scratch files that is removed in the end: `Class(request, found, scratch)`.
        recipe: that trains on it; "" where none does. `words` stand behind it on the command line.
    """

    name: str
    test: Callable[[Found], str]
    reader: str
    recipe: str = ""
    words: str = "data=prepared"

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


def is_record_file(file: Path) -> bool:
    """Whether a file holds TFRecords, by its name or its first bytes."""
    if _RECORDS.search(file.name.lower()):
        return True
    try:
        with file.open("rb") as stream:
            return is_header(stream.read(12))
    except OSError:
        return False


def _is_records(found: Found) -> str:
    if found.is_zip or not found.content:
        return ""
    named = sum(bool(_RECORDS.search(name.lower())) for name in found.content)
    if not named and len(set(map(ending, found.content)) | {""}) == 1:  # no name tells anything
        some = list(found.named.values())[:_LOOKED_AT]
        named = len(found.content) if all(map(is_record_file, some)) else 0
    beside = {"json", "txt", "yaml", "pbtxt", "pb"}  # as TFDS and others describe records
    others = sum(ending(name) not in beside for name in found.content)
    if not named * 2 >= max(1, others):
        return ""
    return "TFRecord files that TFDS wrote" if "features.json" in found.named else "TFRecord files"


def _is_pictures(shape: str, found: Found) -> str:
    return SHAPES[shape] if found.pictures == shape else ""


def _is_text(found: Found) -> str:
    several = f" ({len(found.content)} files)" if len(found.content) > 1 else ""
    if found.names and found.share(*ENDINGS) > 0.5:
        return f"text{several}"
    if not found.names or found.share(*RECORDS) < 0.5:
        return ""
    first = (
        found.files[0] if found.is_zip else next(file for name, file in found.named.items() if ending(name) in RECORDS)
    )
    fields = text_fields(first) if ending(first.name) in RECORDS and first.is_file() else ()
    return f"JSON lines with {' and '.join(fields)}{several}" if fields else ""


# The first that says what it is has it.
KINDS = [
    *(
        Kind(
            shape,
            partial(_is_pictures, shape),
            "tfscale.importer.picture_reader:PictureReader",
            *(("resnet", "data=prepared task.augment=photos task.image_size=64") if shape in CLASSIFIED else ()),
        )
        for shape in SHAPES
    ),
    Kind("tfrecord", _is_records, "tfscale.importer.record_reader:RecordReader"),
    Kind("text", _is_text, "tfscale.importer.text_reader:TextReader", "text", ""),
    Kind("table", _is_table, "tfscale.importer.tables:TableReader", "tabular", ""),
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


def is_documentation(name: str) -> bool:
    """Whether a file tells of the data beside it: README.txt, LICENSE, CHANGELOG.md."""
    return bool(_DOCUMENTATION.fullmatch(PurePosixPath(name).name))


def left_beside(names: Collection[str], what: str) -> tuple[str, ...]:
    """What is said of files that are left out, such as a README beside a table; () of none.

    Args:
        what: those that are read are, such as "with texts".
    """
    if not names:
        return ()
    more = f" and {len(names) - _TOLD:,} more" if len(names) > _TOLD else ""
    return (f"files that are none {what}: {', '.join(sorted(names)[:_TOLD])}{more}",)


def files_below(folder: Path) -> Iterator[str]:
    """The names of all files at any depth that aren't hidden, through links, too, but none twice.

    Raises:
        DataMissing: a folder can't be read.
    """
    root = os.path.realpath(folder)

    def unreadable(error: OSError) -> None:
        raise DataMissing(f"can't be read: {error.strerror}", where=str(error.filename), fix="mend or remove it")

    for at, inside, names in os.walk(folder, onerror=unreadable, followlinks=True):
        inside[:] = [name for name in inside if not is_hidden(name) and not _leads_back(Path(at, name), root)]
        yield from (os.path.relpath(os.path.join(at, name), folder) for name in names if not is_hidden(name))


def _leads_back(folder: Path, root: str) -> bool:
    """Whether a link leads to a folder that is read anyway, or to one that it lies in."""
    if not folder.is_symlink():
        return False
    target, here = f"{folder.resolve()}{os.sep}", f"{folder.parent.resolve()}{os.sep}"
    return target.startswith(f"{root}{os.sep}") or f"{root}{os.sep}".startswith(target) or here.startswith(target)
