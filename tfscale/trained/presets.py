"""Weights of a KerasHub preset, in a folder that `save_to_preset` wrote or that the transformers library did.

Owns how a preset becomes a model. Refuses to know the model that its weights go into.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tfscale.errors import DataCorrupt, DataMissing, first_line
from tfscale.models.hub import keras_hub
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


def preset_weights(folder: Path) -> StoredWeights:
    """The weights of the preset's backbone, as KerasHub makes it; the network is not asked.

    Raises:
        UsageError: KerasHub isn't installed.
        DataCorrupt: it can't make the model.
    """
    check_preset(folder)
    hub = keras_hub("init_from")
    try:
        backbone = hub.models.Backbone.from_preset(str(folder.absolute()))
    except Exception as error:  # KerasHub, Keras and h5py raise whatever they meet
        raise DataCorrupt(
            f"KerasHub can't read the preset: {first_line(error)}", where=str(folder), fix="save it again"
        ) from error
    head = (folder / "task.weights.h5").is_file()
    return replace(of_model(backbone), notice="the preset's own head (task.weights.h5) is not loaded" * head)
