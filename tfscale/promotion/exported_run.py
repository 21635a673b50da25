"""The export of a run as a registered version holds it: its files, and what its tags say.

Owns which files those are, and that the export is whole. Refuses to know registries, and why it is registered.

    exported = ExportedRun.of(Path("runs/resnet/563a34baa8"))
    exported.digest, exported.step
    with exported.files(signature_file) as content:
        registry.upload(run_id, "registered/1f0c", content)
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.console import hushed
from tfscale.errors import CheckpointUnusable, DataCorrupt, DataMissing
from tfscale.export.export_folder import ABOUT, CARD
from tfscale.export.warm_up import read_examples
from tfscale.files import digest_of, lines_of, read_json, sha256
from tfscale.process.startup import cpu_alone, lean
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.manifest import MANIFEST, name_of
from tfscale.run_dir.registered_run import FILES, RUN
from tfscale.tracking.mlflow_registry import ModelFiles
from tfscale.version import __version__

_EXAMPLES = 2  # of the input example: a page shows it


@dataclass(frozen=True)
class ExportedRun:
    """A run's folder with a whole export.

    Attributes:
        about: what export.json says.
        digest: of the export: its files, its step and its experiment.
    """

    folder: Path
    about: Mapping[str, Any]
    digest: str

    @classmethod
    def of(cls, folder: Path) -> ExportedRun:
        """Raises DataMissing: there is no run, or no export; DataCorrupt: it isn't what was checked, or is another
        run's; CheckpointUnusable: the checkpoint that was exported is gone, with which others are compared."""
        if not (folder / FILES[0]).is_file():
            raise DataMissing(f"there is no run at {folder}", where="run.dir", fix="give run.dir=FOLDER of a run")
        about = read_json(folder / "export" / ABOUT)
        again = f"tfscale export run.dir={folder}"
        if not isinstance(about, dict):
            raise DataMissing("the run isn't exported yet", where=f"{folder}/export", fix=again)
        try:
            files = {folder / "export" / name: str(file["sha256"]) for name, file in about["files"].items()}
            step, identity = int(about["step"]), str(about["identity"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataCorrupt("it doesn't say what was exported", where=f"{folder}/export/{ABOUT}", fix=again) from None
        for path, digest in files.items():
            if not path.is_file() or sha256(path) != digest:
                raise DataCorrupt("the file isn't what was exported and checked", where=str(path), fix=again)
        checkpoint = folder / "checkpoints" / name_of(step)
        if not checkpoint.is_dir():
            raise CheckpointUnusable(
                f"the checkpoint of step {step}, which was exported, is gone", where=str(folder), fix=again
            )
        manifest = read_json(checkpoint / MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("identity", "") != identity:
            raise DataCorrupt(
                f"the export is another run's than the checkpoint of step {step}, which is compared with others",
                where=f"{folder}/export",
                fix=again,
            )
        return cls(folder, about, digest_of([about["files"], about["step"], about["identity"]]))

    @property
    def step(self) -> int:
        return int(self.about["step"])

    @property
    def name(self) -> str:
        """Of the run, wherever its folder lies."""
        return "/".join(self.folder.resolve().parts[-2:])

    @property
    def card(self) -> str:
        """Its model card, "" where an older version of tfscale exported it, which wrote none."""
        file = self.folder / "export" / CARD
        return file.read_text(encoding="utf-8", errors="replace") if CARD in self.about["files"] else ""

    @property
    def signature(self) -> dict[str, list[tuple[str, np.dtype, list[int]]]]:
        """ "inputs" and "outputs": name, dtype and shape of each, -1 for any size."""
        return {
            part: [
                (name, _dtype(one["dtype"]), [-1 if size is None else size for size in one["shape"]])
                for name, one in self.about[part].items()
            ]
            for part in ("inputs", "outputs")
        }

    @contextlib.contextmanager
    def files(self, ml_model: str) -> Iterator[ModelFiles]:
        """What is uploaded: the export, an input example, and of the run what it takes to open it again.

        Args:
            ml_model: the file MLmodel.
        """
        export, checkpoint = self.folder / "export", name_of(self.step)
        with tempfile.TemporaryDirectory(prefix="tfscale-register-") as made:
            versions = "".join(f"{name}=={number}\n" for name, number in self.about["versions"].items())
            for name, text in {
                "MLmodel": ml_model,
                "input_example.json": json.dumps(self.input_example()),
                "requirements.txt": versions + "".join(f"{name}\n" for name in self.about["imports"]),
            }.items():
                (Path(made) / name).write_text(text, encoding="utf-8")
            folders = {
                "": Path(made),
                "saved_model": export / "saved_model",
                f"{RUN}/checkpoints/{checkpoint}": self.folder / "checkpoints" / checkpoint,
            }
            own = {f"{RUN}/{name}": self.folder / name for name in FILES}
            there = {name: export / name for name in (ABOUT, CARD, "model.keras")} | own
            yield ModelFiles(folders, {name: file for name, file in there.items() if file.is_file()})

    def input_example(self) -> dict[str, Any]:
        """A request of TensorFlow Serving's protocol, as `tfscale serve` takes it, with examples of the export."""
        if "tensorflow" not in sys.modules:
            cpu_alone()
        with hushed():
            with lean():
                import tensorflow  # noqa: F401
            found = read_examples(self.folder / "export" / "saved_model")
        return {"inputs": {name: _plain(values[:_EXAMPLES].tolist()) for name, values in found.items()}}

    def tags(self, split: str) -> dict[str, str]:
        """What a version's tags say of the run: whose it is, of which experiment and data, and how good it was."""
        result = RunDir(self.folder).read_json("result.json") or {}
        data = result.get("data") or {}
        metrics = {f"metric.{split}.{name}": f"{value:.6g}" for name, value in self._metrics(split).items()}
        told = {
            "run": self.name,
            "export": self.digest,
            "experiment": str(self.about["identity"]),
            "step": str(self.step),
            "version": __version__,
            **{f"data.{key}": str(data[key]) for key in ("name", "version", "hash") if data.get(key)},
            **metrics,
        }
        return {f"tfscale.{key}": value for key, value in told.items()}

    def _metrics(self, split: str) -> dict[str, float]:
        """Of the last evaluation of the step that was exported."""
        found: dict[str, float] = {}
        file = RunDir(self.folder).metrics
        for line in lines_of(file) if file.is_file() else ():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if row.get("step") == self.step and row.get("kind") == split:
                    found = {k: v for k, v in row.items() if isinstance(v, float | int) and k not in ("step", "epoch")}
        return found


def _dtype(name: str) -> np.dtype:
    """TensorFlow's texts are objects: NumPy's own bytes lose zeros at their end."""
    return np.dtype(object if name == "string" else name)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
