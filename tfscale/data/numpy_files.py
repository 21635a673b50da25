"""NumPy archives: data=numpy data.path=mine.npz.

Owns reading of .npz files, without ever unpickling, and the names of their fields. Refuses to know TensorFlow.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Optional

from tfscale.data.arrays import ArrayFiles, ArraySource, check_fields, check_finite, check_labels
from tfscale.data.npz_names import by_split, held_out, plain
from tfscale.data.source import Source
from tfscale.errors import DataCorrupt, DataMissing, SecurityRefused, UsageError, first_line, nearest
from tfscale.labels import Labels

if TYPE_CHECKING:
    import numpy as np


@dataclass
class NumpyFiles(ArrayFiles):
    """One .npz file with Keras's names (x_train, y_train, x_test, y_test) or others that say the same (train_images,
    X_val), or one per split with the fields by name.

    Pictures (x: uint8 of three or four axes) become "image", other x stays "x", y becomes "label"; all else keeps its
    name. Floats are read as float32, integer labels as int64, texts as the place among the sorted ones of the train
    split. Whether a number is a class or a quantity the task says (`settle`).
    """

    num_classes: Optional[int] = None  # how many classes labels are of; null: as many as the train split has

    def check(self) -> None:
        train, test = self.held("train"), self.held("test")
        if self.num_examples("train") == 0:
            raise DataMissing("the train split is empty", where=self.path, fix="data.path=... with x_train, or x")
        if self.test_path is not None and not test:
            raise DataMissing(
                "no field of a test split", where=self.test_path, fix="name them x and y, or as in training"
            )
        if test and _shapes(train) != _shapes(test):
            raise DataCorrupt(
                f"the splits differ: train has {_listed(train)} and test has {_listed(test)}",
                where=self.test_path or self.path,
                fix="store the same fields with the same shape of an example in both",
            )

    def arrays(self, split: str) -> dict[str, Any]:
        own = split == "train" or self.test_path is not None  # the file is this split's alone, or has Keras's names
        file = Path(self.test_path if split == "test" and self.test_path is not None else self.path)
        fields = self._numbered_texts(_read_fields(file, split, plain_names=own), split, str(file))
        if self.num_classes is not None and _are_classes(fields):
            check_labels(
                fields["label"],
                self.num_classes,
                where=str(file),
                row_name=lambda row: self.place(split, row)[1],
                fix="correct the label, or data.num_classes",
            )
        return fields

    def place(self, split: str, row: int) -> tuple[str, str]:
        file = self.test_path if split == "test" and self.test_path is not None else self.path
        return file, f"row {row} of the {split} split"

    def _numbered_texts(self, fields: dict[str, Any], split: str, file: str) -> dict[str, Any]:
        """With labels of text as the numbers of their classes."""
        import numpy as np

        label = fields.get("label")
        if label is None or label.dtype.kind != "U":
            return fields
        if split == "train":
            self.__dict__["_texts"] = self.known_classes or tuple(np.unique(label).tolist())
        else:
            self.held("train")
        names = self.__dict__.get("_texts", ())
        numbers = {name: number for number, name in enumerate(names)}
        for row, text in enumerate(label.tolist()):
            if text not in numbers:
                raise DataCorrupt(
                    f"no training example has the label {text[:80]!r} of {self.place(split, row)[1]}"
                    f"{nearest(text, names)}",
                    where=file,
                    fix="correct the label, or add examples of it to the training split",
                )
        return {**fields, "label": np.array([numbers[text] for text in label.tolist()], np.int64)}

    def class_names(self) -> tuple[str, ...] | None:
        self.held("train")
        return self.__dict__.get("_texts") or super().class_names()

    def settle(self, labels: Sequence[Labels]) -> None:
        if self.num_classes is not None:  # said by people: the labels stand as they are
            labels = [replace(one, outputs=one.outputs or self.num_classes) for one in labels]
        super().settle(labels)

    def spec(self) -> dict[str, int]:
        classes = {"num_classes": self.num_classes} if self.num_classes is not None else self.class_spec()
        return _picture_spec(self.held("train")) | classes

    def remarks(self) -> list[str]:
        left_out = [told for file in self.files for told in _left_out(file)]
        return [f"left out: {', '.join(left_out)}"] if left_out else []

    def unlabelled(self, path: str) -> Source:
        return _Unlabelled(path=path)


@dataclass
class _Unlabelled(ArraySource):
    """The examples of one archive without their labels, as the split "test"."""

    places: ClassVar[tuple[str, ...]] = ("path",)

    path: str = "???"

    def check(self) -> None:
        if self.num_examples("test") == 0:
            raise DataMissing("no example in the archive", where=self.path, fix="store them as x, or as x_test")

    def arrays(self, split: str) -> dict[str, Any]:
        return _read_fields(Path(self.path), "test", skip=("y", "label")) if split == "test" else {}

    def spec(self) -> dict[str, int]:
        return _picture_spec(self.held("test"))


def _are_classes(fields: dict[str, Any]) -> bool:
    return "label" in fields and fields["label"].dtype.kind == "i" and fields["label"].ndim == 1


def _picture_spec(fields: dict[str, Any]) -> dict[str, int]:
    if "image" not in fields:
        return {}
    height, width, channels = fields["image"].shape[1:]
    return {"channels": channels, **({"image_size": height} if height == width else {})}


def _shapes(fields: dict[str, Any]) -> dict[str, tuple]:
    return {name: values.shape[1:] for name, values in sorted(fields.items())}


def _listed(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in _shapes(fields).items())


def _read_fields(
    file: Path, split: str, *, plain_names: bool = True, skip: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """The fields of a split under tfscale's names; {} where the archive has none.

    Args:
        plain_names: whether names without _train or _test are this split's.
        skip: names to leave out.
    """
    with _opened(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        arrays = [name for name, info in members.items() if not _is_single(archive, info)]
        splits = by_split(arrays, str(file))
        role = "train" if split == "train" else held_out(splits)
        chosen = splits.get(role or "", {}) if splits else plain(arrays) if plain_names else {}
        fields: dict[str, np.ndarray] = {}
        for name, member in chosen.items():
            if name in skip:
                continue
            values = _read_member(archive, members[member], file)
            is_label = name in ("y", "label")
            values = _label(values, f"{file}: {member}") if is_label else _feature(values)
            check_finite(values, field=member, where=str(file))
            field = "label" if is_label else "image" if name == "x" and _is_picture(values) else name
            if field in fields:
                raise UsageError(f"two arrays would be the field {field!r}", where=str(file), fix="rename one of them")
            fields[field] = values[..., None] if field == "image" and name == "x" and values.ndim == 3 else values
    check_fields(fields, where=str(file))
    return fields


def _left_out(file: Path) -> list[str]:
    """What of an archive is in neither split, with the reason."""
    with _opened(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        single = [name for name, info in members.items() if _is_single(archive, info)]
        splits = by_split([name for name in members if name not in single], str(file))
    used = {name for role in ("train", held_out(splits)) for name in splits.get(role or "", {}).values()}
    rest = [name for name in members if splits and name not in used and name not in single]
    told = [f"{', '.join(single)} (a single value is of no example)"] if single else []
    return told + ([f"{', '.join(rest)} (of neither split)"] if rest else [])


def _is_single(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    """Whether it is one number or text, beside the arrays; what can't be read is reported when it is."""
    with contextlib.suppress(zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError, RuntimeError):
        with archive.open(info) as stream:
            shape, dtype = _read_header(stream)
        return not shape and not dtype.hasobject
    return False


