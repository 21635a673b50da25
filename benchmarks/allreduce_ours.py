"""tfscale's process in the benchmark of reductions: the Reducer of a training step, without the step.

python -m benchmarks.allreduce_ours reducer MEMBER        # started by scaling_processes.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.allreduce_member import Member, obey
from tfscale.cluster import Cluster
from tfscale.config.schema import PlanConfig, WirePrecision
from tfscale.hardware import probe
from tfscale.plan.execution_plan import make_plan
from tfscale.plan.request import PlanRequest


def reducer(member: Member) -> tuple[Callable[[int], None], dict[str, Any]]:
    cluster = Cluster("benchmark", {"worker": member.addresses}, index=member.rank)
    forced = PlanConfig(bytes_per_pack=member.bytes_per_pack, wire_precision=WirePrecision[member.wire])
    plan = make_plan(probe(), cluster, PlanRequest(global_batch=len(member.addresses), forced=forced))
    from tfscale.runtime import global_state as runtime

    runtime.apply(plan, seed=0)
    strategy = runtime.build_strategy(plan, cluster)
    import tensorflow as tf

    from tfscale.engine.reduce import Reducer

    reduce = Reducer(plan)
    gradients = [tf.fill([size], float(member.value(place))) for place, size in enumerate(member.sizes)]

    @tf.function(autograph=False)
    def step() -> Any:
        return strategy.run(lambda: reduce(gradients, [])[0])  # returned, or nobody would unpack them

    for place, total in enumerate(step()):
        (own,) = strategy.experimental_local_results(total)
        assert bool(tf.reduce_all(own == member.wanted(place))), f"the sum of tensor {place} is wrong"

    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    packs = f"packs of {plan.bytes_per_pack >> 20} MiB" if plan.bytes_per_pack else "one pack"
    asked = "as planned" if member.bytes_per_pack is None else "asked for"
    return run, {"how": f"Reducer, {plan.collectives} over gRPC, {packs} {asked}, wire {plan.wire_precision}"}


if __name__ == "__main__":
    obey({"reducer": reducer})
