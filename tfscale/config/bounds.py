"""Bounds of single values of the configuration: the names that may be chosen, and the least of numbers.

Owns these tables; schema.py's `validate` goes through them.
"""

from __future__ import annotations

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
