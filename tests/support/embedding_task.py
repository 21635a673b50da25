"""A task with a partitioned embedding on data that follow a rule, and the processes that train it asynchronously.

python support.embedding_task.py serve CLUSTER ROLE INDEX     # until standard input ends
python support.embedding_task.py train CLUSTER FOLDER STEPS   # the chief: prints its steps, writes FOLDER/facts.json
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.tiny_run import plan_for
from tfscale.cluster import Cluster
from tfscale.data.source import Source
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.task import Task

VOCABULARY, FIELDS, PARTS, BATCH, TEST = 60, 3, 4, 32, 301


@dataclass
class Rule(Source):
    """Three ids by index; the label says whether their hidden values sum up to more than nothing."""

    train_examples: int = 4000

    def num_examples(self, split: str) -> int:
        return self.train_examples if split == "train" else TEST

    def read(self, split: str, indices: Any, *, ram_bytes: int) -> Any:
        import tensorflow as tf

        shift = 0 if split == "train" else 7919

        def at(some):
            ids = ((some[:, tf.newaxis] + shift) * [[7, 13, 29]] // [[1, 3, 5]]) % VOCABULARY
            return {
                "index": some,
                "ids": ids,
                "label": tf.cast(tf.reduce_sum((ids * 7) % 11 - 5, axis=1) > 0, tf.int64),
            }

        return indices.map(at).unbatch()

    def parse(self, raw: Any) -> dict[str, Any]:
        return dict(raw)


@dataclass
class Embedded(Task):
    """A sum of embeddings; every training step prints its examples where it is computed."""

    def build_model(self):
        import keras

        from tfscale.layers.partitioned_embedding import PartitionedEmbedding

        ids = keras.Input((FIELDS,), dtype="int64", name="ids")
        x = PartitionedEmbedding(VOCABULARY, 8, partitions=PARTS, name="table")(ids)
        x = keras.layers.Dropout(0.1, seed=3, name="dropout")(keras.layers.Flatten(name="flat")(x))
        return keras.Model(ids, keras.layers.Dense(2, name="out")(x))

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        if training:
            tf.print("a step:", batch["index"], summarize=-1)
        logits = model(batch["ids"], training=training)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)
        return loss, {"accuracy": tf.cast(tf.equal(tf.argmax(logits, -1), batch["label"]), tf.float32)}


def plan_of(workers: int) -> ExecutionPlan:
    plan = plan_for(BATCH)
    return dataclasses.replace(
        plan,
        strategy="parameter_server",
        num_workers=workers,
        deterministic=False,
        inter_op_threads=2,
        steps_per_loop=8,
    )


def serve(cluster: Cluster) -> None:
    from tfscale.parameter_server import server

    server.serve(cluster, plan_of(len(cluster.addresses["worker"])), wait=lambda: print(sys.stdin.read()))


class Chief:
    """What session.py does, in short."""

    def __init__(self, cluster: Cluster, folder: Path):
        import keras

        from tfscale.checkpoint import Checkpointer
        from tfscale.parameter_server.coordinated import CoordinatedTrainer
        from tfscale.runtime.strategies import make_ps_strategy
        from tfscale.state.train_state import TrainState

        keras.utils.set_random_seed(0)
        self.plan, self.task = plan_of(len(cluster.addresses["worker"])), Embedded()
        strategy = make_ps_strategy(cluster)
        with strategy.scope():
            self.state = TrainState.create(self.task, keras.optimizers.Adam(0.02))
        self.trainer = CoordinatedTrainer(self.task, self.state, strategy, self.plan)
        self.checkpointer = Checkpointer(folder / "checkpoints")
        self.test = self.batches("test", training=False)

    def batches(self, split: str, *, training: bool) -> Any:
        from tfscale.data.order import Portion, Shard
        from tfscale.data.pipeline import build_dataset

        def build(first):
            return build_dataset(Rule(), self.task, Portion(split, Shard(BATCH), training, start_step=first), self.plan)

        return build

    def evaluate(self) -> dict[str, float]:
        return self.trainer.evaluate(self.test, -(-TEST // BATCH))

    def train(self, until: int) -> list[dict[str, float]]:
        from tfscale.engine.actions import Action, Every

        seen: list[dict[str, float]] = []

        def log():
            seen.append({"step": self.state.step, **self.trainer.drain()})
            print("step", self.state.step, flush=True)

        save = Action(Every(seconds=0.7), lambda: self.checkpointer.save(self.state))
        self.trainer.actions = [Action(Every(steps=25), log, at_end=True), save]
        signal.signal(signal.SIGUSR1, lambda *_: self.trainer.stop("told"))
        self.trainer.train(self.batches("train", training=True), until=until)
        return seen

    def values(self) -> dict[str, Any]:
        return {name: variable.numpy() for name, variable in self.state.variables().items()}

    def save_and_restore(self) -> list[str]:
        """The names of the variables that don't come back from a checkpoint as they were."""
        import numpy as np

        self.checkpointer.save(self.state, required=True)
        before, step = self.values(), self.state.step
        for variable in self.state.variables().values():
            variable.assign(np.zeros_like(variable.numpy()))
        self.state.step = 0
        self.checkpointer.restore(self.state)
        assert self.state.step == step
        return [name for name, value in self.values().items() if (value != before[name]).any()]


def train(cluster: Cluster, folder: Path, steps: int) -> None:
    chief = Chief(cluster, folder)
    facts: dict[str, Any] = {"before": chief.evaluate()}
    facts["log"] = chief.train(steps)
    facts["after"] = chief.evaluate()
    facts["step"], facts["iterations"] = chief.state.step, int(chief.state.optimizer.iterations)
    facts["devices"] = {name: variable.value.device for name, variable in chief.state.variables().items()}
    facts["changed"] = chief.save_and_restore()
    facts["restored"] = chief.evaluate()
    facts["traces"], facts["seconds"] = chief.trainer.traces, chief.trainer.clock.seconds
    facts["examples_per_second"] = chief.trainer.examples_per_second
    (folder / "facts.tmp").write_text(json.dumps(facts))
    (folder / "facts.tmp").rename(folder / "facts.json")
    while True:
        chief.evaluate()


if __name__ == "__main__":
    what, addresses, first, second = sys.argv[1:]
    if what == "serve":
        serve(Cluster("test", json.loads(addresses), first, int(second)))
    else:
        train(Cluster("test", json.loads(addresses), "chief", 0), Path(first), int(second))