def _is_picture(values: np.ndarray) -> bool:
    return values.dtype.kind == "u" and values.dtype.itemsize == 1 and values.ndim in (3, 4)


def _label(values: np.ndarray, where: str) -> np.ndarray:
    import numpy as np

    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]  # as CIFAR comes from Keras
    if values.dtype.kind in "biu":
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype.kind in "SU" and values.ndim == 1:
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    raise UsageError(
        f"labels of type {values.dtype} are neither numbers nor names",
        where=where,
        fix="number the classes from 0 and store integers",
    )


def _feature(values: np.ndarray) -> np.ndarray:
    import numpy as np

    with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused next
        return values.astype(np.float32, copy=False) if values.dtype.kind == "f" else values


def _opened(file: Path) -> zipfile.ZipFile:
    """Raises DataMissing, DataCorrupt, SecurityRefused for a pickle, UsageError for a bare .npy."""
    try:
        with file.open("rb") as stream:
            start = stream.read(6)
        return zipfile.ZipFile(file)
    except OSError as error:
        raise DataMissing(
            f"the archive can't be read: {error.strerror}", where=str(file), fix="data.path=..."
        ) from None
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        if start[:1] == b"\x80":
            raise _pickled("the file", file) from None
        if start == b"\x93NUMPY":
            if _holds_objects(file):
                raise _pickled("the array", file) from None
            raise UsageError(
                "the file is one .npy array and has no named fields", where=str(file), fix="write it by np.savez"
            ) from None
        raise DataCorrupt(
            f"the file is no whole .npz archive: {first_line(error)}", where=str(file), fix="write it again by np.savez"
        ) from None


def _holds_objects(file: Path) -> bool:
    with contextlib.suppress(ValueError, KeyError, EOFError), file.open("rb") as stream:
        return bool(_read_header(stream)[1].hasobject)
    return False


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """(shape, dtype); raises ValueError or KeyError where it is none."""
    import numpy as np

    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = read[version](stream)
    return shape, dtype


def _pickled(what: str, file: Path) -> SecurityRefused:
    return SecurityRefused(
        f"{what} is pickled, and unpickling would run any code in it",
        where=str(file),
        fix="store numbers only: np.savez refuses objects with allow_pickle=False",
    )


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: Path) -> np.ndarray:
    import numpy as np

    name = info.filename.removesuffix(".npy")
    try:
        with archive.open(info) as stream:
            shape, dtype = _read_header(stream)
            if dtype.hasobject:
                raise _pickled(f"the array {name}", file)
            # what the header claims must be there, before memory is taken for it
            if stream.tell() + dtype.itemsize * math.prod(shape) != info.file_size or dtype.names or not shape:
                raise ValueError(f"{info.file_size} bytes don't hold a plain array {dtype} {list(shape)}")
        with archive.open(info) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError, RuntimeError) as error:
        raise DataCorrupt(
            f"the array {name} can't be read: {first_line(error)}", where=str(file), fix="write the archive again"
        ) from None
