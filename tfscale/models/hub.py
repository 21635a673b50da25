"""KerasHub, the one file that imports it: the extra `hub`, which only those need who begin from a preset.

Owns what is said where the library is missing, and what a preset's folder is. Refuses to know tasks.

    if is_preset("bert_tiny"):
        backbone = keras_hub("init_from").models.Backbone.from_preset("bert_tiny")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfscale.errors import UsageError
from tfscale.files import read_json


def keras_hub(where: str) -> Any:
    """The library; a preset in a local folder is read without the network.

    Args:
        where: the override that needs it, for the error.

    Raises:
        UsageError: it isn't installed.
    """
    try:
        import keras_hub as library
    except ImportError as error:
        raise UsageError(
            f"presets are read by KerasHub, which can't be imported: {error}",
            where=where,
            fix='pip install "tfscale[hub]"',
        ) from None
    return library


def is_preset(path: str | Path) -> bool:
    """Whether a local folder holds a preset: KerasHub's own, as `save_to_preset` writes it, or a checkpoint of the
    transformers library, which KerasHub converts."""
    return isinstance(read_json(Path(path) / "config.json", trusted=True), dict)
