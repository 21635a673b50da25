"""Every decision of a run, each with its reason, from the facts: the execution plan."""

from tfscale.plan.execution_plan import ExecutionPlan, make_plan
from tfscale.plan.request import PlanRequest
from tfscale.task import Footprint

__all__ = ["ExecutionPlan", "Footprint", "PlanRequest", "make_plan"]
