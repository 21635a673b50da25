"""How Python becomes TensorFlow's graphs: AutoGraph for users' code alone.

AutoGraph rewrites a function that TensorFlow traces, and all that it calls, so that `if` and `for` may look at tensors.
That takes longer than tracing: three of the four seconds before a small model's first step. Our code says `tf.cond` and
`tf.while_loop`, and is traced as it stands, as Keras is; a user's Task and Source may be written either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfscale.hooks.tensorflow_hooks import behind_autograph

no_autograph = tf.autograph.experimental.do_not_convert  # around functions of ours that tf.data maps


def with_autograph(method: Any) -> Callable[..., Any]:
    """A method of a task or source, behind AutoGraph if a user wrote it, whatever its caller is behind."""
    if type(method.__self__).__module__.startswith("tfscale."):
        return method
    return behind_autograph(method)


def repeated(steps: tf.Tensor, body: Callable[..., Sequence[Any]], start: Sequence[Any]) -> Any:
    """`body(*values)` gives the next values: so many times, as one loop of the graph."""
    values = tf.while_loop(
        lambda i, *_: i < steps, lambda i, *old: (i + 1, *body(*old)), (tf.zeros_like(steps), *start)
    )
    return values[1:]
