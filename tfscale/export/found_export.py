"""An export that is there already: of the checkpoint that is asked for, and as it was checked.

Owns when an export need not be made again. Refuses to import TensorFlow.

    found_export(Path("runs/r"), "best")      # runs/r/export, or None
"""

from __future__ import annotations

import json
from pathlib import Path

from tfscale.errors import CheckpointUnusable
from tfscale.export.export_folder import ABOUT
from tfscale.files import read_json, read_plain, sha256
from tfscale.run_dir.choice import candidates
from tfscale.run_dir.evaluated import NOTE
from tfscale.run_dir.manifest import MANIFEST, best_of, number, steps


def found_export(run: Path, which: str | int) -> Path | None:
    """The folder of the run's export where nothing would be gained by another one; None where it isn't of this
    checkpoint, is older or damaged, or where only the run's configuration tells which checkpoint is meant."""
    checkpoints, export = run / "checkpoints", run / "export"
    about = read_json(export / ABOUT)
    if not isinstance(about, dict) or (run / NOTE).exists():
        return None
    try:
        chosen = candidates(which, steps(checkpoints), lambda name: best_of(checkpoints / name), where=str(run))
        manifest = checkpoints / chosen[0] / MANIFEST
        same = about["step"] == number(chosen[0])
        same = same and about["identity"] == json.loads(read_plain(manifest)).get("identity", "")
        same = same and (export / ABOUT).stat().st_mtime_ns >= manifest.stat().st_mtime_ns
        return export if same and _is_whole(export, about) else None
    except (CheckpointUnusable, IndexError, KeyError, TypeError, AttributeError, OSError, ValueError):
        return None  # `tfscale export` says what is wrong, or makes a new one


def _is_whole(export: Path, about: dict) -> bool:
    files = about["files"]
    return bool(files) and all(sha256(export / name) == file["sha256"] for name, file in files.items())
