"""The dtype that a model's answers keep in every precision."""

from __future__ import annotations


def at_least_float32() -> str:
    """Of logits and sums, also where the rest computes in bfloat16: a softmax over that loses small probabilities."""
    from keras import config

    return "float64" if config.floatx() == "float64" else "float32"
