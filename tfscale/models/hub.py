"""KerasHub, the one file that imports it: presets opened, checked, and a small one made where none is given.

Owns what is said where the library, a preset or the network is missing, what a preset's folder is and which code it may
name, and LoRA. Refuses to know tasks and data. The library comes with the extra `hub`.

    if is_preset("bert_tiny"):
        backbone = keras_hub("init_from").models.Backbone.from_preset("bert_tiny")
    model = opened("bert_tiny", "TextClassifier", num_classes=3, compile=False)
    enable_lora(model, 4)
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.errors import DataCorrupt, DataMissing, OutputError, SecurityRefused, UsageError, first_line, nearest
from tfscale.files import digest_of, read_json, sha256
from tfscale.state.keras_state import foreign_in
from tfscale.task import Footprint

if TYPE_CHECKING:
    import keras

_TRUSTED = ("keras", "keras_hub")  # whose classes a preset may name
_SAVED = "metadata.json"  # when it was saved, which doesn't change what it is


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
        raise _missing(where, str(error)) from None
    return library


def _missing(where: str, why: str) -> UsageError:
    return UsageError(
        f"presets are read by KerasHub, which can't be imported: {why}", where=where, fix='pip install "tfscale[hub]"'
    )


def is_preset(path: str | Path) -> bool:
    """Whether a local folder holds a preset: KerasHub's own, as `save_to_preset` writes it, or a checkpoint of the
    transformers library, which KerasHub converts."""
    return isinstance(read_json(Path(path) / "config.json", trusted=True), dict)


def can_be_name(preset: str) -> bool:
    """Whether it is no place on this machine and may be the name of a preset, which KerasHub, if it is here, knows."""
    is_file = Path(preset).exists() or preset.endswith((".keras", ".h5"))
    return not is_file and not _is_path(preset) and importlib.util.find_spec("keras_hub") is not None


def check_preset(preset: str | None, *, where: str) -> None:
    """Finds without TensorFlow what is wrong with a preset's name or folder; None: only whether there is the library.

    Raises:
        UsageError: KerasHub isn't installed.
        DataMissing: there is no such folder, or no preset in it.
        SecurityRefused: its files name classes that are neither Keras's nor KerasHub's.
    """
    if importlib.util.find_spec("keras_hub") is None:
        raise _missing(where, "No module named 'keras_hub'")
    if preset is None or (not Path(preset).exists() and not _is_path(preset)):
        return  # a name, which the library knows
    folder = Path(preset)
    if not is_preset(folder):
        what = "holds no preset: it has no config.json" if folder.is_dir() else "is no folder"
        raise DataMissing(
            f"{preset} {what}", where=where, fix=f"{where}=FOLDER that save_to_preset wrote, or a preset's name"
        )
    for file in sorted(folder.glob("*.json")):
        content = read_json(file, trusted=True)
        named = {name for name, module in foreign_in(content) if str(module).split(".")[0] not in _TRUSTED}
        if named:
            raise SecurityRefused(
                f"the preset names {', '.join(sorted(named)[:3])}, which is neither Keras's nor KerasHub's: loading it "
                "would run that code",
                where=str(file),
                fix="take a preset of the library's own classes",
            )


def _is_path(preset: str) -> bool:
    return "://" not in preset and (os.sep in preset or preset in (".", ".."))


def content_of(preset: str) -> str:
    """What a preset is, wherever it lies: a hash of a folder's files; the name of one that the library knows."""
    folder = Path(preset)
    if not folder.is_dir():
        return preset
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != _SAVED]
    return digest_of({file.relative_to(folder).as_posix(): sha256(file) for file in files})[:16]


def channels_of(preset: str) -> int:
    """Of the pictures that a preset takes: as its configuration has it; those that the library knows are of RGB."""
    about = read_json(Path(preset) / "config.json", trusted=True)
    shape = (about.get("config") or {}).get("image_shape") if isinstance(about, dict) else None
    return int(shape[-1]) if isinstance(shape, list) and shape and shape[-1] else 3


def opened(preset: str, kind: str, *, where: str = "task.preset", **arguments: Any) -> Any:
    """`keras_hub.models.KIND.from_preset`, with errors that say what to do.

    Args:
        kind: a class of `keras_hub.models`, such as "ImageClassifier" or "CausalLMPreprocessor".

    Raises:
        UsageError: the library knows no such preset, or it is of another kind.
        DataMissing: it isn't here, and can't be downloaded.
        DataCorrupt: its files can't be read.
    """
    models = keras_hub(where).models
    cls = getattr(models, kind)
    check_preset(preset, where=where)
    local = Path(preset).is_dir()
    if not local and "://" not in preset and preset not in models.Backbone.presets:
        names = list(models.Backbone.presets)
        raise UsageError(
            f"there is no {preset!r} here, and KerasHub knows no preset of this name{nearest(preset, names)}",
            where=where,
            fix="give a folder, a name of https://keras.io/keras_hub/presets/, or hf://OWNER/NAME",
        )
    try:
        # A path that no preset's name is: the library takes its own names first
        return cls.from_preset(str(Path(preset).resolve()) if local else preset, **arguments)
    except FileNotFoundError as error:
        raise DataMissing(
            f"{preset} isn't a whole preset of a {kind}: {first_line(error)}",
            where=where,
            fix=f"save it by {kind.removesuffix('Preprocessor')}.save_to_preset, with its preprocessor",
        ) from error
    except Exception as error:  # the hubs' clients and h5py raise whatever they meet
        if "Unable to find a subclass" in str(error) or "not a subclass" in str(error):
            task = kind.removesuffix("Preprocessor")
            raise UsageError(
                f"the preset {preset} is no {task}: {first_line(error)}",
                where=where,
                fix=f"choose a preset of a {task}",
            ) from error
        if local:
            raise DataCorrupt(
                f"the preset can't be read as a {kind}: {first_line(error)}", where=preset, fix="save it again"
            ) from error
        task = kind.removesuffix("Preprocessor")
        classes = ", num_classes=2" if task.endswith("Classifier") else ""
        loaded = f"keras_hub.models.{task}.from_preset({preset!r}{classes})"
        raise DataMissing(
            f"the preset {preset} isn't on this machine, and can't be downloaded: {first_line(error)}",
            where=where,
            fix=f"where there is a network: {loaded}.save_to_preset('FOLDER'), then {where}=FOLDER with that folder",
        ) from error


