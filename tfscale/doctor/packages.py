"""The versions that are installed beside those that were tried, and what never works together.

Owns which pairs are known to be bad. Bounds are those of the packages' own metadata. Refuses to import any of them.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import Requirement

from tfscale.doctor.diagnosis import OK, WARNING, WRONG, Finding
from tfscale.version import __version__

_SHOWN = ("tensorflow", "keras", "numpy", "protobuf", "hydra-core", "tensorflow-datasets", "mlflow")
_WITH_BOUNDS = ("tfscale", "tensorflow", "keras")  # whose requirements are compared
# Each holds a whole package `tensorflow`, and the one that was installed last has overwritten the others' files.
_SAME_FILES = ("tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tf-nightly", "tf-nightly-cpu")
TESTED = Path(__file__).parents[2] / "constraints.txt"  # in a checkout; a wheel has the bounds alone


def look_at_packages(environ: Mapping[str, str], *, tested: Path = TESTED) -> Iterator[Finding]:
    """
    Args:
        tested: a file of NAME==VERSION, which need not exist.
    """
    yield from _versions(tested)
    for name in _WITH_BOUNDS:
        yield from _out_of_bounds(name)
    yield from _overwritten()
    yield from _other_keras(environ)


def _versions(tested: Path) -> Iterator[Finding]:
    there = {name: version for name in _SHOWN if (version := installed(name))}
    listed = ", ".join(f"{name} {version}" for name, version in there.items())
    python = platform.python_version()
    yield Finding("versions", OK, f"tfscale {__version__}, Python {python}, {listed}; {platform.platform()}")
    passed = _passed(tested)
    other = [f"{name} {passed[name]}" for name, version in there.items() if passed.get(name, version) != version]
    if other:
        yield Finding("tested_versions", OK, f"the tests passed with {', '.join(other)}; the bounds decide")
    minor = ".".join(python.split(".")[:2])
    known = _tested_pythons()
    if known and minor not in known:
        told = f"tfscale was never tried on Python {minor}"
        yield Finding("python", WARNING, told, f"make the environment with Python {', '.join(known)}")


def _passed(tested: Path) -> dict[str, str]:
    try:
        text = tested.read_text()
    except OSError:
        return {}
    return {name.lower(): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


def _tested_pythons() -> list[str]:
    try:
        lines = metadata.metadata("tfscale").get_all("Classifier") or []
    except metadata.PackageNotFoundError:
        return []
    return [found[1] for line in lines if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))]


def installed(name: str) -> str:
    """The version of a distribution, "" where it isn't there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _out_of_bounds(name: str) -> Iterator[Finding]:
    """What this distribution requires and isn't so."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        if name == "tfscale":
            told = "tfscale isn't installed as a package, so that the versions it was made for aren't known"
            yield Finding("bounds", WARNING, told, "pip install -e . in its folder")
        return
    broken = [(one, version) for one in map(Requirement, lines) if (version := _broken(one)) is not None]
    for requirement, version in broken:
        bounds = f"{requirement.name}{requirement.specifier}"
        what = f"{requirement.name} {version} is installed" if version else f"{requirement.name} is missing"
        told = f"{name} {installed(name)} takes {bounds}, and {what}"
        yield Finding("bounds", WRONG if version else WARNING, told, f'pip install "{bounds}"')
    if not broken:
        yield Finding("bounds", OK, f"{name} {installed(name)} has all that it requires, in versions that it takes")


def _broken(requirement: Requirement) -> str | None:
    """The version that breaks it, "" where it is missing; None where it holds, or is of an extra that isn't there."""
    version, marker = installed(requirement.name), requirement.marker
    if not _is_meant(requirement):
        if not version or (marker is not None and "extra" not in str(marker)):
            return None
    elif not version:
        return ""
    return None if requirement.specifier.contains(version, prereleases=True) else version


def _is_meant(requirement: Requirement) -> bool:
    """Whether it is required here without any extra."""
    try:
        return requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    except UndefinedEnvironmentName:
        return False


def _overwritten() -> Iterator[Finding]:
    there = [f"{name} {version}" for name in _SAME_FILES if (version := installed(name))]
    names = [one.split()[0] for one in there]
    if len(there) > 1:
        told = f"{' and '.join(there)} are installed beside each other, and overwrite each other's files"
        fix = f"pip uninstall -y {' '.join(names)}, then pip install {names[0]}"
        yield Finding("tensorflow_twice", WRONG, told, fix)
    if version := installed("tensorflow-metal"):
        told = f"tensorflow-metal {version} is installed, which knows only older TensorFlows"
        yield Finding("tensorflow_metal", WRONG, told, "pip uninstall -y tensorflow-metal")


def _other_keras(environ: Mapping[str, str]) -> Iterator[Finding]:
    if environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True"):  # as TensorFlow reads it
        told = "TF_USE_LEGACY_KERAS makes tf.keras Keras 2, whose models tfscale can't train"
        yield Finding("legacy_keras", WRONG, told, "unset TF_USE_LEGACY_KERAS")
    backend = environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        told = f"KERAS_BACKEND={backend} makes Keras compute without TensorFlow, and tfscale trains with it"
        yield Finding("keras_backend", WRONG, told, "unset KERAS_BACKEND")
