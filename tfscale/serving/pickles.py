"""What a Python model of MLflow says of itself before it is read: whether that runs its author's code, and with which
packages it was made.

Owns which of MLflow's flavours are known to run none. Refuses to import MLflow, which comes after this.

    about = read_about(folder)                      # what its file MLmodel holds
    refuse_code(version, about, "churn", {"churn"})    # UsageError where that isn't allowed
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from tfscale.errors import DataCorrupt, UsageError, first_line
from tfscale.serving.model_place import MLMODEL, Version

_log = logging.getLogger(__name__)
_FIX = "export it again by MLflow's save_model or log_model"
# Types that skops doesn't trust by itself, and that MLflow names for scikit-learn's and LightGBM's own parts: they hold
# values, and read a text of LightGBM's
_HARMLESS = {"numpy.dtype", "sklearn.compose._column_transformer._RemainderColsList", "collections.OrderedDict"}
_HARMLESS |= {"lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier", "lightgbm.sklearn.LGBMRegressor"}


def read_about(folder: Path) -> dict[str, Any]:
    """What MLmodel holds; raises DataCorrupt: it can't be read, or nothing of it makes predictions."""
    try:
        found = yaml.safe_load((folder / MLMODEL).read_text(encoding="utf-8"))
        loader = found["flavors"]["python_function"]["loader_module"]
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataCorrupt(f"{MLMODEL} can't be read: {first_line(error)}", where=str(folder), fix=_FIX) from None
    except (KeyError, TypeError):
        loader = None
    if not isinstance(loader, str):
        raise DataCorrupt(
            f"{MLMODEL} has no flavour python_function: MLflow doesn't say how it is asked", where=str(folder), fix=_FIX
        )
    return dict(found)


def refuse_code(version: Version, about: Mapping[str, Any], name: str, allowed: Collection[str]) -> None:
    """Raises UsageError: reading it may run its author's code, and the model's name isn't allowed to."""
    what = code_in(version.folder, about["flavors"])
    if what and name not in allowed:
        is_sklearn = about["flavors"]["python_function"]["loader_module"] == "mlflow.sklearn"
        raise UsageError(
            f"{name} is {what}: reading it runs whatever its author wrote",
            where=str(version.folder),
            fix=f"serve.pickles=[{name}] where you trust who made it"
            + '; or save it by mlflow.sklearn.save_model(..., serialization_format="skops"), which takes no trees'
            * is_sklearn,
        )
    if name in allowed and not what:
        _log.info(f"{name}, version {version.number}, runs nobody's code when it is read: serve.pickles does nothing")


def code_in(folder: Path, flavors: Mapping[str, Any]) -> str:
    """What of a model runs code when MLflow reads it; "" where it is known that nothing does."""
    own = flavors["python_function"]
    if own.get("code"):
        return f"a model with code of its own ({own['code']}/)"
    loader = own["loader_module"]
    if loader == "mlflow.pyfunc.model":
        return "a pickled Python class"
    known = _KNOWN.get(loader)
    return f"read by {loader}, which may run code" if known is None else known(folder, own, flavors)


def _of_sklearn(_: Path, own: Mapping[str, Any], flavors: Mapping[str, Any]) -> str:
    about = _flavor(flavors, "sklearn")
    if "data" in own:  # where another MLmodel would decide
        return "a model in a folder of its own"
    return _of_skops(about, "pickle")


def _of_skops(about: Mapping[str, Any], otherwise: str) -> str:
    """skops runs nothing but types that it knows, and those that the model's own author says to trust."""
    form = about.get("serialization_format", otherwise)
    if form != "skops":
        return f"a pickle ({form})"
    unknown = sorted(set(map(str, about.get("skops_trusted_types") or ())) - _HARMLESS)
    return f"a skops file with types that only its author trusts ({', '.join(unknown[:5])})" if unknown else ""


def _of_xgboost(folder: Path, own: Mapping[str, Any], flavors: Mapping[str, Any]) -> str:
    about = _flavor(flavors, "xgboost")
    kind = str(about.get("model_class", "xgboost.core.Booster"))
    if not _is_beside(folder, own) or not kind.startswith(("xgboost.core.", "xgboost.sklearn.")):
        return f"a model of {kind}"
    return ""


def _of_lightgbm(folder: Path, own: Mapping[str, Any], flavors: Mapping[str, Any]) -> str:
    about = _flavor(flavors, "lightgbm")
    if not _is_beside(folder, own):
        return "a model in a folder of its own"
    if about.get("model_class", "lightgbm.basic.Booster") == "lightgbm.basic.Booster":
        return ""  # LightGBM's own text
    return _of_skops(about, "cloudpickle")


def _of_onnx(folder: Path, own: Mapping[str, Any], _: Mapping[str, Any]) -> str:
    return "" if _is_beside(folder, own) else "a model in a folder of its own"


def _is_beside(folder: Path, own: Mapping[str, Any]) -> bool:
    """Whether the model's file lies beside MLmodel: one in another folder may have another MLmodel there, which would
    decide."""
    data = own.get("data")
    return data is None or (Path(str(data)).name == data and (folder / data).is_file())


def _flavor(flavors: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = flavors.get(name)
    return found if isinstance(found, dict) else {}


_KNOWN: dict[str, Callable[[Path, Mapping[str, Any], Mapping[str, Any]], str]] = {
    "mlflow.sklearn": _of_sklearn,
    "mlflow.xgboost": _of_xgboost,
    "mlflow.lightgbm": _of_lightgbm,
    "mlflow.onnx": _of_onnx,
}


def other_versions(folder: Path, about: Mapping[str, Any]) -> str:
    """What is installed otherwise than the model says it needs, such as "scikit-learn 1.9.1 (==1.5.0)"; "" where all
    fits."""
    from packaging.requirements import InvalidRequirement, Requirement

    made = str(about["flavors"]["python_function"].get("python_version", ""))
    here = platform.python_version()
    found = [f"Python {here} ({made})"] if made and made.split(".")[:2] != here.split(".")[:2] else []
    file = folder / "requirements.txt"
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            wanted = Requirement(line.partition("#")[0].strip())
        except InvalidRequirement:
            continue  # an option, an address, or nothing
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            installed = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            installed = "missing"
        if installed == "missing" or not wanted.specifier.contains(installed, prereleases=True):
            found.append(f"{wanted.name} {installed} ({wanted.specifier or 'any'})")
    return ", ".join(found)
