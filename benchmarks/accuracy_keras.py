"""Keras's side of `accuracy.py`: the recipe's training as people write it for `fit`.

python -m benchmarks.accuracy_keras TRIAL SEED written|loops      # prints a Curve
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from benchmarks.accuracy_trial import BATCH, LEARNING_RATE, MOMENTUM, SMOOTHING, WEIGHT_DECAY, Curve, Trial

_CLASSES, _SIZE = 10, 28


def train(trial: Trial, seed: int, how: str) -> Curve:
    """Args: how: "written", in float32; or "loops", one call of Keras's for each epoch, in bfloat16, without XLA."""
    import keras

    from benchmarks.resnet_keras import build

    keras.utils.set_random_seed(seed)
    policy = "mixed_bfloat16" if how == "loops" else "float32"
    keras.config.set_dtype_policy(policy)
    learnt, tested, examples = _data(seed)
    each = trial.steps or -(-examples // BATCH)
    options: dict[str, Any] = {"steps_per_execution": each, "jit_compile": False} if how == "loops" else {}
    model = build(
        trial.depth, width=trial.width, image_size=_SIZE, channels=1, num_classes=_CLASSES, weight_decay=WEIGHT_DECAY
    )
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, each * (trial.evaluations - 1), warmup_target=LEARNING_RATE, warmup_steps=each
    )
    model.compile(
        keras.optimizers.SGD(rate, MOMENTUM, nesterov=True),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=SMOOTHING),
        metrics=["accuracy"],
        **options,
    )
    points: list[tuple[float, float]] = []

    class Times(keras.callbacks.Callback):
        began = 0.0

        def on_train_begin(self, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            points.append((time.perf_counter() - self.began, float(logs["val_accuracy"])))

    model.fit(
        learnt.repeat() if trial.steps else learnt,
        epochs=trial.evaluations,
        steps_per_epoch=trial.steps or None,
        validation_data=tested,
        callbacks=[Times()],
        verbose=0,
    )
    parameters = sum(int(v.value.shape.num_elements()) for v in model.trainable_variables)
    chosen = ", ".join(f"{key}={value}" for key, value in options.items()) or "as written"
    return Curve(tuple(points), parameters, policy.removeprefix("mixed_"), f"keras fit, {policy}, {chosen}")


def _data(seed: int) -> tuple[Any, Any, int]:
    """(what is learnt, moved about as the recipe does it, and what is tested, as data sets of batches; examples)."""
    import numpy as np
    import tensorflow as tf

    from tfscale.data.augment import jitter
    from tfscale.data.mnist import archive, digits
    from tfscale.data.transforms import Jitter

    splits = {
        split: (np.stack([one["image"] for _, one in found]), np.array([one["label"] for _, one in found], np.int32))
        for split, found in digits(archive()).items()
    }
    move, examples = Jitter(), len(splits["train"][1])

    def moved(image: Any, label: Any) -> Any:
        drawn = tf.random.uniform([2], 0, 2**31 - 1, tf.int32)
        return jitter(image, drawn, move), tf.one_hot(label, _CLASSES)

    learnt = tf.data.Dataset.from_tensor_slices(splits["train"]).shuffle(examples, seed)
    learnt = learnt.map(moved, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    tested = tf.data.Dataset.from_tensor_slices(splits["test"])
    tested = tested.map(lambda image, label: (image, tf.one_hot(label, _CLASSES))).batch(BATCH)
    return learnt, tested.prefetch(tf.data.AUTOTUNE), examples


if __name__ == "__main__":
    found = train(Trial(**json.loads(sys.argv[1])), int(sys.argv[2]), sys.argv[3])
    print(found.to_json())
