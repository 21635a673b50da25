"""Where Keras 3.15 computes what a training step can have by fewer kernels, and its replacement for a while.

with replaced([(gelu_place(), mine), ((keras.layers.Dense, "call"), other)]):     # mine(original) -> its replacement
    ...                                                                            # a step is traced
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Place = tuple[Any, str]  # a class or a module, and the name of one of its functions
_lock, _originals, _depth = threading.RLock(), list[tuple[Place, Any]](), 0


def layer_normalization_place() -> Place:
    """What LayerNormalization and `keras.ops.layer_normalization` call with tensors: (x, gamma, beta, axis, epsilon,
    rms_scaling).

    Keras 3.15: keras/src/ops/nn.py, `_layer_normalization`.
    """
    from keras.src.ops import nn

    return nn, "_layer_normalization"


def gelu_place() -> Place:
    """What `keras.activations.gelu` and `keras.ops.gelu` call with tensors: (x, approximate).

    Keras 3.15: keras/src/backend/tensorflow/nn.py, `gelu`.
    """
    from keras.src.backend.tensorflow import nn

    return nn, "gelu"


def convolution_place() -> Place:
    """What Keras's convolutions, layers and `keras.ops.conv`, call with tensors: (inputs, kernel, strides, padding,
    data_format, dilation_rate).

    Keras 3.15: keras/src/backend/tensorflow/nn.py, `conv`.
    """
    from keras.src.backend.tensorflow import nn

    return nn, "conv"


def weight_decay_place() -> Place:
    """By which optimizers of Keras take from all variables what decoupled weight decay takes: (self, variables).

    Keras 3.15: keras/src/backend/tensorflow/optimizer.py, `TFOptimizer._apply_weight_decay`.
    """
    from keras.src.backend.tensorflow.optimizer import TFOptimizer

    return TFOptimizer, "_apply_weight_decay"


def is_replaced(thing: Any, name: str) -> bool:
    """Whether a method is our replacement: neither derived classes nor people's own have another one."""
    function = getattr(type(thing), name, None)
    return name not in vars(thing) and str(getattr(function, "__module__", "")).startswith("tfscale.")


def decays(optimizer: Any, variable: Any) -> bool:
    """Whether decoupled weight decay takes from a variable, given as the optimizer's own step is given it.

    Keras 3.15: keras/src/optimizers/base_optimizer.py, `BaseOptimizer._use_weight_decay`.
    """
    return optimizer.weight_decay is not None and optimizer._use_weight_decay(variable)


def is_call_of(layer: Any, kind: type) -> bool:
    """Whether a layer computes its call as this class of Keras's does: a class derived from it, or people who set
    attributes of the class or of the layer, may replace parts.

    Keras 3.15: a layer's own methods, such as `MultiHeadAttention._compute_attention`. Every layer has a `quantize` of
    its own.
    """
    parts = {name for name, part in vars(kind).items() if callable(part) and not name.startswith("__")}
    ours = parts - {"call", "build", "get_config", "add_weight", "compute_output_shape", "compute_output_spec"}
    return not (ours - {"quantize"}) & vars(layer).keys() and all(
        getattr(type(layer), name) is getattr(kind, name) and is_keras_own(getattr(kind, name)) for name in ours
    )


def is_keras_own(function: Any) -> bool:
    """Whether Keras made it: people may have put theirs in its place."""
    return str(function.__module__).startswith("keras.")


def is_replacing() -> bool:
    """Whether functions are replaced now: a training step is traced by our kernels."""
    return bool(_depth)


@contextlib.contextmanager
def replaced(changes: Sequence[tuple[Place, Callable[[Any], Any]]]) -> Iterator[None]:
    """Functions are replaced for the whole process meanwhile; it may be opened again while it is open, also by other
    threads: the replicas of a strategy are traced by threads of their own. What people have replaced stays theirs.

    Args:
        changes: where, and what makes the replacement of the function that is there.
    """
    global _depth
    with _lock:
        if not _depth:
            for (owner, name), make in changes:
                original = getattr(owner, name)
                if not is_keras_own(original):
                    continue
                _originals.append(((owner, name), original))
                setattr(owner, name, make(original))
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            while not _depth and _originals:
                (owner, name), original = _originals.pop()
                setattr(owner, name, original)
