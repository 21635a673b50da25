"""Data sets that `tfscale data import` wrote: data=prepared data.name=flights.

Owns finding them by name, and what a task is told of a table's columns. They are read as TFDS's are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Optional

from tfscale.data.image_folder import UnlabelledPictures
from tfscale.data.records import RecordIndex, index_records
from tfscale.data.source import Source
from tfscale.data.tfds import Tfds
from tfscale.errors import DataMissing, SecurityRefused, UsageError, nearest
from tfscale.files import read_json
from tfscale.statistics.baseline import breaks, is_baseline, keep_baseline, refuse_no_baseline
from tfscale.statistics.findings import Finding
from tfscale.statistics.protos import SCHEMA, file_of


@dataclass
class Prepared(Tfds):
    """A data set below `dir`, which is never downloaded. Without `test_split` what is evaluated during training is the
    split "validation" or, where there is none, "test".

    The training split is compared with a baseline before it is trained on: that of its own data set, or the one that
    `baseline` names, a data set, a run or a folder; not with `validate=False`.
    """

    places: ClassVar[tuple[str, ...]] = (*Tfds.places, "baseline", "validate")

    # the split that is evaluated in training; null: validation where there is one, else test
    test_split: Optional[str] = None  # type: ignore[assignment]
    download: bool = False  # nothing is ever downloaded
    # a data set, a run or a folder that the training split must be like; null: its own baseline
    baseline: Optional[str] = None
    validate: bool = True  # whether the training split is compared with its baseline

    def check(self) -> None:
        if ".." in Path(self.name.split(":")[0]).parts or self.name.startswith("/"):
            raise SecurityRefused(
                f"{self.name!r} leads out of data.dir", where="data.name", fix="use a data set's name"
            )
        if self.folder() is None:
            names = self._prepared_names()
            raise DataMissing(
                f"no data set named {self.name!r} in {self.dir}{nearest(self.name, names)}",
                where="data.name",
                fix=f"tfscale data import PATH name={self.name} data.dir={self.dir} writes it"
                + (f"; there are {', '.join(names[:10])}" if names else ""),
            )
        super().check()

    def _name_of(self, split: str) -> str:
        if split == "train":
            return self.train_split
        return self.test_split or ("validation" if "validation" in self._names else "test")

    def remarks(self) -> list[str]:
        name, said = self._name_of("test"), list(super().remarks())
        if not self.test_split and name != "test":
            other = ", and data.test_split=test evaluates the other" if "test" in self._names else ""
            said.append(f"what is called test is the split {name}{other}")
        return said

    @property
    def _names(self) -> tuple[str, ...]:
        """The splits that there are."""
        return tuple(one["name"] for one in self._told("dataset_info.json").get("splits", []))

    def _told(self, file: str) -> dict[str, Any]:
        """What a file of the data set says, read once: as soon as there is a data set."""
        folder = self.folder()
        if folder is not None and file not in self._files:
            found = read_json(folder / file, trusted=True)
            self._files[file] = found if isinstance(found, dict) else {}
        return self._files.get(file, {})

    @cached_property
    def _files(self) -> dict[str, dict[str, Any]]:
        return {}

    def ignored(self) -> dict[str, str]:
        unused = {"baseline": "with data.validate=false nothing is compared"} if not self.validate else {}
        return {**super().ignored(), **(unused if self.baseline is not None else {})}

    def breaks(self) -> list[Finding]:
        baseline, folder = self._baseline, self.folder()
        return breaks(baseline, folder, self.train_split) if baseline and folder else []

    def keep_baseline(self, target: Path) -> None:
        folder = self.folder()
        if folder is not None and (folder / file_of(self.train_split)).is_file() and (folder / SCHEMA).is_file():
            keep_baseline(folder, target, split=self.train_split)

    @property
    def _baseline(self) -> Path | None:
        """The folder of what the training split is compared with; None: nothing is.

        Raises:
            DataMissing, UsageError: it was asked for, and there is none, or nothing to compare.
        """
        folder = self.folder()
        if self.baseline is None or not self.validate or folder is None:
            own = self.validate and self.train_split == "train"  # it is that split's
            return folder if own and folder is not None and is_baseline(folder) else None
        if not (folder / file_of(self.train_split)).is_file():
            raise UsageError(
                f"{self.name} has no statistics of its split {self.train_split} to compare with a baseline",
                where="data.baseline",
                fix="import it again with fresh=true, or leave data.baseline away",
            )
        other = Prepared(dir=self.dir, name=self.baseline)
        found = other.folder() or Path(self.baseline)
        refuse_no_baseline(found)
        return found

    def files_of(self, name: str) -> list[Path]:
        """The shards of a split of the data set, by its own name."""
        return self._shards(name)

    def count_in(self, name: str) -> int:
        """How many records a split of the data set has."""
        return sum(map(int, self._split(name)["shardLengths"]))

    def object_names(self) -> tuple[str, ...]:
        """The names of the classes of boxes, where there are some."""
        folder = self.folder()
        file = folder / "objects-label.labels.txt" if folder else None
        return tuple(file.read_text(encoding="utf-8").splitlines()) if file and file.is_file() else ()

    def unlabelled(self, path: str) -> Source:
        if "channels" not in self.spec():
            return super().unlabelled(path)
        return UnlabelledPictures(path=path, dir=self.dir)

    def _has(self, name: str) -> bool:
        """Whether there is something to read: a data set may have no split but that which is trained on."""
        return name in self._names or name == self.test_split or name == self.train_split

    def _shards(self, name: str) -> list[Path]:
        return super()._shards(name) if self._has(name) else []

    def _make_index(self, name: str) -> RecordIndex:
        return super()._make_index(name) if self._has(name) else index_records([])

    def spec(self) -> dict[str, Any]:
        """With "columns", what columns.json says of a table, and with "object_classes", how many classes boxes have."""
        columns, classes = self._columns, len(self.object_names())
        more = {**({"columns": columns} if columns else {}), **({"object_classes": classes} if classes else {})}
        return {**super().spec(), **more}

    @property
    def _columns(self) -> dict[str, Any]:
        return self._told("columns.json")

    def class_names(self) -> tuple[str, ...] | None:
        folder = self.folder()
        file = folder / "label.labels.txt" if folder else None
        if file and file.is_file():
            return tuple(file.read_text(encoding="utf-8").splitlines())
        label = self._columns.get("label") or {}
        return tuple(label["classes"]) if label.get("kind") == "multilabel" else None
