"""Optimizers and learning-rate schedules from their configuration.

Owns the conversion of durations to steps for schedules and the fused momentum update. Refuses to know the loop.

    optimizer = build_optimizer(config.optimizer, steps_per_epoch=62.5, total_steps=1500)
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from tfscale.config import OptimizerConfig
from tfscale.duration import Duration
from tfscale.errors import UsageError


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then constant, cosine, linear or stepwise decay. Steps count optimizer updates from 0.

    The warm-up and the cosine follow Goyal et al. (2017) and Loshchilov & Hutter (2017), without restarts.
    """

    def __init__(
        self,
        kind: str,
        peak: float,
        *,
        total_steps: int,
        warmup_steps: int = 0,
        warmup_from: float = 0.0,
        decay_steps: tuple[int, ...] = (),
        decay_by: float = 0.1,
        final: float = 0.0,
    ):
        self.kind, self.peak, self.total_steps = kind, peak, total_steps
        self.warmup_steps, self.warmup_from = warmup_steps, warmup_from
        self.decay_steps, self.decay_by, self.final = tuple(decay_steps), decay_by, final
        self.scale = 1.0  # taken as a constant when the step is traced

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        rate = self._after_warmup(step)
        if self.warmup_steps:
            ramp = self.warmup_from + (self.peak - self.warmup_from) * (step + 1) / self.warmup_steps
            rate = tf.where(step < self.warmup_steps, ramp, rate)
        return rate if self.scale == 1.0 else rate * self.scale

    def _after_warmup(self, step: tf.Tensor) -> tf.Tensor:
        if self.kind == "constant":
            return tf.constant(self.peak, tf.float32)
        if self.kind == "step":
            passed = tf.reduce_sum(tf.cast(step >= tf.constant(self.decay_steps, tf.float32), tf.float32))
            return self.peak * tf.pow(self.decay_by, passed)
        length = max(1, self.total_steps - self.warmup_steps)
        done = tf.clip_by_value((step - self.warmup_steps) / length, 0.0, 1.0)
        share = (1 + tf.cos(math.pi * done)) / 2 if self.kind == "cosine" else 1 - done
        return self.peak * (self.final + (1 - self.final) * share)

    def get_config(self):
        return {name: value for name, value in vars(self).items() if name != "scale"}


class SGD(keras.optimizers.SGD):
    """SGD with momentum in one fused kernel per variable, and L2 weight decay added to the gradient.

    The same variables and the same update as keras.optimizers.SGD with an L2 loss; Keras itself issues five small
    operations per variable, which is what a step of a small model spends its time on.
    """

    def __init__(self, *, l2: float = 0.0, no_decay: tuple[str, ...] = (), **kwargs):
        super().__init__(**kwargs)
        self.l2, self.no_decay = l2, tuple(no_decay)

    def update_step(self, gradient, variable, learning_rate):
        place = self._get_variable_index(variable)
        # By the optimizer's own list: on the second device of a strategy `variable` is called bias/replica_1.
        if self.l2 and not _matches(self._trainable_variables[place], self.no_decay):
            gradient = tf.convert_to_tensor(gradient) + self.l2 * tf.convert_to_tensor(variable)
        momentum = self.momentums[place] if self.momentum else None
        if momentum is None or isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        dtype = variable.dtype
        # Keras optimizers see keras.Variable in one process and tf.Variable inside strategy.extended.update.
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=_handle(variable),
            accum=_handle(momentum),
            lr=tf.cast(learning_rate, dtype),
            grad=tf.cast(gradient, dtype),
            momentum=tf.cast(self.momentum, dtype),
            use_nesterov=self.nesterov,
        )

    def get_config(self):
        return {**super().get_config(), "l2": self.l2, "no_decay": self.no_decay}


def _handle(variable) -> tf.Tensor:
    return getattr(variable, "value", variable).handle if isinstance(variable, keras.Variable) else variable.handle


def _matches(variable, names: tuple[str, ...]) -> bool:
    return variable.name.split("/")[-1].split(":")[0] in names


def build_optimizer(config: OptimizerConfig, *, steps_per_epoch: float, total_steps: int) -> keras.optimizers.Optimizer:
    """Builds the Keras optimizer with its schedule; raises UsageError for an unknown name."""

    def steps(text: str, where: str) -> int:
        return Duration.parse(text, where=where).steps(steps_per_epoch=steps_per_epoch, total_steps=total_steps)

    warmup = steps(config.warmup, "optimizer.warmup")
    rate: float | Schedule = config.learning_rate
    if config.schedule != "constant" or warmup:
        rate = Schedule(
            config.schedule,
            config.learning_rate,
            total_steps=total_steps,
            warmup_steps=warmup,
            warmup_from=config.warmup_from,
            decay_steps=tuple(steps(text, "optimizer.decay_at") for text in config.decay_at),
            decay_by=config.decay_by,
            final=config.final,
        )
    optimizer = _make(config, rate)
    optimizer.configured_rate = config.learning_rate  # that of the variable changes when it is scaled
    return optimizer


def scale_learning_rate(optimizer: keras.optimizers.Optimizer, scale: float) -> None:
    """Multiplies the configured learning rate, of one of our schedules or a constant one; others are left as they are.

    Loops that were traced before must be traced again.
    """
    rate = optimizer._learning_rate
    if isinstance(rate, Schedule):
        rate.scale = scale
    elif scale != 1.0 and not callable(rate) and hasattr(optimizer, "configured_rate"):
        optimizer.learning_rate = optimizer.configured_rate * scale


def _make(config: OptimizerConfig, rate: float | Schedule) -> keras.optimizers.Optimizer:
    name = config.name
    if name == "sgd":
        return SGD(
            learning_rate=rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            l2=config.weight_decay,
            no_decay=tuple(config.no_decay),
        )
    betas = {"beta_1": config.beta_1, "beta_2": config.beta_2}
    decay = config.weight_decay or None
    optimizers = keras.optimizers
    if name == "adam":
        optimizer = optimizers.Adam(rate, epsilon=config.epsilon, weight_decay=decay, **betas)
    elif name == "adamw":
        optimizer = optimizers.AdamW(rate, epsilon=config.epsilon, weight_decay=config.weight_decay, **betas)
    elif name == "lion":
        optimizer = optimizers.Lion(rate, weight_decay=decay, **betas)
    elif name == "rmsprop":
        optimizer = optimizers.RMSprop(rate, momentum=config.momentum, epsilon=config.epsilon, weight_decay=decay)
    else:
        raise UsageError(f"unknown optimizer {name!r}", where="optimizer.name")
    if decay:
        optimizer.exclude_from_weight_decay(var_names=config.no_decay)
    return optimizer
