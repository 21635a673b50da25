"""A model in memory, as requests use it: what it takes and answers, and the call that does it.

Owns what every kind of model has. Refuses to know how one is read, which is `tensorflow_model.py`'s and
`python_model.py`'s, and requests.

    model.inputs["image"].shape            # (None, 28, 28)
    model.is_row_wise                      # True: examples of several requests are computed together
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tfscale.serving.model_place import Version
from tfscale.serving.tensor_specs import TensorSpec

SIGNATURE = "serving_default"


@dataclass(frozen=True, eq=False)
class LoadedModel(abc.ABC):
    """One version.

    Attributes:
        inputs, outputs: of its signature, by name.
        classes: names of the classes, in order; None where nothing tells.
        examples: a few that came with it, by input; empty where it holds none.
        platform: what the Open Inference Protocol calls such models.
        is_compiled: whether every new size of a batch costs it time, so that few sizes are used.
        is_parallel: whether several batches may be computed at once.
    """

    version: Version
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    classes: tuple[str, ...] | None
    examples: Mapping[str, np.ndarray]

    platform: ClassVar[str]
    is_compiled: ClassVar[bool]
    is_parallel: ClassVar[bool]

    @property
    def fixed_rows(self) -> int | None:
        """The only number of examples that it takes at once; None: any."""
        return next((spec.shape[0] for spec in self.inputs.values() if spec.shape and spec.shape[0] is not None), None)

    @property
    def is_row_wise(self) -> bool:
        """Whether every input and output has one entry for each of any number of examples, which knows nothing of the
        others: others can't be computed together with those of another request."""
        specs = (*self.inputs.values(), *self.outputs.values())
        return all(spec.shape and spec.shape[0] is None for spec in specs) and self.keeps_rows

    @property
    @abc.abstractmethod
    def keeps_rows(self) -> bool:
        """Whether it answers about each example by itself, as far as its kind tells."""

    @abc.abstractmethod
    def __call__(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the model says about these examples; raises whatever its own code raises."""

    @abc.abstractmethod
    def is_about_examples(self, error: Exception) -> bool:
        """Whether a call failed for the values that it was given, and whoever asked may hear why."""
