"""What shape a source of pictures has: class folders, masks, boxes, a table of names, pairs in tars.

Owns telling that by the names of files alone, so that a folder and an archive are told alike. Refuses to read files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from tfscale.data.folder_tree import ENDINGS
from tfscale.data.split_names import role_of
from tfscale.importer.unpack import is_tar, is_zip, member_names

SHAPES = {
    "webdataset": "pictures with their labels in WebDataset's tars",
    "coco": "pictures with boxes, as COCO has them",
    "voc": "pictures with boxes, as Pascal VOC has them",
    "masks": "pictures with masks beside them",
    "image_table": "pictures with a table of their names",
    "images": "pictures in class folders",
}  # the first that fits counts
CLASSIFIED = ("webdataset", "image_table", "images")
PICTURES = (*ENDINGS, ".tif", ".tiff", ".avif", ".heic", ".jp2", ".jxl")
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "photos", "pictures")
MASK_FOLDERS = ("masks", "mask", "segmentationclass", "annotations", "labels", "segmentations")
TABLES = (".csv", ".tsv")
_BESIDE = (".cls", ".json", ".txt", ".index")  # what WebDataset's pictures have for a label


def shape_of(files: Sequence[Path], names: Iterable[str]) -> str:
    """One of SHAPES, "" where there is no picture.

    Args:
        files: what is given: a folder, an archive, or several tars.
        names: of the files in it.
    """
    tars = tars_of(files)
    if tars:
        members = member_names(tars[0])
        if _has_pairs(members):
            return "webdataset"
        names = members if len(tars) == 1 else ()
    elif len(files) == 1 and files[0].is_dir():
        names = [*names, *_shallow(files[0])]
    elif not (len(files) == 1 and is_zip(files[0])):
        names = ()
    return _by_names(list(dict.fromkeys(names)))


def tars_of(files: Sequence[Path]) -> list[Path]:
    """The tars that are given, or those of a folder that holds no other folder."""
    if len(files) == 1 and files[0].is_dir():
        inside = [file for file in sorted(files[0].iterdir()) if not file.name.startswith(".")]
        return [] if any(file.is_dir() for file in inside) else [file for file in inside if is_tar(file)]
    return list(files) if all(is_tar(file) for file in files) else []


def _by_names(names: list[str]) -> str:
    pictures = {name for name in names if name.lower().endswith(PICTURES)}
    if not pictures or len(names) > 3 * len(pictures):  # some beside other data
        return ""
    stems = {PurePosixPath(name).stem for name in pictures}
    others = [PurePosixPath(name) for name in names if name not in pictures]
    if any(one.suffix == ".json" and (one.parent.name == "annotations" or "coco" in one.name) for one in others):
        return "coco"
    if any(one.suffix == ".xml" and one.stem in stems for one in others):
        return "voc"
    folders = {part.lower() for name in pictures for part in PurePosixPath(name).parts[:-1]}
    if folders & set(IMAGE_FOLDERS) and folders & set(MASK_FOLDERS):
        return "masks"
    if any(one.suffix.lower() in TABLES for one in others) and not _has_classes(pictures):
        return "image_table"
    return "images"


def _has_classes(pictures: Iterable[str]) -> bool:
    """Whether the folders that hold pictures are called like classes: several, none like a split or like pictures."""
    parents = {PurePosixPath(name).parent.name for name in pictures}
    return len({name for name in parents if name and not role_of(name) and name.lower() not in IMAGE_FOLDERS}) > 1


def _has_pairs(members: Sequence[str]) -> bool:
    """Whether a picture and what labels it have the same name, as WebDataset has it."""
    labelled = {key for key, ending in map(key_of, members) if ending in _BESIDE}
    return any(key in labelled for key, ending in map(key_of, members) if ending in PICTURES)


def key_of(name: str) -> tuple[str, str]:
    """("a/0001", ".jpg") of "a/0001.jpg": the ending begins with the first point of the file's name."""
    folder, slash, file = name.rpartition("/")
    stem, point, ending = file.partition(".")
    return f"{folder}{slash}{stem}", f"{point}{ending}".lower()


def _shallow(root: Path) -> list[str]:
    """The files in the folder and in those directly below, which a walk that ends early may not come to."""
    found = []
    for folder in (root, *(one for one in sorted(root.iterdir()) if one.is_dir() and not one.name.startswith("."))):
        with contextlib.suppress(PermissionError), os.scandir(folder) as entries:
            found += [os.path.relpath(one.path, root) for one in entries if one.is_file() and one.name[0] != "."]
    return sorted(found)
