"""A tiny task and source for tests of the engine: linear regression classes on random vectors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.cluster import Cluster
from tfscale.config.schema import (
    CheckpointConfig,
    EvalConfig,
    OptimizerConfig,
    PlanConfig,
    Precision,
    RunConfig,
    RunSection,
    TrainConfig,
)
from tfscale.console.messages import received
from tfscale.data.source import Source
from tfscale.hardware import Cpu, Hardware
from tfscale.plan.execution_plan import ExecutionPlan, make_plan
from tfscale.plan.request import PlanRequest
from tfscale.preflight import locate
from tfscale.run.api import fit
from tfscale.runtime import global_state as runtime
from tfscale.task import Task

HARDWARE = Hardware(
    cpu=Cpu(model="test", instruction_sets=("avx2",), physical_cores=2, logical_cores=2, numa_nodes=1),
    cores=2.0,
    memory_bytes=8 * 2**30,
    host_memory_bytes=8 * 2**30,
    gpus=(),
    tpu=None,
)


@functools.cache
def strategy_for(replicas: int) -> tf.distribute.Strategy:
    """On logical CPU devices; made once, as runtime.py does and says why. TensorFlow's collectives keep the first group's size for the life of a process, so two
    replicas use them and four are reduced on one device."""
    devices = [d.name for d in tf.config.list_logical_devices("CPU")][:replicas]
    if replicas == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    if replicas == 2:
        return runtime._mirrored(tuple(devices))
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())


def plan_for(global_batch: int, *, replicas: int = 1, **forced: Any) -> ExecutionPlan:
    """A plan for this many logical CPU devices."""
    accumulate = forced.pop("accumulate", None)
    precision = Precision[forced.pop("precision", "float32")]
    request = PlanRequest(global_batch, accumulate=accumulate, forced=PlanConfig(precision=precision, **forced))
    plan = make_plan(HARDWARE, Cluster(), request)
    if replicas > 1:
        per_replica = global_batch // replicas
        plan = dataclasses.replace(
            plan,
            strategy="mirrored",
            num_replicas=replicas,
            local_devices=replicas,
            replica_batch=per_replica,
            micro_batch=per_replica // plan.accumulate,
        )
    return plan


@dataclass
class Vectors(Source):
    """Random vectors and labels that depend on them, held in memory."""

    train_examples: int = 50
    test_examples: int = 23
    width: int = 6

    def num_examples(self, split: str) -> int:
        return self.train_examples if split == "train" else self.test_examples

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.RandomState(1 if split == "train" else 2)
        x = random.normal(size=(self.num_examples(split), self.width)).astype(np.float32)
        return x, (x.sum(axis=1) > 0).astype(np.int64)

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        x, y = (tf.constant(a) for a in self.arrays(split))
        return indices.map(lambda i: {"x": tf.gather(x, i), "label": tf.gather(y, i), "index": i}).unbatch()

    def parse(self, raw: Any) -> dict[str, Any]:
        return dict(raw)


@dataclass
class Classify(Task):
    """A small classifier, with dropout and L2 where asked."""

    width: int = 6
    dropout: float = 0.0
    l2: float = 0.0
    activation: str = "relu"

    def build_model(self):
        import keras

        regularizer = keras.regularizers.L2(self.l2) if self.l2 else None
        inputs = keras.Input((self.width,), name="x")
        x = keras.layers.Dense(8, activation=self.activation, kernel_regularizer=regularizer, name="hidden")(inputs)
        if self.dropout:
            x = keras.layers.Dropout(self.dropout, seed=7, name="dropout")(x)
        return keras.Model(inputs, keras.layers.Dense(2, dtype=_at_least_float32(), name="out")(x))

    def loss(self, model, batch, *, training):
        logits = model(batch["x"], training=training)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)
        correct = tf.equal(tf.argmax(logits, -1), batch["label"])
        return loss, {"accuracy": tf.cast(correct, tf.float32)}


def _at_least_float32() -> str:
    import keras

    return "float64" if keras.config.floatx() == "float64" else "float32"


def fit_tiny(
    root: Path,
    *,
    task: Any = None,
    data: Any = None,
    tracker: Any = None,
    environ: Mapping[str, str] | None = None,
    **sections: Mapping[str, Any],
):
    """Fits a tiny experiment of 30 steps with these changes; returns (result, what was said, the run folder)."""
    config = RunConfig(
        task=task or Classify(),
        data=data or Vectors(),
        tracker=tracker,
        train=TrainConfig(until="30st", global_batch=8, log_every="5st"),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.1, momentum=0.9),
        eval=EvalConfig(every="10st"),
        checkpoint=CheckpointConfig(every="10st"),
        run=RunSection(root=str(root), recipe="tiny", name="it"),
    )
    for name, changes in sections.items():
        setattr(config, name, dataclasses.replace(getattr(config, name), **changes))
    said: list[str] = []
    with received(said.append):
        result = fit(config, environ=environ or {})
    return result, "\n".join(said), locate(config).path
