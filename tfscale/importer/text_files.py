"""The files of an import of texts: found, unpacked where they are packed, and the splits that their names tell.

Owns which files count. Refuses to know what is in them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tfscale.errors import DataCorrupt, DataMissing, UsageError
from tfscale.importer.recognise import Found, ending, files_below, is_documentation, left_beside
from tfscale.importer.text_options import BROKEN, ENDINGS, OPENERS, RECORDS
from tfscale.importer.unpack import is_zip, unpacked

_PACKED = (*OPENERS, ".zst")


@dataclass(frozen=True)
class Texts:
    """The files of an import of texts.

    Attributes:
        root: the folder that their names begin below.
        files: those with texts, unpacked where they were packed.
        left_out: what is said of those that aren't read, a line each.
    """

    root: Path
    files: list[Path]
    left_out: tuple[str, ...] = ()


def find_texts(found: Found, scratch: Path) -> Texts:
    """What is packed is unpacked into `scratch`.

    Raises:
        DataMissing: there is no text. DataCorrupt: a file can't be unpacked. UsageError: they are of two kinds.
    """
    named, root = found.named, found.root
    if found.is_zip or (is_zip(found.files[0]) and len(found.files) == 1):
        root = unpacked(found.files[0], scratch)
        named = {name: root / name for name in sorted(files_below(root))}
    known = [name for name in named if ending(name) in (*ENDINGS, *RECORDS)]
    known = [name for name in known if not is_documentation(name)] or known
    if any(ending(name) in RECORDS for name in known):
        plain = [name for name in known if ending(name) not in RECORDS]
        if len(plain) * 2 > len(known):
            raise UsageError("it holds texts and JSON lines", where=found.path, fix="give a pattern of one: '*.txt'")
        known = [name for name in known if name not in plain]
    if not known and not found.is_folder and not found.is_zip:
        known = list(named)  # texts by whatever name, where data.kind says so
    if not known:
        raise DataMissing(
            "it holds no text", where=found.path, fix=f"give files that end in {', '.join((*ENDINGS, *RECORDS))}"
        )
    left_out = left_beside(set(named) - set(known), "with texts")
    files = [named[name] for name in known]
    if not any(file.suffix.lower() in _PACKED for file in files):
        return Texts(root, files, left_out)
    texts = scratch / "texts"
    return Texts(texts, [_plain(named[name], texts / name) for name in known], left_out)


def _plain(file: Path, target: Path) -> Path:
    """The file as it was before it was packed, below the scratch folder."""
    opener = OPENERS.get(file.suffix.lower())
    target.parent.mkdir(parents=True, exist_ok=True)
    if opener is None and file.suffix.lower() in _PACKED:
        raise UsageError(
            f"texts in {file.suffix} aren't unpacked", where=str(file), fix=f"unpack it, or use {', '.join(OPENERS)}"
        )
    target = target if opener is None else target.with_suffix("")
    try:
        with (opener or (lambda path: path.open("rb")))(file) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out)
    except BROKEN as error:
        raise DataCorrupt(f"can't be unpacked: {error}", where=str(file), fix="pack it again") from None
    return target
