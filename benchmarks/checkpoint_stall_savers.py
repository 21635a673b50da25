"""The contestants of the checkpoint benchmark: the same network under Adam, each with a way to save all of it.

Each function runs in a process of its own and returns a Saver. All of them train in float32 with the threads that
tfscale plans; `ours` steps by Trainer.train, the others by the loop that a good engineer writes by hand.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checkpoint_stall_member import Saver
from tfscale.cluster import Cluster
from tfscale.config.schema import OptimizerConfig, PlanConfig, Precision, Strategy
from tfscale.hardware import probe
from tfscale.plan.execution_plan import ExecutionPlan, make_plan
from tfscale.plan.request import PlanRequest
from tfscale.task import Task

DEPTH, BATCH, POOL, LEARNING_RATE = 24, 32, 4, 1e-5
COPIES = 3  # of every parameter: itself and Adam's two moments


def width_for(parameters: int) -> int:
    """Of the layers, so that all of them have about this many parameters."""
    return max(8, round(math.sqrt(parameters / DEPTH) / 8) * 8)


def counted(parameters: int) -> int:
    """How many parameters the network really has."""
    width = width_for(parameters)
    return DEPTH * (width + 1) * width


# -- what all contestants share


@dataclass
class Deep(Task):
    """DEPTH dense layers of one width, which learn to answer noise."""

    width: int

    def build_model(self):
        import keras

        inputs = outputs = keras.Input((self.width,))
        for _ in range(DEPTH):
            outputs = keras.layers.Dense(self.width, activation="relu", kernel_initializer="he_normal")(outputs)
        return keras.Model(inputs, outputs)

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        return tf.reduce_mean(tf.square(model(batch["input"], training=training) - batch["target"]), axis=1), {}


def _batches(width: int) -> Any:
    import tensorflow as tf

    random = np.random.RandomState(0)
    count = POOL * BATCH
    elements = {
        "input": random.randn(count, width).astype(np.float32),
        "target": random.rand(count, width).astype(np.float32),
        "weight": np.ones(count, np.float32),
    }
    return tf.data.Dataset.from_tensor_slices(elements).batch(BATCH, drop_remainder=True).cache().repeat().prefetch(2)


def _plan() -> ExecutionPlan:
    forced = PlanConfig(precision=Precision.float32, strategy=Strategy.one_device, deterministic=False)
    return make_plan(probe(), Cluster(), PlanRequest(global_batch=BATCH, accumulate=1, forced=forced))


def _arrays(variables: Any) -> Iterator[np.ndarray]:
    return (variable.numpy() for variable in variables)


def _stored(prefix: str) -> Iterator[np.ndarray]:
    """What a file of TensorFlow's bundle format holds, but for strings."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    kinds = reader.get_variable_to_dtype_map()
    return (reader.get_tensor(name) for name, kind in kinds.items() if kind != tf.string)


def _versions(*names: str) -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _by_hand(parameters: int) -> tuple[Any, Callable[[int], None]]:
    """(a compiled Keras model, what trains it)."""
    from tfscale.runtime import global_state as runtime

    runtime.apply(_plan(), seed=0)
    import keras
    import tensorflow as tf

    task = Deep(width_for(parameters))
    model = task.build_model()
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss="mse")
    model.optimizer.build(model.trainable_variables)
    iterator = iter(_batches(task.width))

    @tf.function
    def loop(iterator, steps):
        total = 0.0
        for _ in tf.range(steps):
            batch = next(iterator)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(task.loss(model, batch, training=True)[0])
            model.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            total += loss
        return total

    def train(steps: int) -> None:
        total = float(loop(iterator, tf.constant(steps)))
        assert math.isfinite(total), "the loss is no longer finite"

    return model, train


# -- contestants


def ours(parameters: int, folder: Path) -> Saver:
    """tfscale's Checkpointer, called as its action calls it between two compiled loops."""
    from tfscale.runtime import global_state as runtime

    plan = _plan()
    runtime.apply(plan, seed=0)
    from tfscale.checkpoint import Checkpointer
    from tfscale.engine.loop import Trainer
    from tfscale.optimizers.build import build_optimizer
    from tfscale.state.train_state import TrainState

    task, strategy = Deep(width_for(parameters)), runtime.build_strategy(plan)
    config = OptimizerConfig(name="adam", learning_rate=LEARNING_RATE)
    with strategy.scope():
        state = TrainState.create(task, build_optimizer(config, steps_per_epoch=1, total_steps=1))
    trainer = Trainer(task, state, strategy, plan)
    dataset = _batches(task.width)
    batches = iter(strategy.distribute_datasets_from_function(lambda _context: dataset))
    checkpointer = Checkpointer(folder / "checkpoints")

    def save() -> None:
        assert checkpointer.save(state), "the save was skipped"

    return Saver(
        train=lambda steps: trainer.train(batches, until=state.step + steps),
        save=save,
        wait=checkpointer.finish,
        state=lambda: _arrays(state.variables().values()),
        saved=lambda: _stored(str(checkpointer.entries()[-1].path / "state")),
        facts={"how": "Checkpointer(keep=2).save(state)"},
    )


