"""Optimizers and learning-rate schedules from their configuration.

Owns the conversion of durations to steps for schedules. Refuses to know the loop, and how an update is computed.

    optimizer = build_optimizer(config.optimizer, steps_per_epoch=62.5, total_steps=1500)
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfscale.config import optimizer_keys as optimizers
from tfscale.config.duration import Duration
from tfscale.config.schema import OptimizerConfig
from tfscale.errors import UsageError
from tfscale.hooks.keras_hooks import given_rate
from tfscale.optimizers.fused import LARS, SGD, Adam, AdamW, Muon

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Curve:
    """A learning rate over the steps of a run.

    Attributes:
        kind: constant, cosine, linear, exponential, step, wsd or one_cycle.
        peak: the rate behind the warm-up.
        warmup_steps: how many steps it rises, from `warmup_from` on: linearly, of one_cycle by a half cosine.
        decay_steps: where `step` multiplies it by `decay_by`.
        decay_over: how many steps before the end wsd begins to fall, linearly.
        final: the share of the peak that cosine, linear, exponential, wsd and one_cycle end at.
    """

    kind: str
    peak: float
    total_steps: int
    warmup_steps: int = 0
    warmup_from: float = 0.0
    decay_steps: tuple[int, ...] = ()
    decay_by: float = 0.1
    decay_over: int = 0
    final: float = 0.0


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Warm-up, then none, cosine, linear, exponential or stepwise decay, or one at the end. Steps count updates from 0.

    The warm-up and the cosine follow Goyal et al. (2017) and Loshchilov & Hutter (2017), without restarts; wsd, which
    falls at the end alone, Hu et al. (2024); one_cycle, without its momentum, Smith & Topin (2018).
    """

    def __init__(self, curve: Curve):
        self.curve = curve
        self.scale = 1.0  # taken as a constant when the step is traced

    def __call__(self, step: Any) -> tf.Tensor:
        step, curve = tf.cast(step, tf.float32), self.curve
        rate = self._after_warmup(step)
        if curve.warmup_steps:
            share = (step + 1) / curve.warmup_steps
            if curve.kind == "one_cycle":
                share = (1 - tf.cos(math.pi * step / curve.warmup_steps)) / 2
            ramp = curve.warmup_from + (curve.peak - curve.warmup_from) * share
            rate = tf.where(step < curve.warmup_steps, ramp, rate)
        return rate if self.scale == 1.0 else rate * self.scale

    def _after_warmup(self, step: tf.Tensor) -> tf.Tensor:
        curve = self.curve
        if curve.kind == "constant":
            return tf.constant(curve.peak, tf.float32)
        if curve.kind == "step":
            passed = tf.reduce_sum(tf.cast(step >= tf.constant(curve.decay_steps, tf.float32), tf.float32))
            return curve.peak * tf.pow(curve.decay_by, passed)
        length = max(1, curve.total_steps - curve.warmup_steps)
        if curve.kind == "wsd":
            length = max(1, min(length, curve.decay_over))
        done = tf.clip_by_value((step - curve.total_steps + length) / length, 0.0, 1.0)
        if curve.kind == "exponential":
            return curve.peak * tf.pow(curve.final, done)
        share = 1 - done if curve.kind in ("linear", "wsd") else (1 + tf.cos(math.pi * done)) / 2
        return curve.peak * (curve.final + (1 - curve.final) * share)

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self.curve)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        return cls(Curve(**{**config, "decay_steps": tuple(config["decay_steps"])}))


