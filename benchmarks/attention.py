"""A training step of our attention beside Keras's: processor seconds of one thread, in turns, medians and their ratio.

python -m benchmarks.attention --policy float32
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

# (examples, tokens, width, heads): the recipe vit, ViT-Ti and ViT-S of 224 pixels, and a small decoder
SHAPES = ((64, 50, 64, 4), (16, 197, 192, 3), (8, 197, 384, 6), (16, 128, 256, 4))


def step_of(kind: type[Any], shape: tuple[int, int, int, int]) -> Callable[[], Any]:
    """A compiled function: the layer's result, and its gradients by the input and all weights."""
    import tensorflow as tf

    examples, tokens, width, heads = shape
    layer = kind(heads, width // heads)
    layer.build((examples, tokens, width), (examples, tokens, width))
    given = tf.Variable(tf.cast(tf.random.stateless_normal([examples, tokens, width], [1, 2]), layer.compute_dtype))
    weights = [variable.value for variable in layer.trainable_variables]

    def step():
        x = tf.convert_to_tensor(given)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(tf.cast(layer(x, x, training=True), tf.float32)))
        return tape.gradient(loss, [x, *weights])

    return tf.function(step, autograph=False)


def seconds(steps: dict[str, Callable[[], Any]], *, rounds: int, calls: int) -> dict[str, float]:
    """Processor seconds of one call of each, the median of rounds in which they take turns."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.process_time()
            for _ in range(calls):
                step()
            found[name].append((time.process_time() - began) / calls)
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", default="float32", help="of Keras: float32 or mixed_bfloat16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=4)
    asked = parser.parse_args()

    import keras
    import tensorflow as tf

    from tfscale.layers.attention import FusedAttention

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.config.set_dtype_policy(asked.policy)
    stock = keras.layers.MultiHeadAttention
    for shape in SHAPES:
        steps = {name: step_of(kind, shape) for name, kind in (("ours", FusedAttention), ("a", stock), ("b", stock))}
        took = seconds(steps, rounds=asked.rounds, calls=asked.calls)
        print(
            f"{asked.policy}, examples x tokens x width, heads {shape}: ours {took['ours'] * 1e3:.1f} ms, Keras"
            f" {took['a'] * 1e3:.1f} ms, ours / Keras {took['ours'] / took['a']:.2f}, A/A {took['b'] / took['a']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
