"""Where a model to serve lies, and which versions of it there are.

Owns the kinds of places: a run's folder, an export, a SavedModel, an MLflow model, or a folder of numbered versions of
them. Refuses to know what is in a model, TensorFlow and MLflow.

    place = ModelPlace.of("runs/resnet/563a34baa8")
    place.name                    # resnet
    place.versions()              # [Version(number=1500, folder=Path(...), about={...}, stamp=...)]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tfscale.errors import DataMissing, UsageError
from tfscale.files import read_json

MODEL, ABOUT, MLMODEL = "saved_model.pb", "export.json", "MLmodel"
_FIX = (
    "give model=RUN, its export/, a SavedModel's folder, an MLflow model's folder, or a folder with numbered versions"
    " such as 1/saved_model.pb; tfscale export run.dir=RUN makes an export"
)
_BARE = {".pkl", ".pickle", ".joblib", ".skops"}  # files of Python models, which don't say what they take


@dataclass(frozen=True)
class Version:
    """A version of a model.

    Attributes:
        number: of its folder, or the step of an export; 1 where nothing tells.
        folder: of the SavedModel, or of the MLflow model.
        about: what export.json says; empty of a model that no export of ours wrote.
        stamp: another one is another model.
        is_mlflow: whether MLflow reads it, and not TensorFlow.
    """

    number: int
    folder: Path
    about: dict[str, Any] = field(compare=False)
    stamp: tuple[int, ...]
    is_mlflow: bool = False


_EXPORTS = ("export", "export-savedmodel-bfloat16")  # of a run, which is what they are named after


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
            if self.path.suffix in _BARE and self.path.is_file():
                raise DataMissing(
                    f"{self.path} doesn't say which columns it takes", where="model", fix=_saved(self.path)
                )
            what = "holds no model" if self.path.is_dir() else "is no folder"
            unexported = (self.path / "checkpoints").is_dir()
            raise DataMissing(
                f"{self.path} {what}" + " that is exported yet" * unexported,
                where="model",
                fix=f"tfscale export run.dir={self.path}" if unexported else _FIX,
            )

    def close(self) -> None:
        """Nothing was opened."""

    def pass_over(self, version: Version) -> None:
        """`versions` has the next one already."""

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


def _saved(file: Path) -> str:
    """How people make an MLflow model of a file: Python that runs once `X` is there."""
    folder = file.with_name(re.sub(r"[^\w.-]", "_", file.stem))
    signature = "signature=mlflow.models.infer_signature(X, model.predict(X))"
    if file.suffix == ".skops":
        read, form, word = "import skops.io, mlflow; model = skops.io.load", "", ""
    else:  # skops doesn't take every model: no trees of scikit-learn's
        read, form = "import joblib, mlflow; model = joblib.load", ', serialization_format="cloudpickle"'
        word = f" 'serve.pickles=[{folder.name}]', where you trust who made it"
    return (
        f"with X, a DataFrame of some rows that it predicts, run this Python: {read}({str(file)!r});"
        f" mlflow.sklearn.save_model(model, {str(folder)!r}, {signature}{form}); then model={folder}{word}"
    )


def check_served_name(name: str) -> None:
    """Raises UsageError: no name for an address."""
    if not re.fullmatch(r"[\w.-]+", name):
        raise UsageError(
            f"{name!r} is no name that an address takes",
            where="serve.name",
            fix="serve.name=NAME of letters, digits, _, - and .",
        )


def version_at(folder: Path, number: int | None = None) -> Version | None:
    """The model in a folder: an export, a SavedModel, or an MLflow model that holds none of these."""
    for saved_model in (folder / "saved_model", folder):
        try:
            stamp = _stamp([saved_model / MODEL, *sorted(saved_model.glob("variables/*"))])
        except OSError:
            continue
        read = read_json(folder / ABOUT)
        about = read if isinstance(read, dict) else {}
        step = about.get("step")
        number = number if number is not None else step if isinstance(step, int) else 1
        return Version(number, saved_model, about, (*stamp, hash(str(about))))
    try:
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()] if (folder / MLMODEL).is_file() else []
        stamp = _stamp(files)
    except OSError:
        return None
    return Version(1 if number is None else number, folder, {}, stamp, is_mlflow=True) if files else None


def _stamp(files: Iterable[Path]) -> tuple[int, ...]:
    """Of a model's files, also while some of them are still being copied; raises OSError where one isn't there."""
    stats = [file.stat() for file in files]
    return tuple(number for stat in stats for number in (stat.st_ino, stat.st_mtime_ns, stat.st_size))


def _name_of(folder: Path) -> str:
    """The recipe's of a run, which stands before its own name; else the folder's."""
    whole = folder.resolve()
    run = whole.parent if whole.name in _EXPORTS else whole
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
