"""Former names: how version 0.1 named the folders of runs, so that they are found again.

Owns the fields that the classes had then, their defaults and the modules where they lay. This is history: nothing is
ever changed here, and what later versions add to a class is no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfscale.files import digest_of

_REQUIRED: Any = object()
_TFDS = {"name": _REQUIRED, "train_split": "train", "test_split": "test"}
_SPLITS = {"train": _REQUIRED, "test": _REQUIRED}
_NOT_GIVEN = {"image_size": None, "channels": None, "num_classes": None}
_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet": (
        "tfscale.recipes.resnet",
        {"depth": 50, "width": 64, "label_smoothing": 0.0, "augment": "none", "sync_batch_norm": False, **_NOT_GIVEN},
    ),
    "NamedModel": (
        "tfscale.keras_task.named",
        {
            "model": "???",
            "arguments": {},
            "loss_function": None,
            "metrics": [],
            "label": "label",
            "augment": "none",
            **_NOT_GIVEN,
        },
    ),
    "GivenModel": (
        "tfscale.keras_task.given",
        {"model": _REQUIRED, "layers": _REQUIRED, "compiled": _REQUIRED, "function": _REQUIRED},
    ),
    "Csv": ("tfscale.data.csv", {"test_share": 0.0, "label": "???", "columns": None, "content": _REQUIRED}),
    "NumpyFiles": ("tfscale.data.numpy_files", {"num_classes": None, "content": _REQUIRED}),
    "ImageFolder": (
        "tfscale.data.image_folder",
        {
            "train_split": "train",
            "test_split": None,
            "test_share": 0.2,
            "classes": None,
            "channels": 3,
            "verify": True,
            "max_pixels": 89478485,
            "skip_bad": False,
            "files": _REQUIRED,
        },
    ),
    "TfRecord": (
        "tfscale.data.tfrecord",
        {"features": {}, "label": "label", "num_classes": None, "files": _REQUIRED},
    ),
    "Tfds": ("tfscale.data.tfds", _TFDS),
    "Mnist": ("tfscale.data.mnist", _TFDS),
    "FashionMnist": ("tfscale.data.fashion_mnist", _TFDS),
    "Synthetic": (
        "tfscale.data.synthetic",
        {
            "image_size": 224,
            "channels": 3,
            "num_classes": 1000,
            "train_examples": 1281167,
            "test_examples": 50000,
        },
    ),
    "GivenArrays": ("tfscale.data.given", _SPLITS),
    "GivenDataset": ("tfscale.data.given", _SPLITS),
    "GivenFunctions": ("tfscale.data.given", _SPLITS),
}
_OPTIMIZER: dict[str, Any] = {
    "name": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-7,
    "weight_decay": 0.0,
    "no_decay": ["bias", "gamma", "beta"],
    "schedule": "constant",
    "warmup": "0st",
    "warmup_from": 0.0,
    "decay_at": [],
    "decay_by": 0.1,
    "final": 0.0,
}


def former_name(
    identity: Mapping[str, Any],
    defaults: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    paths: Mapping[str, str],
) -> str:
    """What version 0.1 would have called the run.

    Args:
        identity, defaults: see `config.identity` and `config.identity_defaults`.
        optimizer: the section as it is given: None for what isn't.
        paths: module.class of task and data.
    """
    found: dict[str, Any] = {"init_from": identity["init_from"]} if "init_from" in identity else {}
    for name in ("task", "data"):
        found[name] = _part(identity[name], defaults[name], paths[name])
    train = identity["train"]
    found["train"] = {key: train[key] for key in ("global_batch", "seed", "clip_norm")}
    if train["ema"] is not None:
        found["train"]["ema"] = train["ema"]
    found["optimizer"] = {k: v if optimizer.get(k) is None else optimizer[k] for k, v in _OPTIMIZER.items()}
    return digest_of(found, default=str)[:10]


def _part(now: Mapping[str, Any], defaults: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A task or source as it was: a user's own with all that it has, one of ours with what it had then."""
    name, values = now["class"], {key: value for key, value in now.items() if key != "class"}
    if name not in _CLASSES or not path.startswith("tfscale."):
        return {"class": path, **values}
    module, fields = _CLASSES[name]
    was = {}
    for key, default in fields.items():
        unasked = key not in values or (key in defaults and values[key] == defaults[key])
        if unasked and default is not _REQUIRED:
            was[key] = default
        elif key in values:
            was[key] = values[key]
    return {"class": f"{module}.{name}", **was}
