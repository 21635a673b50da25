"""tfscale's process in the scaling benchmark: Trainer.train as a run wires it, without actions.

python -m benchmarks.scaling_ours MEMBER        # started by scaling_processes.py
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from tfscale.recipes.resnet import ResNet

from benchmarks.scaling_member import LEARNING_RATE, MOMENTUM, POOL, Member, Workload, serve, start
from tfscale.cluster import Cluster
from tfscale.config.schema import OptimizerConfig, PlanConfig, Precision, WirePrecision
from tfscale.hardware import probe
from tfscale.plan.execution_plan import ExecutionPlan, make_plan
from tfscale.plan.request import PlanRequest


def main() -> NoReturn:
    member = start(sys.argv[1])
    task = _task(member.workload)
    cluster = Cluster() if member.world == 1 else Cluster("benchmark", {"worker": member.addresses}, index=member.rank)
    plan = _plan(member, task, cluster)
    from tfscale.runtime import global_state as runtime

    runtime.apply(plan, seed=0)
    strategy = runtime.build_strategy(plan, cluster)
    from tfscale.engine.control import LoopControl
    from tfscale.engine.loop import Trainer
    from tfscale.optimizers.build import build_optimizer
    from tfscale.state.train_state import TrainState

    config = OptimizerConfig(name="sgd", learning_rate=LEARNING_RATE, momentum=MOMENTUM)
    with strategy.scope():
        state = TrainState.create(task, build_optimizer(config, steps_per_epoch=1, total_steps=1))
    trainer = Trainer(task, state, strategy, plan, control=LoopControl(worker=cluster.worker_index))
    dataset = _batches(member.workload, plan.replica_batch)
    batches = iter(strategy.distribute_datasets_from_function(lambda _context: dataset))

    def run(steps: int) -> None:
        trainer.train(batches, until=state.step + steps)
        assert max(trainer.traces.values()) == 1, f"a compiled function was traced again: {trainer.traces}"

    parameters = sum(int(v.value.shape.num_elements()) for v in state.model.trainable_variables)
    serve(run, {"parameters": parameters, "how": _how(plan)})


def _task(workload: Workload) -> ResNet:
    return ResNet(
        depth=workload.depth,
        width=workload.width,
        image_size=workload.image_size,
        channels=workload.channels,
        num_classes=workload.num_classes,
    )


def _plan(member: Member, task: ResNet, cluster: Cluster) -> ExecutionPlan:
    """The plan's own choice, but in float32 and whole batches, which every contestant has."""
    forced = PlanConfig(
        precision=Precision.float32, bytes_per_pack=member.bytes_per_pack, wire_precision=WirePrecision[member.wire]
    )
    request = PlanRequest(
        global_batch=member.workload.global_batch, accumulate=1, footprint=task.footprint(), forced=forced
    )
    return make_plan(probe(), cluster, request)


def _batches(workload: Workload, replica_batch: int) -> Any:
    import numpy as np
    import tensorflow as tf

    random = np.random.RandomState(0)
    count, size = POOL * replica_batch, workload.image_size
    elements = {
        "image": random.randint(0, 256, (count, size, size, workload.channels), np.uint8),
        "label": random.randint(0, workload.num_classes, count).astype(np.int32),
        "weight": np.ones(count, np.float32),
    }
    dataset = tf.data.Dataset.from_tensor_slices(elements).batch(replica_batch, drop_remainder=True)
    return dataset.cache().repeat().prefetch(2)


def _how(plan: ExecutionPlan) -> str:
    how = f"{plan.strategy}, {plan.precision}, threads {plan.intra_op_threads} intra {plan.inter_op_threads} inter,"
    how += f" deterministic {plan.deterministic}"
    if plan.num_workers == 1:
        return how
    packs = f"packs of {plan.bytes_per_pack >> 20} MiB" if plan.bytes_per_pack else "one pack"
    return f"{how}, {plan.collectives} over gRPC, {packs}, wire {plan.wire_precision}"


if __name__ == "__main__":
    main()
