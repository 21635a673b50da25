"""Bounds of single values of the configuration: names that may be chosen, least and largest numbers, shares, durations.

Owns these tables; schema.py's `validate` goes through them, and the reference of all keys shows them.
"""

from __future__ import annotations

from dataclasses import dataclass

import tfscale.config.optimizer_keys as optimizers
from tfscale.console.messages import FORMATS

CHOICES = {
    "optimizer.name": tuple(optimizers.OWN_KEYS),
    "optimizer.schedule": optimizers.SCHEDULES,
    "checkpoint.mode": ("max", "min"),
    "resume.mode": ("auto", "never"),
    "cluster.maintenance": ("auto", "gce", "none"),  # see process/maintenance.py
    "eval.split": ("train", "test"),
    "log.format": FORMATS,
}
LEAST = {
    "export.examples": 1,
    "checkpoint.seconds_apart": 0,
    "train.global_batch": 1,
    "checkpoint.keep": 1,
    "checkpoint.max_failed_saves": 1,
    "eval.global_batch": 1,
    "train.stop_patience": 1,
    "train.seed": 0,
    "optimizer.learning_rate": 0,
    "optimizer.weight_decay": 0,
    "optimizer.reference_batch": 1,
    "optimizer.trust_coefficient": 0,
    "train.clip_norm": 0,
    "train.max_rollbacks": 0,
    "train.rollback_factor": 0,
    "cluster.grace": 1,
    "run.hang_timeout": 1,
    "cluster.start_timeout": 0.1,
    "cluster.silence": 1,
}
MOST = {"train.seed": 2**31 - 1}


@dataclass(frozen=True)
class Share:
    """A number from 0 to 1; `without_zero`, `without_one`: that end is none of them."""

    without_zero: bool = False
    without_one: bool = False

    def has(self, number: float) -> bool:
        above = number > 0 if self.without_zero else number >= 0
        return above and (number < 1 if self.without_one else number <= 1)

    def __str__(self) -> str:
        left_out = ", 0 excluded" if self.without_zero else ", 1 excluded" if self.without_one else ""
        return f"0..1{left_out}"


SHARES = {
    **{f"optimizer.{key}": Share() for key in ("momentum", "rho", "beta_1", "beta_2")},
    "optimizer.layer_decay": Share(without_zero=True),
    "train.ema": Share(without_one=True),
}
# Keys that are durations, and the units of each; a list has one in every place
_COUNTED = ("ep", "st", "%")
_TIMED = (*_COUNTED, "s", "m", "h")
DURATIONS = {
    "train.until": ("ep", "st"),
    **dict.fromkeys(("train.log_every", "eval.every", "checkpoint.every"), _TIMED),
    **{f"optimizer.{key}": _COUNTED for key in ("warmup", "decay_over", "rise_over", "decay_at")},
}
