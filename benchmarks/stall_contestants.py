"""The contestants of `stall.py`: a ResNet that learns photos, from files or from one batch in memory.

Each function runs in a process of its own, and takes the size's name, the folder of photos, and where the batches come
from. Keras's side imports of tfscale what describes the model alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import Work

BATCH, CHUNK = 32, 10
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, SMOOTHING = 0.05, 0.9, 5e-4, 0.1
LEAST_AREA = 0.35  # of augment=photos
FILES, MEMORY = "photos", "memory"


@dataclass(frozen=True)
class Size:
    depth: int
    width: int
    side: int


SIZES = {"photos": Size(18, 32, 64), "quick": Size(8, 4, 32)}


def ours(name: str, folder: str, source: str) -> Work:
    """What a run of +recipe=resnet data=image_folder trains with, without what lies between its loops."""
    from tfscale.composition import compose
    from tfscale.preflight import plan_run

    size, index = SIZES[name], Path(folder).with_name(f"index{os.getpid()}")
    config = compose(
        [
            "+recipe=resnet", "data=image_folder", f"data.path={folder}", f"data.dir={index}",
            "data.test_share=0", f"task.depth={size.depth}", f"task.width={size.width}",
            f"task.image_size={size.side}", "task.augment=photos", f"train.global_batch={BATCH}",
            "train.until=1000ep", f"optimizer.learning_rate={LEARNING_RATE}", "plan.precision=float32",
            "tracker=none",
        ]
    )  # fmt: skip
    plan = plan_run(config)
    from tfscale.runtime import global_state as runtime

    runtime.apply(plan, seed=0)
    strategy = runtime.build_strategy(plan)
    import tensorflow as tf

    from tfscale.assembly.assembled import assemble
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset
    from tfscale.engine.control import LoopControl

    config.data.prepare()
    made = assemble(config, strategy, fused_kernels=plan.fused_kernels)
    trainer = made.trainer(plan, LoopControl())
    dataset = build_dataset(config.data, made.task, Portion("train", Shard(BATCH), training=True), plan)
    if source == MEMORY:
        dataset = tf.data.Dataset.from_tensors(next(iter(dataset))).repeat()
    batches = iter(strategy.distribute_datasets_from_function(lambda _context: dataset))

    def run(steps: int) -> None:
        trainer.train(batches, until=made.state.step + steps)

    parameters = sum(int(v.value.shape.num_elements()) for v in made.state.model.trainable_variables)
    how = f"as +recipe=resnet data=image_folder trains, float32, {plan.input_threads} threads for input"
    return Work(run, CHUNK, {"parameters": parameters, "precision": "float32", "how": f"{how}; from {source}"})


def keras(name: str, folder: str, source: str) -> Work:
    """Keras's fit on tf.data as TensorFlow's guides write it, with AUTOTUNE where they have it."""
    import keras as keras3
    import tensorflow as tf

    from benchmarks.resnet_keras import build
    from benchmarks.step_keras import in_turns

    size, (dataset, classes) = SIZES[name], _photos(folder, SIZES[name].side)
    if source == MEMORY:
        dataset = tf.data.Dataset.from_tensors(next(iter(dataset))).repeat()

    def fit(**how: Any) -> None:
        keras3.utils.set_random_seed(0)
        model = build(
            size.depth, width=size.width, image_size=size.side, channels=3, num_classes=classes,
            weight_decay=WEIGHT_DECAY,
        )  # fmt: skip
        model.compile(
            keras3.optimizers.SGD(LEARNING_RATE, MOMENTUM, nesterov=True),
            keras3.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=SMOOTHING),
            metrics=["accuracy"],
        )
        model.fit(x=dataset, **how)

    work = in_turns(fit, epoch=CHUNK, told=lambda: ("float32", f"keras fit as written, tf.data; from {source}"))
    del work.facts["loss"]  # of other crops, and other first weights
    return work


def _photos(folder: str, side: int) -> tuple[Any, int]:
    """(batches without end, how many classes)."""
    import tensorflow as tf

    from benchmarks.input_loaders import plain_crop

    files = sorted(Path(folder).rglob("*.jpg"))
    names = sorted({file.parent.name for file in files})
    labels = [names.index(file.parent.name) for file in files]

    def load(file: Any, label: Any) -> Any:
        return plain_crop(file, side, LEAST_AREA), tf.one_hot(label, len(names))

    dataset = tf.data.Dataset.from_tensor_slices(([str(file) for file in files], labels)).shuffle(len(files)).repeat()
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True)
    return dataset.prefetch(tf.data.AUTOTUNE), len(names)