def enable_lora(model: keras.Model, rank: int) -> None:
    """Low-rank adaptation (Hu et al., 2021) of the backbone's queries and values, as the library has it: of the
    backbone nothing else trains, its biases neither.

    Raises:
        UsageError: it has no such layers.
    """
    import keras

    from tfscale.hooks.keras_hooks import layers_in, lora_in_float64

    with lora_in_float64(keras.Layer):
        model.backbone.enable_lora(rank)
    adapted = [layer for layer in layers_in(model.backbone) if getattr(layer, "lora_enabled", False)]
    if not adapted:
        raise UsageError(
            f"{type(model.backbone).__name__} has no attention whose queries and values LoRA adapts",
            where="task.lora_rank",
            fix="leave it away, and choose what trains by task.freeze",
        )
    for layer in adapted:
        for variable in layer.trainable_variables:
            variable.trainable = "lora_kernel" in variable.path


# -- a preset of our own, for a machine without a network


@dataclass(frozen=True)
class SmallDeiT:
    """A DeiT (Touvron et al., 2020) with random weights, of pictures [image_size, image_size, channels]: no pretrained
    model, but one that is opened, adapted and saved as those are."""

    image_size: int
    channels: int
    width: int = 96
    layers: int = 4
    heads: int = 3

    @property
    def name(self) -> str:
        return f"deit-{self.image_size}x{self.channels}-{self.layers}x{self.width}"

    @property
    def patch(self) -> int:
        """The smallest patches that make eight in a row or fewer."""
        size = self.image_size
        return next(p for p in range(1, size + 1) if size % p == 0 and size // p <= 8)

    def footprint(self, num_classes: int) -> Footprint:
        """Of the classifier, by the paper's formulas; twice the width inside of the feed-forward part."""
        width, tokens = self.width, (self.image_size // self.patch) ** 2 + 2
        pixels = self.patch**2 * self.channels
        block = 4 * width * width + 4 * width + 2 * 2 * width * width + 3 * width + 2 * 2 * width
        parameters = pixels * width + width + (2 + tokens) * width + self.layers * block + 2 * width
        parameters += (width + 1) * num_classes
        products = pixels * width * (tokens - 2) + width * num_classes
        products += self.layers * (8 * width * width * tokens + 2 * tokens * tokens * width)
        kept = 4 * (tokens * width * 14 + 2 * self.heads * tokens * tokens) * self.layers
        return Footprint(parameters=parameters, activation_bytes=kept, forward_flops=2 * products)

    def saved(self, folder: Path) -> Path:
        """Writes it below a folder, once; the same weights everywhere.

        Raises:
            OutputError: the folder can't be written.
        """
        place = folder / self.name
        if is_preset(place):
            return place
        half = folder / f".{self.name}.{os.getpid()}"
        try:
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
            self._built().save_to_preset(str(half))
            try:
                half.rename(place)
            except OSError:
                if not is_preset(place):  # else another process was faster, with the same weights
                    raise
                shutil.rmtree(half, ignore_errors=True)
        except OSError as error:
            raise OutputError(
                f"a small preset can't be written: {error.strerror or error}",
                where=str(folder),
                fix="task.presets=FOLDER of one that can be written, or task.preset=FOLDER of one that is there",
            ) from error
        return place

    def _built(self) -> Any:
        """Keras draws weights from Python's random numbers, whose state is the caller's own."""
        hub = keras_hub("task.preset")
        state = random.getstate()
        random.seed(0)
        try:
            sizes: Mapping[str, Any] = {
                "image_shape": (self.image_size, self.image_size, self.channels),
                "patch_size": self.patch,
                "num_layers": self.layers,
                "num_heads": self.heads,
                "hidden_dim": self.width,
                "intermediate_dim": 2 * self.width,
            }
            backbone = hub.models.DeiTBackbone(**sizes, name="backbone", dtype="float32")
            converter = hub.layers.DeiTImageConverter(
                image_size=(self.image_size, self.image_size), scale=1 / 127.5, offset=-1.0, dtype="float32"
            )
            preprocessor = hub.models.DeiTImageClassifierPreprocessor(image_converter=converter, dtype="float32")
            return hub.models.DeiTImageClassifier(backbone, num_classes=2, preprocessor=preprocessor, compile=False)
        finally:
            random.setstate(state)
