"""A SavedModel in memory.

Owns TensorFlow. Refuses to know requests, and how examples of several are put together.

    model = TensorFlowModel.load(version)
    model({"image": array})                # {"probabilities": float32 [rows, 10], ...}
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tfscale.errors import DataCorrupt, UsageError, first_line
from tfscale.export.warm_up import read_examples
from tfscale.serving.loaded_model import SIGNATURE, LoadedModel
from tfscale.serving.model_place import Version
from tfscale.serving.tensor_specs import SPOKEN, TensorSpec

_CHOOSING = {"Where", "Unique", "UniqueV2", "UniqueWithCounts", "DynamicPartition", "BooleanMask", "ListDiff"}
_CHOOSING |= {"NonMaxSuppression", "NonMaxSuppressionV2", "NonMaxSuppressionV3", "NonMaxSuppressionV4"}


@dataclass(frozen=True, eq=False)
class TensorFlowModel(LoadedModel):
    """One version; its inputs and outputs are in alphabetic order, since a SavedModel keeps none."""

    platform: ClassVar[str] = "tensorflow_savedmodel"
    is_compiled: ClassVar[bool] = True
    is_parallel: ClassVar[bool] = True

    _function: Any
    _held: Any  # whose variables the function reads

    @classmethod
    def load(cls, version: Version) -> TensorFlowModel:
        """Reads the files; takes seconds.

        Raises:
            UsageError: a package that it needs is missing.
            DataCorrupt: it can't be read, or has no signature `serving_default`.
        """
        import tensorflow as tf

        about, place = version.about, str(version.folder)
        for module in about.get("imports", ()):
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise UsageError(
                    f"the model needs {module}: {error}", where=place, fix=f"pip install {module.replace('_', '-')}"
                ) from None
        try:
            held = tf.saved_model.load(place)
            function = held.signatures[SIGNATURE]
        except KeyError:
            raise DataCorrupt(f"the model has no signature {SIGNATURE}", where=place, fix="export it again") from None
        except Exception as error:  # TensorFlow raises whatever it meets in a broken file
            raise DataCorrupt(
                f"the model can't be read: {first_line(error)}", where=place, fix="export it again"
            ) from error
        gaps, fields = about.get("gaps"), about.get("fields") or {}
        takes = {
            name: _spec(name, spec, gaps=None if gaps is None else name in gaps, field=str(fields.get(name, "")))
            for name, spec in sorted(function.structured_input_signature[1].items())
        }
        answers = {name: _spec(name, spec) for name, spec in sorted(function.structured_outputs.items())}
        classes = tuple(map(str, about["classes"])) if about.get("classes") else None
        for spec in (*takes.values(), *answers.values()):
            if spec.dtype not in SPOKEN:
                what = f"{spec.name} is {spec.dtype}, which no protocol has"
                raise DataCorrupt(what, where=place, fix="export it with numbers and texts alone")
        examples = read_examples(version.folder)
        fits = set(examples) == set(takes) and all(
            array.dtype == takes[name].numpy_dtype and array.ndim == len(takes[name].shape)
            for name, array in examples.items()
        )
        return cls(version, takes, answers, classes, examples if fits else {}, function, held)

    @property
    def keeps_rows(self) -> bool:
        return bool(self.version.about) or not self._chooses_rows

    @functools.cached_property
    def _chooses_rows(self) -> bool:
        """Whether a part of it answers as many entries as the values say, such as tf.boolean_mask. In an export of ours
        such parts are inside of single examples."""
        definition = self._function.graph.as_graph_def()
        nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
        return any(node.op in _CHOOSING for node in nodes)

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import tensorflow as tf

        tensors = {
            name: tf.constant(array, tf.string) if array.dtype == object else tf.convert_to_tensor(array)
            for name, array in arrays.items()
        }
        found = self._function(**tensors)
        return {name: found[name].numpy() for name in self.outputs}

    def is_about_examples(self, error: Exception) -> bool:
        from tensorflow.errors import InvalidArgumentError

        return isinstance(error, InvalidArgumentError)


def _spec(name: str, spec: Any, *, gaps: bool | None = None, field: str = "") -> TensorSpec:
    shape = tuple(spec.shape.as_list()) if spec.shape.rank is not None else (None,)
    return TensorSpec(name, spec.dtype.name, shape, gaps, field=field)
