"""Iterators that end at once: what `tf.distribute` puts between a data set and its devices, without a tuning thread.

tf.data tunes every iterator by a thread that sleeps for up to a minute, the longer the older it is, and dropping the
iterator waits for that thread. It is woken before it can see that it should end, so that on a busy machine it often
sleeps on (Model::OptimizeLoop in tensorflow/core/framework/model.cc looks at IsCancelled(), which is true only after
CancellationManager::StartCancel has woken it): a run that was told to stop then sat out its grace period there. Our
pipelines aren't tuned; this is about the small data set by which each device takes its part, whose one buffer has a
given size, and which leaves no way to say so.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops as _made_by  # private: it takes no options


def leave_untuned() -> None:
    """From here on no distributed iterator of this process is tuned; calling it again changes nothing."""
    made = _made_by._create_device_dataset
    if not hasattr(made, "__wrapped__"):
        _made_by._create_device_dataset = functools.wraps(made)(lambda *args, **kwargs: _untuned(made(*args, **kwargs)))


def _untuned(dataset: Any) -> Any:
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
