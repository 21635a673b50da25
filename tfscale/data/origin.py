"""What data say of where they come from, for whoever finds a model that learnt from them.

Owns where that is written down: TFDS's dataset_info.json, and the import.json of an import. Refuses to guess.

    origin_of(source)       # {"name": "flights", "version": "1.0.0", "source": "imported from flights.csv ...", ...}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfscale.data.source import Source
from tfscale.data.tfds import Tfds
from tfscale.files import read_json


def origin_of(source: Source) -> dict[str, str]:
    """ "name", "version", "source", "licence", "citation" and "description", as far as the data tell them, without
    TensorFlow. Of an import the name of the file or folder is all that is known of its source."""
    folder = source.folder() if isinstance(source, Tfds) else None
    if folder is None:
        return {}
    about, imported = (_mapping(folder / name) for name in ("dataset_info.json", "import.json"))
    told = {
        "name": getattr(source, "name", ""),
        "version": source.version,
        "source": _import(imported) or ", ".join(_part(about, "location").get("urls") or ()),
        "licence": _part(about, "redistributionInfo").get("license"),
        "citation": about.get("citation"),
        "description": about.get("description") if not imported else "",
    }
    return {name: str(value).strip() for name, value in told.items() if value}


def _import(about: dict[str, Any]) -> str:
    if not about.get("path"):
        return ""
    files = _part(about, "files")
    hashed = f", SHA-256 of them {files['digest']}" if files.get("digest") else ""
    count = f" (files: {files['count']}{hashed})" if files.get("count") else ""
    return f"imported from {Path(str(about['path'])).name}{count}"


def _part(about: dict[str, Any], name: str) -> dict[str, Any]:
    found = about.get(name)
    return found if isinstance(found, dict) else {}


def _mapping(file: Path) -> dict[str, Any]:
    found = read_json(file, trusted=True)
    return found if isinstance(found, dict) else {}
