"""A model to serve out of a store, s3://, gs:// or file://, or an export behind a web server, http:// or https://.

Owns which versions lie at an address, and when one of them is there whole. Refuses to know how it is kept here, and how
a model is loaded.

    place = stored_model("s3://bucket/models/digits", None, every=2.0)
    place.versions()          # [Version(number=3, folder=Path(...), ...)]: the highest number that is whole
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tfscale.errors import NO_ROOM, DataCorrupt, DataMissing, IOFailure, TfscaleError, UsageError
from tfscale.files import digest_of, inside, parse_json, read_json, sha256, sha256_of
from tfscale.run_dir.store_access import Access, check_url
from tfscale.serving.brought_place import BroughtPlace, Found
from tfscale.serving.model_place import ABOUT, MLMODEL, MODEL, check_served_name, recipe_of

_PART, _EXPORT = "saved_model/", "export/"
_SHARD = re.compile(r"variables/variables\.data-\d{5}-of-(\d{5})")
_TELLING = ("size", "ETag", "etag", "md5Hash", "generation", "LastModified", "mtime")  # what changes with a file
_NONE_THERE = (401, 403, 404, 410)  # as a server says of what isn't there, or not for us
_FIX = (
    "give the URL of a run with an export, an export, a SavedModel, an MLflow model, or a folder with numbered versions"
)


def is_url(model: str) -> bool:
    return "://" in model


def stored_model(url: str, name: str | None, *, every: float | None) -> BroughtPlace:
    """With the version that is the newest now.

    Args:
        url: of what a `ModelPlace` takes as a folder; of a web server, which lists no files, a run or an export.
        every: seconds between two looks; None: no more than the first.

    Raises:
        UsageError, SecurityRefused: no URL of a store, a package that isn't installed, or no name for an address.
        DataMissing, DataCorrupt: there is no model, or files of it are missing or damaged.
        OutputError, IOFailure: the store refuses, or can't be reached.
    """
    place, _, last = url.rstrip("/").rpartition("/")
    if place.endswith("/") or url.startswith("http"):  # no folder of a web server has ? or # in its name
        check_url(url, "model", only_read=True)
    if place.endswith("/"):
        raise UsageError(f"{url} names no folder in a store", where="model", fix="model=s3://BUCKET/NAME")
    access = Access(place, last, "model", only_read=True)
    if name is not None:
        check_served_name(name)
    look = _of_server if access.protocol.startswith("http") else _of_store
    return BroughtPlace.of(name or _name_of(access), partial(look, access), every=every)


def _name_of(access: Access) -> str:
    """The recipe's of a run; else the folder's."""
    run = access.root.removesuffix(f"/{_EXPORT.rstrip('/')}")
    return recipe_of(_read(access, f"{run}/config.yaml") or b"") or run.rpartition("/")[2]


def _read(access: Access, path: str) -> bytes | None:
    """A small file; None where there is none, or none for us."""
    with access.reaching("can't be read", at_start=True):
        try:
            content: bytes = access.soon("cat_file", path)
            return content
        except Exception as error:
            if isinstance(error, FileNotFoundError | PermissionError) or getattr(error, "status", None) in _NONE_THERE:
                return None
            raise


def _of_store(access: Access) -> list[Found]:
    """The versions that are whole, the highest number first, or the only one."""
    with access.reaching("can't be read", at_start=True):
        try:
            listed = access.soon("find", access.root, detail=True)
        except FileNotFoundError:
            listed = {}
    files = {
        path[len(access.root) :].lstrip("/"): info
        for path, info in listed.items()
        if info["type"] == "file" and not path.endswith("/")
    }
    found, models = [], _models(files)
    for number, own in models:
        if not _has_its_variables(own.values()):
            continue
        stamp = digest_of([[name, *(str(files[name].get(key)) for key in _TELLING)] for name in sorted(own)])
        found.append(Found(number, stamp, partial(_bring, access, own)))
    if not found:
        what = "holds no model that is whole" if models else "holds no model"
        raise DataMissing(f"{access.url} {what}", where="model", fix=_FIX)
    return found


def _models(files: Collection[str]) -> list[tuple[int | None, dict[str, str]]]:
    """(number, files by their names below the address) of each, as `ModelPlace` finds them; folders end with /."""
    for base in ("", _EXPORT):
        if own := _model_in(base, files):
            return [(None, own)]
    numbers = {name.partition("/")[0] for name in files if "/" in name}
    return [
        (int(number), own)
        for number in sorted(filter(str.isdecimal, numbers), key=int, reverse=True)
        if (own := _model_in(f"{number}/", files))
    ]


def _model_in(base: str, files: Collection[str]) -> dict[str, str]:
    """Of each file that it takes the name in the copy."""
    for model in (base + _PART, base):
        if f"{model}{MODEL}" in files:
            about = {f"{base}{ABOUT}": ABOUT} if f"{base}{ABOUT}" in files else {}
            return {name: f"{_PART}{name[len(model) :]}" for name in files if name.startswith(model)} | about
    return {name: name[len(base) :] for name in files if f"{base}{MLMODEL}" in files and name.startswith(base)}


def _has_its_variables(names: Collection[str]) -> bool:
    """Whether no part of them is missing, as while a version is copied there file by file."""
    variables = [name.removeprefix(_PART) for name in names if name.startswith(f"{_PART}variables/")]
    shards = [found for name in variables if (found := _SHARD.fullmatch(name))]
    whole = bool(shards) and len(shards) == int(shards[0][1]) and "variables/variables.index" in variables
    return whole or not variables


def _of_server(access: Access) -> list[Found]:
    """The export, by the list of its files in its export.json."""
    for base in ("", _EXPORT):
        content = _read(access, f"{access.root}/{base}{ABOUT}")
        if content is not None:
            bring = partial(_bring_named, access, base, content)
            return [Found(None, sha256_of(content), bring, is_settled=False)]  # the other files may come after it
    raise DataMissing(
        f"{access.url} has no {ABOUT}",
        where="model",
        fix="give the URL of an export's folder: a web server lists no files, and export.json does",
    )


def _bring_named(access: Access, base: str, content: bytes, folder: Path) -> None:
    try:
        about = parse_json(content, where=f"{access.url}/{base}{ABOUT}")
    except TfscaleError as error:
        raise DataCorrupt(error.what, where=error.where, fix="export it again") from None
    except ValueError as error:  # half of it, or a page that the server has in its place
        where = f"{access.url}/{base}{ABOUT}"
        raise DataCorrupt(f"it is no JSON: {error}", where=where, fix="export it again") from None
    names = [name for name, _ in _served_files(about)]
    with access.reaching("can't be read"):
        nested = access.fs.exists(f"{access.root}/{base}{_PART}{MODEL}")
    model = base + _PART if nested else base  # a numbered version has the files of saved_model/ in its own folder
    files = {model + name.removeprefix(_PART): name for name in names}
    _bring(access, {**files, f"{base}{ABOUT}": ABOUT}, folder)


def _bring(access: Access, files: Mapping[str, str], folder: Path) -> None:
    """Copies files, by their names below the address, to their names in the folder, and compares them with export.json
    where there is one."""
    for name, own in files.items():
        target = inside(folder, own)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with access.reaching("can't be read"):
                access.fs.get_file(f"{access.root}/{name}", str(target))
        except (OSError, IOFailure) as error:
            raise _why_not(error, name, access, folder) or error from error.__cause__
    for name, known in _served_files(read_json(folder / ABOUT)):
        file = inside(folder, name)
        if not file.is_file() or sha256(file) != known:
            what = "isn't what its export.json says" if file.is_file() else "is missing"
            raise DataCorrupt(f"{name} {what}", where=access.url, fix="copy the export there again")


def _why_not(error: Exception, name: str, access: Access, folder: Path) -> TfscaleError | None:
    """What is behind a failed copy, where that isn't a store out of reach."""
    cause = error.__cause__ if isinstance(error, IOFailure) else error
    if isinstance(cause, FileNotFoundError) and folder.is_dir():
        return DataMissing(f"{name} is missing", where=access.url, fix="copy the export there again")
    if isinstance(cause, OSError) and cause.errno in NO_ROOM:
        fix = "free space there, or set TMPDIR to a folder with room"
        return IOFailure(f"the model can't be copied: {cause.strerror}", where=str(folder.parent), fix=fix)
    return None


def _served_files(about: Any) -> Iterator[tuple[str, str | None]]:
    """(name, SHA-256) of the files of saved_model/ that an export.json lists."""
    files = about.get("files") if isinstance(about, dict) else None
    for name, file in (files if isinstance(files, dict) else {}).items():
        if name.startswith(_PART) and isinstance(file, dict):
            yield name, file.get("sha256")
