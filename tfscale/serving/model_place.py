"""Where a model to serve lies, and which versions of it there are.

Owns the kinds of places: a run's folder, an export, a SavedModel, or a folder of numbered versions of either. Refuses
to know what is in a model, and TensorFlow.

    place = ModelPlace.of("runs/resnet/563a34baa8")
    place.name                    # resnet
    place.versions()              # [Version(number=1500, saved_model=Path(...), about={...}, stamp=...)]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tfscale.errors import DataMissing, UsageError
from tfscale.files import read_json

MODEL, ABOUT = "saved_model.pb", "export.json"
_FIX = (
    "give model=RUN, its export/, a SavedModel's folder, or a folder with numbered versions such as 1/saved_model.pb;"
    " tfscale export run.dir=RUN makes an export"
)


@dataclass(frozen=True)
class Version:
    """A version of a model.

    Attributes:
        number: of its folder, or the step of an export; 1 where nothing tells.
        saved_model: its folder.
        about: what export.json says; empty of a SavedModel that no export of ours wrote.
        stamp: another one is another model.
    """

    number: int
    saved_model: Path
    about: dict[str, Any] = field(compare=False)
    stamp: tuple[int, ...]


@dataclass(frozen=True)
class ModelPlace:
    """A place of one model; what stands there may change.

    Attributes:
        path: the folder.
        name: by which requests ask for it.
    """

    path: Path
    name: str

    @classmethod
    def of(cls, path: str | Path, name: str | None = None) -> ModelPlace:
        """Raises DataMissing: there is no model; UsageError: no name for an address."""
        folder = Path(path).expanduser()
        place = cls(folder, name or _name_of(folder))
        check_served_name(place.name)
        place.check()
        return place

    def check(self) -> None:
        """Raises DataMissing: there is no model."""
        if next(self._versions(), None) is None:
            what = "holds no model" if self.path.is_dir() else "is no folder"
            unexported = (self.path / "checkpoints").is_dir()
            raise DataMissing(
                f"{self.path} {what}" + " that is exported yet" * unexported,
                where="model",
                fix=f"tfscale export run.dir={self.path}" if unexported else _FIX,
            )

    def close(self) -> None:
        """Nothing was opened."""

    def versions(self) -> list[Version]:
        """All of them, the highest number first; none where the folder is empty at this moment."""
        return sorted(self._versions(), key=lambda version: version.number, reverse=True)

    def _versions(self) -> Iterator[Version]:
        single = version_at(self.path) or version_at(self.path / "export")
        if single is not None:
            yield single
            return
        numbered = self.path.iterdir() if self.path.is_dir() else ()
        for folder in numbered:
            if folder.name.isdecimal() and (found := version_at(folder, int(folder.name))) is not None:
                yield found


def check_served_name(name: str) -> None:
    """Raises UsageError: no name for an address."""
    if not re.fullmatch(r"[\w.-]+", name):
        raise UsageError(
            f"{name!r} is no name that an address takes",
            where="serve.name",
            fix="serve.name=NAME of letters, digits, _, - and .",
        )


def version_at(folder: Path, number: int | None = None) -> Version | None:
    """The model in a folder: an export, or a SavedModel."""
    for saved_model in (folder / "saved_model", folder):
        try:
            stamp = _stamp(saved_model)
        except OSError:
            continue
        read = read_json(folder / ABOUT)
        about = read if isinstance(read, dict) else {}
        step = about.get("step")
        number = number if number is not None else step if isinstance(step, int) else 1
        return Version(number, saved_model, about, (*stamp, hash(str(about))))
    return None


def _stamp(saved_model: Path) -> tuple[int, ...]:
    """Of its files, also while some of them are still being copied; raises OSError where there is no model."""
    stats = [(saved_model / MODEL).stat(), *(file.stat() for file in sorted(saved_model.glob("variables/*")))]
    return tuple(number for stat in stats for number in (stat.st_ino, stat.st_mtime_ns, stat.st_size))


def _name_of(folder: Path) -> str:
    """The recipe's of a run, which stands before its own name; else the folder's."""
    whole = folder.resolve()
    run = whole.parent if whole.name == "export" else whole
    try:
        return recipe_of((run / "config.yaml").read_bytes()) or run.name
    except OSError:
        return run.name


def recipe_of(config: bytes) -> str | None:
    """The recipe that a run's config.yaml names; None where it names none."""
    try:
        recipe = yaml.safe_load(config)["run"]["recipe"]
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        return None
    return recipe if isinstance(recipe, str) and recipe else None