def build_optimizer(
    config: OptimizerConfig, *, steps_per_epoch: float, total_steps: int, global_batch: int | None = None
) -> keras.optimizers.Optimizer:
    """Builds the Keras optimizer with its schedule; raises UsageError for an unknown name.

    Args:
        global_batch: what `optimizer.reference_batch` is compared with.
    """

    def steps(text: str, where: str) -> int:
        return Duration.parse(text, where=where).steps(steps_per_epoch=steps_per_epoch, total_steps=total_steps)

    given = config.effective
    if given["schedule"] == "exponential" and given["final"] <= 0:
        raise UsageError(
            "an exponential never comes to nothing",
            where="optimizer.final",
            fix="optimizer.final=0.01, or optimizer.schedule=cosine",
        )
    if given["name"] not in optimizers.OWN_KEYS:
        raise UsageError(f"unknown optimizer {given['name']!r}", where="optimizer.name")
    rises = "rise_over" if "rise_over" in given else "warmup"  # one_cycle's own
    warmup, peak = steps(given[rises], f"optimizer.{rises}"), _peak(given, global_batch)
    rate: float | Schedule = peak
    if given["schedule"] != "constant" or warmup:
        curve = Curve(
            given["schedule"],
            peak,
            total_steps=total_steps,
            warmup_steps=warmup,
            warmup_from=given["start"] * peak if "start" in given else given.get("warmup_from", 0.0),
            decay_steps=tuple(steps(text, "optimizer.decay_at") for text in given.get("decay_at", [])),
            decay_by=given.get("decay_by", 0.1),
            decay_over=steps(given["decay_over"], "optimizer.decay_over") if "decay_over" in given else 0,
            final=given.get("final", 0.0),
        )
        rate = Schedule(curve)
    return _make(given, rate)


def _peak(given: Mapping[str, Any], global_batch: int | None) -> float:
    """The learning rate for this batch, by the linear scaling rule of Goyal et al. (2017), and says it."""
    peak, reference = given["learning_rate"], given.get("reference_batch")
    if not reference or not global_batch or reference == global_batch:
        return peak
    scaled = peak * global_batch / reference
    _log.info(
        f"learning rate {scaled:.3g}: {peak:g} is for a batch of {reference}, and train.global_batch is {global_batch}"
    )
    return scaled


def remember_rate(optimizer: keras.optimizers.Optimizer) -> None:
    """Keeps the learning rate as it is configured, whatever is scaled or restored from now on."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    rate = given_rate(optimizer)
    optimizer.configured_rate = rate if callable(rate) else float(tf.convert_to_tensor(optimizer.learning_rate))


def scale_learning_rate(optimizer: keras.optimizers.Optimizer, scale: float) -> None:
    """Sets the learning rate to the one that `remember_rate` has seen, multiplied with this.

    Loops that were traced before must be traced again.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    configured = optimizer.configured_rate
    if isinstance(configured, Schedule):
        configured.scale = scale
    elif not callable(configured):
        optimizer.learning_rate = configured * scale
    elif isinstance(configured, keras.optimizers.schedules.LearningRateSchedule):
        optimizer.learning_rate = configured if scale == 1.0 else ScaledSchedule(configured, scale)
    else:
        optimizer.learning_rate = configured if scale == 1.0 else lambda: configured() * scale


@keras.saving.register_keras_serializable("tfscale")
class ScaledSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of the user's, multiplied."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, scale: float):
        self.schedule, self.scale = schedule, scale

    def __call__(self, step: Any) -> tf.Tensor:
        return self.schedule(step) * self.scale

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "scale": self.scale}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ScaledSchedule:
        return cls(keras.optimizers.schedules.deserialize(config["schedule"]), config["scale"])


def _make(given: Mapping[str, Any], rate: float | Schedule) -> keras.optimizers.Optimizer:
    own = {key: given[key] for key in optimizers.OWN_KEYS[given["name"]] if key in given}
    own["learning_rate"] = rate
    no_decay = tuple(given.get("no_decay", ()))
    if given["name"] in ("sgd", "lars"):
        return _CLASSES[given["name"]](l2=own.pop("weight_decay"), no_decay=no_decay, **own)
    if given["name"] == "muon":
        own |= {f"adam_{name}": own.pop(name) for name in ("beta_1", "beta_2")}
        own["adam_weight_decay"] = own["weight_decay"]
    if given["name"] != "adamw":
        own["weight_decay"] = own["weight_decay"] or None
    optimizer = _CLASSES[given["name"]](**own)
    if no_decay:
        optimizer.exclude_from_weight_decay(var_names=list(no_decay))
    return optimizer


_CLASSES = {
    "adam": Adam,
    "adamw": AdamW,
    "lamb": keras.optimizers.Lamb,
    "lars": LARS,
    "lion": keras.optimizers.Lion,
    "muon": Muon,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": SGD,
}