def keras_file(parameters: int, folder: Path) -> Saver:
    """keras.callbacks.ModelCheckpoint at the end of an epoch: the whole model with its optimizer."""
    model, train = _by_hand(parameters)
    import keras

    callback = keras.callbacks.ModelCheckpoint(str(folder / "model-{epoch}.keras"))
    callback.set_model(model)
    epochs = itertools.count()

    def saved() -> Iterator[np.ndarray]:
        there = keras.saving.load_model(next(folder.glob("*.keras")))
        return _arrays([*there.variables, *there.optimizer.variables])

    return Saver(
        train=train,
        save=lambda: callback.on_epoch_end(next(epochs), {}),
        state=lambda: _arrays([*model.variables, *model.optimizer.variables]),
        saved=saved,
        facts={"how": f"save_weights_only=False, save_freq='epoch'; {_versions('keras', 'h5py')}"},
    )


def manager(parameters: int, folder: Path) -> Saver:
    """tf.train.CheckpointManager.save of the Keras objects."""
    model, train = _by_hand(parameters)
    return _manager(
        model, train, folder, {"model": model, "optimizer": model.optimizer}, "of model and optimizer", background=False
    )


def manager_async(parameters: int, folder: Path) -> Saver:
    """The same in the background. It gets tf.Variables: of Keras's objects the second such save raises ValueError."""
    model, train = _by_hand(parameters)
    variables = [v.value for v in (*model.variables, *model.optimizer.variables)]
    return _manager(model, train, folder, {"variables": variables}, "of the list of tf.Variables", background=True)


def _manager(
    model: Any, train: Callable[[int], None], folder: Path, objects: dict[str, Any], what: str, *, background: bool
) -> Saver:
    import tensorflow as tf

    checkpoint = tf.train.Checkpoint(**objects)
    manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=1)
    options = tf.train.CheckpointOptions(experimental_enable_async_checkpoint=background)
    return Saver(
        train=train,
        save=lambda: manager.save(options=options),
        wait=manager.sync if background else None,
        state=lambda: _arrays([*model.variables, *model.optimizer.variables]),
        saved=lambda: _stored(manager.latest_checkpoint),
        facts={"how": f"max_to_keep=1, experimental_enable_async_checkpoint={background}, {what}"},
    )


def orbax(parameters: int, folder: Path) -> Saver:
    """orbax.checkpoint.AsyncCheckpointer, given the variables as NumPy arrays without a copy."""
    model, train = _by_hand(parameters)
    import orbax.checkpoint as ocp

    variables = [*model.variables, *model.optimizer.variables]
    checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
    numbers = itertools.count()

    def tree() -> dict[str, np.ndarray]:
        return {str(i): np.asarray(v.value.read_value()) for i, v in enumerate(variables)}

    def saved() -> Iterator[np.ndarray]:
        likeness = {name: np.empty_like(array) for name, array in tree().items()}
        path = next(path for path in folder.iterdir() if path.is_dir()).absolute()
        return iter(checkpointer.restore(path, args=ocp.args.StandardRestore(likeness)).values())

    how = f"AsyncCheckpointer(StandardCheckpointHandler()); {_versions('orbax-checkpoint', 'jax', 'tensorstore')}"
    return Saver(
        train=train,
        save=lambda: checkpointer.save((folder / str(next(numbers))).absolute(), args=ocp.args.StandardSave(tree())),
        wait=checkpointer.wait_until_finished,
        state=lambda: _arrays(variables),
        saved=saved,
        facts={"how": how},
    )


# -- the limit


def _made(parameters: int) -> list[np.ndarray]:
    width, random = width_for(parameters), np.random.default_rng(0)
    shapes = [(width, width), (width,)] * DEPTH * COPIES
    return [random.random(shape, np.float32) for shape in shapes]


def copy_reused(parameters: int, _folder: Path) -> Saver:
    """The state copied into memory that is there already."""
    arrays = _made(parameters)
    buffers = [np.ones_like(array) for array in arrays]

    def save() -> None:
        for buffer, array in zip(buffers, arrays, strict=True):
            np.copyto(buffer, array)

    facts = {"how": f"numpy.copyto, one thread; {_versions('numpy')}"}
    return Saver(save=save, state=lambda: iter(arrays), saved=lambda: iter(buffers), facts=facts)


def copy_fresh(parameters: int, _folder: Path) -> Saver:
    """The state copied into memory that the system must find first."""
    arrays = _made(parameters)
    buffers: list[np.ndarray] = []

    def save() -> None:
        for array in arrays:
            buffers.append(np.empty_like(array))
            np.copyto(buffers[-1], array)

    facts = {"how": f"numpy.empty_like and numpy.copyto, one thread; {_versions('numpy')}"}
    return Saver(save=save, state=lambda: iter(arrays), saved=lambda: iter(buffers), forget=buffers.clear, facts=facts)
