"""Every decision of a run, each with its reason, from the facts: the execution plan.

Owns what the run does with its hardware. Refuses to know who obeys.

    plan = make_plan(probe(), Cluster.resolve(), PlanRequest(global_batch=64))
    print(plan.explain())                      # every field, its value and its reason
    plan.strategy, plan.reasons["strategy"]
"""

from tfscale.plan.execution_plan import ExecutionPlan, make_plan
from tfscale.plan.request import PlanRequest
from tfscale.task import Footprint

__all__ = ["ExecutionPlan", "Footprint", "PlanRequest", "make_plan"]
