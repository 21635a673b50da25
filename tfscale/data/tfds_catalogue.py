"""Which data sets TFDS knows, told without importing it, which would import TensorFlow."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path


@cache
def catalogue() -> frozenset[str]:
    """The names in TFDS's catalogue, read from the package's sources."""
    found = importlib.util.find_spec("tensorflow_datasets")
    if found is None or not found.submodule_search_locations:
        return frozenset()
    root = Path(found.submodule_search_locations[0])
    names = {path.parent.name for path in root.glob("datasets/*/*_dataset_builder.py")}
    bases: dict[str, set[str]] = {}  # class -> its bases, over all builders' files
    for path in root.glob("*/**/*.py"):
        if path.relative_to(root).parts[0] in ("core", "testing", "scripts", "datasets") or "_test" in path.stem:
            continue
        text = path.read_text(errors="ignore")
        for name, parents in re.findall(r"^class (\w+)\(([^)]*)\)", text, re.MULTILINE):
            bases[name] = {parent.strip().split(".")[-1] for parent in parents.split(",")}
        names.update(re.findall(r"""^  name = ["'](\w+)["']""", text, re.MULTILINE))
    builders = {"GeneratorBasedBuilder", "BeamBasedBuilder"}
    while more := {name for name, parents in bases.items() if parents & builders} - builders:
        builders |= more
    return frozenset(names | {_snake(name) for name in builders})


def _snake(name: str) -> str:
    """TFDS's own conversion of a class's name."""
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()
