"""Manifests: what a complete checkpoint says of itself, and whether its files are as it says.

Owns the names and the files of checkpoints, as anybody must know them who copies or keeps them. Refuses to know their
tensors.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfscale.errors import SecurityRefused, first_line
from tfscale.files import archive, digest_of, open_plain, parse_json, read_plain, sha256_of_stream

MANIFEST = "manifest.json"
STEP = re.compile(r"step-\d{9,}")  # the name of a checkpoint's folder


class Damaged(Exception):
    """This one checkpoint can't be used; the one before may."""


def steps(directory: Path) -> list[str]:
    """The names of the complete checkpoints in a folder, newest first."""
    found = [p.name for p in directory.glob("step-*") if STEP.fullmatch(p.name) and p.is_dir() and not p.is_symlink()]
    return sorted(found, key=number, reverse=True)


def number(name: str) -> int:
    """The step of a checkpoint's name."""
    return int(name.removeprefix("step-"))


def name_of(step: int) -> str:
    """The name of the checkpoint of a step."""
    return f"step-{step:09d}"


def best_of(folder: Path) -> str:
    """The name of the checkpoint that this one remembers as best, or ""."""
    with contextlib.suppress(OSError):
        return best_in(read_plain(folder / MANIFEST))
    return ""


def best_in(manifest: bytes) -> str:
    """The same of a manifest's content."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        return best_remembered(parse_json(manifest, where=MANIFEST)["memory"])
    return ""


def best_remembered(memory: Mapping[str, Any]) -> str:
    """The same of what a state remembers."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return name_of(memory["best"]["step"])
    return ""


def archive_damaged(folder: Path) -> None:
    """Renames a damaged checkpoint, which would otherwise stand in the way of the one that is written anew."""
    archive(folder, folder.with_name(f"damaged-{folder.name}"))


def files_of(manifest: bytes, where: str) -> dict[str, tuple[int, str]]:
    """Size in bytes and SHA-256 of each file that a manifest lists, whose own digest must agree with all that it says
    besides; raises Damaged and SecurityRefused."""
    try:
        fields = parse_json(manifest, where=where)
        if fields.pop("digest", None) not in (None, digest_of(fields)):  # older versions wrote none
            raise Damaged("its manifest does not match its checksum")
        files = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in fields["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"its manifest can't be read: {first_line(error)}") from error
    for name in files:
        if Path(name).name != name or name in ("", ".", "..", MANIFEST):
            raise SecurityRefused(
                f"the manifest names a file outside its folder: {name!r}", where=where, fix="remove this checkpoint"
            )
    if not files:
        raise Damaged("its manifest lists no files")
    return files


def verify(folder: Path, files: Mapping[str, tuple[int, str]]) -> None:
    """Raises Damaged where a file has not the size and checksum that it should have, and OSError where it is gone."""
    for name, (size, digest) in files.items():
        with open_plain(folder / name) as stream:
            same = os.fstat(stream.fileno()).st_size == size
            same = same and sha256_of_stream(stream) == digest
        if not same:
            raise Damaged(f"{name} does not match its checksum")


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint's files are as its manifest says."""
    try:
        verify(folder, files_of(read_plain(folder / MANIFEST), str(folder)))
    except (Damaged, OSError):
        return False
    return True
