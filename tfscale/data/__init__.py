"""From bytes on disk to batches: sources (what there is), the order of examples (one rule) and the pipeline."""

from __future__ import annotations

from tfscale.errors import UsageError

AUGMENTS = ("none", "digits", "cifar", "photos", "imagenet")  # augment.py says what they do


def check_augment(kind: str, *, where: str = "task.augment") -> None:
    """Raises UsageError for an unknown kind of augmentation, without TensorFlow."""
    if kind not in AUGMENTS:
        raise UsageError(f"unknown augmentation {kind!r}", where=where, fix=f"use one of {', '.join(AUGMENTS)}")
