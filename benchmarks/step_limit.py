"""What no step can be faster than: its FLOPs as square matrix products, one behind the other, and nothing else.

The ratio of its time to a step's is the step's MFU, measured in the same blocks.
"""

from __future__ import annotations

from benchmarks.side_by_side import Work
from benchmarks.step_models import GPU, spec

SIZE, LARGE = 2048, 8192  # on a CPU; on a GPU, whose peak small ones don't reach
NAME = "matrix products"  # and the precision


def work(name: str, flops: str, precision: str) -> Work:
    """Args: flops: of one example's forward pass; precision: float32 or bfloat16."""
    import tensorflow as tf

    from tfscale.measures.peak import products

    size = LARGE if name.endswith(GPU) else SIZE
    found, multiply = spec(name), products(size, tf.as_dtype(precision))
    epoch = 3 * int(flops) * found.batch * found.epoch  # forward once, backward twice as much
    count = max(1, round(epoch / (2 * size**3)))

    def run(steps: int) -> None:
        multiply(count * (steps // found.epoch))

    how = (
        f"{count} products of {size} x {size} for {found.epoch} steps, {2 * count * size**3 / epoch:.3f} of their FLOPs"
    )
    return Work(run, found.epoch, {"precision": precision, "how": how})
