"""Keras's optimizers whose update of a variable is one kernel of TensorFlow's, and LARS and Muon beside them.

Owns the updates. Variables, configuration and results are those of Keras's classes, which issue 5 (SGD) to 14 (Adam)
small operations for every variable: much of a small model's step. In float32 Adam's kernel takes 1 - beta_2 as the
difference of what is rounded, for 0.999 1.3e-5 less than Keras's. Refuses to know configurations.

    optimizer = AdamW(1e-3, weight_decay=0.1)
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfscale.hooks.keras_hooks import place_in
from tfscale.layers.fused_updates import updated_by_adam, updated_by_momentum


class SGD(keras.optimizers.SGD):
    """SGD with momentum in one fused kernel per variable, and L2 weight decay added to the gradient.

    The same variables and the same update as keras.optimizers.SGD with an L2 loss; Keras itself issues five small
    operations per variable, which is what a step of a small model spends its time on.
    """

    def __init__(self, *, l2: float = 0.0, no_decay: tuple[str, ...] = (), **kwargs: Any):
        super().__init__(**kwargs)
        self.l2, self.no_decay = l2, tuple(no_decay)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        place, known = place_in(self, variable)  # on the second device of a strategy it is called bias/replica_1
        gradient = self.adjusted(gradient, variable, bool(self.l2) and not _matches(known, self.no_decay))
        if not updated_by_momentum(self, place, gradient, variable, learning_rate):
            super().update_step(gradient, variable, learning_rate)

    def adjusted(self, gradient: Any, variable: Any, decays: bool) -> Any:
        """The gradient that momentum sums up."""
        return tf.convert_to_tensor(gradient) + self.l2 * tf.convert_to_tensor(variable) if decays else gradient

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l2": self.l2, "no_decay": self.no_decay}


class LARS(SGD):
    """SGD whose rate of every matrix and kernel follows its norm: LARS (You et al., 2017, "Large batch training of
    convolutional networks", algorithm 1). Vectors, which biases and norms have, are trained as by SGD."""

    def __init__(self, *, trust_coefficient: float = 0.001, **kwargs: Any):
        super().__init__(**kwargs)
        self.trust_coefficient = trust_coefficient

    def adjusted(self, gradient: Any, variable: Any, decays: bool) -> Any:
        decayed = super().adjusted(gradient, variable, decays)
        if len(variable.shape) < 2:
            return decayed
        size, slope = tf.norm(tf.convert_to_tensor(variable)), tf.norm(tf.convert_to_tensor(gradient))
        whole = slope + (self.l2 * size if decays else 0.0)
        known = (size > 0) & (slope > 0)  # else there is nothing to follow
        trust = tf.where(known, self.trust_coefficient * size / tf.where(known, whole, 1.0), 1.0)
        return tf.convert_to_tensor(decayed) * trust

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "trust_coefficient": self.trust_coefficient}


class _FusedAdam:
    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if not updated_by_adam(self, gradient, variable, learning_rate):
            super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]


class Adam(_FusedAdam, keras.optimizers.Adam):
    """keras.optimizers.Adam in one kernel per variable."""


class AdamW(_FusedAdam, keras.optimizers.AdamW):
    """keras.optimizers.AdamW (Loshchilov & Hutter, 2019) in one kernel per variable, and its decay in another three."""


class Muon(keras.optimizers.Muon):
    """Keras's, whose learning rate has no other dtype than the variable: Keras 3.15 multiplies them as they are."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, tf.cast(learning_rate, variable.dtype))


def _matches(variable: Any, names: tuple[str, ...]) -> bool:
    return variable.name.split("/")[-1].split(":")[0] in names
