"""The first weights of a Keras model as a file that PyTorch's contestants read, and the model's FLOPs.

python -m benchmarks.step_weights vit weights.npz     # prints {"flops": 2460672}
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np

from benchmarks.step_models import build, data, spec


def main(name: str, file: str) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    model = build(name)
    np.savez(file, **{weight.path: weight.numpy() for weight in model.trainable_variables})
    print(json.dumps({"flops": flops(model, name)}))


def flops(model: Any, name: str) -> int | None:
    """Of one example's forward pass, 2 per multiply-add."""
    import tensorflow as tf

    from tfscale.measures.flops import profiled_flops
    from tfscale.task import Task

    class Predicted(Task):
        def predict(self, model: Any, batch: Any) -> Any:
            return model(batch["x"])

    inputs, _ = data(name)
    batch = spec(name).batch
    x = tf.nest.map_structure(lambda array: tf.constant(array[:batch]), inputs)
    return profiled_flops(Predicted(), model, {"x": x})


if __name__ == "__main__":
    main(*sys.argv[1:])
