"""Weights of a KerasHub preset: in a folder that `save_to_preset` wrote or that the transformers library did, or by the
name that KerasHub downloads it by.

Owns how a preset becomes a model, and which of its files are missed. Refuses to know the model that its weights go
into.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tfscale.errors import DataMissing
from tfscale.files import read_json
from tfscale.models.hub import keras_hub, opened
from tfscale.trained.weight_files import StoredWeights, check_weights_file, of_model

_WEIGHTS = ("*.weights.h5", "*.weights.json", "*.safetensors")


def check_preset(folder: Path) -> None:
    """Finds without TensorFlow what is wrong with it.

    Raises:
        DataMissing: it holds no weights.
        DataCorrupt, SecurityRefused: one of its files.
    """
    if not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
        raise DataMissing(
            f"the preset {folder} holds no weights",
            where="init_from",
            fix="bring all of its files, such as model.weights.h5 beside config.json",
        )
    for file in folder.glob("*.h5"):
        check_weights_file(file)


def preset_weights(preset: str) -> StoredWeights:
    """The weights of the preset's task, its head among them, or of its backbone where it holds no task; of one that
    KerasHub downloads by its name the backbone.

    Raises:
        UsageError: KerasHub isn't installed, or knows no such name.
        DataMissing: it can't be downloaded.
        DataCorrupt: it can't be made a model.
        SecurityRefused: its files name classes that are neither Keras's nor KerasHub's.
    """
    folder = Path(preset)
    if not folder.is_dir():
        backbone = opened(preset, "Backbone", where="init_from")
        return replace(of_model(backbone), notice=f"of the preset {preset} the backbone is loaded, and no head")
    check_preset(folder)
    about = read_json(folder / "task.json", trusted=True)
    task = about.get("class_name") if isinstance(about, dict) and (folder / "task.weights.h5").is_file() else None
    if task is None or not hasattr(keras_hub("init_from").models, task):
        return of_model(opened(preset, "Backbone", where="init_from"))
    return of_model(opened(preset, task, where="init_from", preprocessor=None, compile=False))
