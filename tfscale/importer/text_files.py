"""The files of an import of texts: found, unpacked where they are packed, and the splits that their names tell.

Owns which files count. Refuses to know what is in them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tfscale.data.split_names import role_in, role_of
from tfscale.errors import DataCorrupt, DataMissing, UsageError
from tfscale.importer.recognise import Found, ending, is_hidden
from tfscale.importer.text_options import BROKEN, ENDINGS, OPENERS, RECORDS
from tfscale.importer.unpack import is_zip, unpacked

_PACKED = (*OPENERS, ".zst")


def find_texts(found: Found, scratch: Path) -> tuple[Path, list[Path]]:
    """(the folder that names begin below, the files with texts); what is packed is unpacked into `scratch`."""
    first, files = found.files[0], list(found.files)
    root = first if first.is_dir() else first.parent
    if is_zip(first) and len(files) == 1:
        root = unpacked(first, scratch)
    if not root.samefile(first.parent):  # a folder, or what an archive held
        inside = sorted(
            file for file in root.rglob("*") if file.is_file() and not is_hidden(str(file.relative_to(root)))
        )
        files = [file for file in inside if ending(file.name) in (*ENDINGS, *RECORDS)]
    if not files:
        raise DataMissing(
            "it holds no text", where=found.path, fix=f"give files that end in {', '.join((*ENDINGS, *RECORDS))}"
        )
    if len({ending(file.name) in RECORDS for file in files}) > 1:
        raise UsageError("it holds texts and JSON lines", where=found.path, fix="give a pattern of one: '*.txt'")
    if len({file.parent for file in files}) > 1 and not all(file.is_relative_to(root) for file in files):
        root = Path(os.path.commonpath([file.parent.absolute() for file in files]))
        files = [file.absolute() for file in files]
    if not any(file.suffix.lower() in _PACKED for file in files):
        return root, files
    return scratch / "texts", [_plain(file, scratch / "texts" / file.relative_to(root)) for file in files]


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


def splits_of(names: Sequence[str]) -> list[str] | None:
    """The split of each file, such as train.jsonl, by its name or that of a folder; None unless all tell one and some
    are to train on."""
    found = []
    for name in names:
        path = PurePosixPath(name)
        roles = [role for part in (*path.parts[:-1], path.stem) if (role := role_of(part))]
        found.append(roles[0] if roles else role_in(path.stem))
    return found if "" not in found and "train" in found else None
