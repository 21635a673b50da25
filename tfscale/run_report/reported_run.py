"""ReportedRun: all that a run's folder tells of it, for a page. Never fails for what is in there.

Owns which files are looked at. What can't be read is left out, with a remark.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.errors import TfscaleError, first_line
from tfscale.files import inside, numbers, parse_json, read_plain
from tfscale.run_dir.attempts import Attempts
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.manifest import MANIFEST, name_of, steps
from tfscale.run_folders.run_record import RunRecord
from tfscale.run_report.run_history import RunHistory

_SHOWN, _MOST_PICTURES, _MOST_BYTES = "shown", 12, 4 * 2**20
_PICTURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif"}  # by how their files begin


@dataclass(frozen=True)
class ShownPicture:
    """A picture that the task left for people, as an address that holds all of it."""

    name: str
    address: str


@dataclass(frozen=True)
class ReportedRun:
    """One run.

    Attributes:
        attempts: the lines of its attempt log.
        plan: of plan.json.
        versions: of the export's process by package, {} where nothing was exported.
        code: digests of the code, and the version of tfscale, as the newest checkpoint has them.
        places: where things are, by what they are.
        remarks: what can't be shown, for people.
    """

    record: RunRecord
    history: RunHistory
    attempts: list[dict[str, Any]]
    plan: Mapping[str, Any]
    versions: Mapping[str, Any]
    code: Mapping[str, Any]
    places: Mapping[str, str]
    pictures: list[ShownPicture]
    remarks: list[str]

    @classmethod
    def read(cls, record: RunRecord) -> ReportedRun:
        """Reads the folder of a run that was found."""
        reading, history = _Reading(record.path), RunHistory.read(record.path)
        newest = reading.checkpoints[:1]
        manifest = reading.mapping(f"checkpoints/{newest[0]}/{MANIFEST}") if newest else {}
        found = cls(
            record,
            history,
            reading.attempts(),
            reading.mapping("plan.json"),
            _part(reading.mapping("export/export.json"), "versions"),
            _part(manifest, "code"),
            _places(record, reading.checkpoints),
            reading.pictures(),
            reading.remarks,
        )
        found.remarks.extend(history.remarks)
        return found


class _Reading:
    """Of one folder; `remarks` are what can't be read there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.remarks: list[str] = []
        self.checkpoints: list[str] = [] if (folder / "checkpoints").is_symlink() else steps(folder / "checkpoints")

    def mapping(self, name: str) -> dict[str, Any]:
        """Of a JSON object; {} where there is no such file."""
        try:
            value = numbers(parse_json(read_plain(inside(self.folder, name)), where=name))
            if isinstance(value, dict):
                return value
            self.remarks.append(f"{name} is no JSON object")
        except FileNotFoundError:
            pass
        except TfscaleError as error:
            self.remarks.append(error.what)
        except (OSError, ValueError) as error:
            self.remarks.append(f"{name} can't be read: {getattr(error, 'strerror', None) or first_line(error)}")
        return {}

    def attempts(self) -> list[dict[str, Any]]:
        try:
            return Attempts(RunDir(self.folder).for_reading()).lines()
        except (TfscaleError, OSError) as error:
            self.remarks.append(error.what if isinstance(error, TfscaleError) else first_line(error))
            return []

    def pictures(self) -> list[ShownPicture]:
        """Of the folder in which tasks leave files for people."""
        try:
            names = sorted(os.listdir(inside(self.folder, _SHOWN)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (TfscaleError, OSError) as error:
            self.remarks.append(error.what if isinstance(error, TfscaleError) else first_line(error))
            return []
        found: list[ShownPicture] = []
        for name in names:
            try:
                content = read_plain(self.folder / _SHOWN / name, most=_MOST_BYTES)
            except (TfscaleError, OSError):
                continue  # a folder, or too large for a page
            kind = next((kind for start, kind in _PICTURES.items() if content.startswith(start)), "")
            if kind and len(found) < _MOST_PICTURES:
                address = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
                found.append(ShownPicture(name, address))
        return found


def _part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = value.get(name)
    return part if isinstance(part, dict) else {}


def _places(record: RunRecord, checkpoints: list[str]) -> dict[str, str]:
    folder = record.path.absolute()
    found = {"folder": str(folder)}
    if record.best is not None and (best := _name_of(record.best["step"])) in checkpoints:
        found["best checkpoint"] = str(folder / "checkpoints" / best)
    if checkpoints:
        found["last checkpoint"] = str(folder / "checkpoints" / checkpoints[0])
    found |= {name: str(folder / name) for name in ("export", _SHOWN, "profile") if (folder / name).is_dir()}
    if isinstance(tracked := record.result.get("mlflow_run_id"), str):
        found["MLflow run"] = tracked
    return found


def _name_of(step: int) -> str:
    return name_of(step) if 0 <= step < 10**12 else ""
