"""FLOPs of a forward pass, counted by TensorFlow's own profiler from the traced graph."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import tensorflow as tf

from tfscale.graphs import rewritten
from tfscale.task import Task

_COUNTED = [".*Conv.*", ".*MatMul.*", ".*Einsum.*"]


def profiled_flops(task: Task, model: Any, examples: dict[str, Any]) -> int | None:
    """FLOPs of one example's forward pass, 2 per multiply-add; None where TensorFlow knows no count.

    Args:
        examples: a few examples as the step takes them, [examples, ...] in every field.

    Matrix products and convolutions are counted, since they are what a model's FLOPs mean, and what the peak is of.
    """
    count = tf.nest.flatten(examples)[0].shape[0]
    specs = tf.nest.map_structure(lambda t: tf.TensorSpec([1, *t.shape[1:]], t.dtype), examples)
    if not count or any(None in spec.shape.as_list() for spec in tf.nest.flatten(specs)):
        return None
    try:
        predict = tf.function(lambda fields: rewritten(task.predict)(model, fields), autograph=False)
        graph = predict.get_concrete_function(specs).graph
    except Exception:  # a task's own code, which may say nothing about prediction; no count is no reason to fail
        return None
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options.update(output="none", account_type_regexes=_COUNTED)
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # it calls parts of itself deprecated
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            profile = tf.compat.v1.profiler.profile(graph, options=options)
    finally:
        logger.setLevel(level)
    return int(profile.total_float_ops) or None if profile else None
