"""The address of a model in a registry, `models:/NAME@ALIAS` or `models:/NAME/VERSION`, and which registry is meant.

Owns how it is written. Refuses to know MLflow, whose own form it is.

    parse_address("models:/digits@champion")     # ModelAddress("digits", alias="champion")
    parse_address("runs/resnet/563a34baa8")      # None
    Stores.of(None, os.environ)                  # by MLFLOW_REGISTRY_URI, MLFLOW_TRACKING_URI, else beside the runs
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tfscale.errors import UsageError
from tfscale.tracking.own_store import file_of

SCHEME = "models:/"
ARTIFACTS = ("runs:/", "mlflow-artifacts:/")  # files of a run, as MLflow addresses them
STORE = "mlflow.db"  # beside the runs
_NAME = re.compile(r"[^/:@\x00-\x1f\x7f]{1,256}")
_ALIAS = re.compile(r"[\w-]{1,255}", re.ASCII)
_LONGEST = 200  # of an alias that is set: what is kept of it has its name in a tag's, of 250 characters
_KEY = "tracker.uri"
_HIDDEN = "<redacted>"  # what stands in a run's configuration for it


@dataclass(frozen=True)
class ModelAddress:
    """A registered model, and which of its versions: one that has an alias now, or always the same.

    Attributes:
        alias, version: one of both is "".
    """

    name: str
    alias: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}@{self.alias}" if self.alias else f"{SCHEME}{self.name}/{self.version}"


def is_address(text: object) -> bool:
    return str(text).startswith(SCHEME)


def is_artifact(text: object) -> bool:
    """Whether it is MLflow's address of files of a run, which are always the same."""
    return str(text).startswith(ARTIFACTS)


def parse_address(text: str, *, where: str = "model") -> ModelAddress | None:
    """None for what is no such address; raises UsageError for one that names no version."""
    if not is_address(text):
        return None
    name, mark, which = re.fullmatch(r"([^@/]*)(.?)(.*)", text.removeprefix(SCHEME).strip("/"), re.DOTALL).groups()  # type: ignore[union-attr]
    if _NAME.fullmatch(name) and mark == "@" and _ALIAS.fullmatch(which):
        return ModelAddress(name, alias=which)
    if _NAME.fullmatch(name) and mark == "/" and which.isdecimal():
        return ModelAddress(name, version=which)
    raise UsageError(
        f"{text} names no version of a registered model",
        where=where,
        fix=f"use {SCHEME}NAME@ALIAS, such as {SCHEME}digits@champion, or {SCHEME}NAME/VERSION",
    )


def check_name(name: str) -> None:
    """Raises UsageError for a name that no registered model may have."""
    if not _NAME.fullmatch(name) or not name.strip(". "):
        raise UsageError(
            f"{name!r} is no name of a registered model",
            where="name",
            fix="name=NAME of at most 256 characters, without /, : and @",
        )


def check_alias(alias: str) -> None:
    """Raises UsageError for an alias that MLflow doesn't take."""
    if not _ALIAS.fullmatch(alias) or len(alias) > _LONGEST or re.fullmatch(r"[vV]\d+|latest", alias, re.IGNORECASE):
        raise UsageError(
            f"{alias!r} is no alias that MLflow takes",
            where="as",
            fix=f"use at most {_LONGEST} letters, digits, _ and -, and neither latest nor v1: as=champion",
        )


@dataclass(frozen=True)
class Stores:
    """Which stores of MLflow are meant; None: the file beside the runs.

    Attributes:
        registry: of models. tracking: of runs, and what leads to their files.
    """

    registry: str | None
    tracking: str | None

    @classmethod
    def of(cls, given: str | None, environ: Mapping[str, str], known: str | None = None) -> Stores:
        """The one that was given; else MLFLOW_REGISTRY_URI beside what a run's tracker says, or MLFLOW_TRACKING_URI.

        Args:
            known: the run's tracker's, of which a run keeps no password.

        Raises:
            UsageError: it had one, and nothing else is named.
        """
        around = environ.get("MLFLOW_TRACKING_URI")
        if _HIDDEN in (known or ""):
            if not given and not around:
                raise UsageError(
                    "the run's tracker.uri held a password, which a run doesn't keep",
                    where=_KEY,
                    fix=f"give {_KEY}=URI, or set MLFLOW_TRACKING_URI",
                )
            known = None
        tracking = given or known or around or None
        registry = given or environ.get("MLFLOW_REGISTRY_URI") or tracking
        return cls(registry, tracking or registry)

    @classmethod
    def of_models(cls, models: Iterable[str], given: str | None, environ: Mapping[str, str]) -> Stores:
        """Those of models at these places; raises UsageError where a store was given, and MLflow has none of them."""
        if given and not any(is_address(one) or is_artifact(one) for one in models):
            raise UsageError(
                f"{_KEY} would do nothing: no model is out of a registry",
                where=_KEY,
                fix="leave it away, or give model=models:/NAME@ALIAS",
            )
        return cls.of(given, environ)

    def check(self, root: Path) -> None:
        """Raises UsageError where nothing is named, and no file lies in `root`, or where a file is named that isn't
        there: MLflow would make an empty one."""
        file = file_of(self.registry or "")
        if file is not None and not file.is_file():
            raise UsageError(
                f"there is no registry at {file}", where=_KEY, fix=f"correct {_KEY} or MLFLOW_TRACKING_URI"
            )
        if self.registry is None and not (root / STORE).is_file():
            raise UsageError(
                f"no registry is named, and there is no {root / STORE}",
                where=_KEY,
                fix=f"set MLFLOW_TRACKING_URI, or give {_KEY}=http://HOST:PORT where the command takes it",
            )
