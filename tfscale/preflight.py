"""Preflight: what a run is refused for before it leaves anything behind, and what a dry run looks at instead.

Owns the import of people's own code before there is a run folder. Refuses to plan and to train.
"""

from __future__ import annotations

from tfscale import runtime
from tfscale.cluster import Cluster
from tfscale.config import RunConfig
from tfscale.plan import ExecutionPlan
from tfscale.user_code import load_code, load_code_apart

_JOINING = ("multi_worker", "parameter_server")  # they meet before TensorFlow starts, and people's code may start it


def import_code(config: RunConfig, plan: ExecutionPlan, cluster: Cluster) -> None:
    """Imports the code that the task names, under the plan's choices; raises UsageError where it fails."""
    if not config.task.code:
        return
    if plan.strategy not in _JOINING:
        with runtime.applied(plan, seed=config.train.seed):
            load_code(config.task.code, key="task.model")
    elif cluster.is_chief:
        load_code_apart(config.task.code, key="task.model")


def rehearse_here(config: RunConfig, plan: ExecutionPlan) -> None:
    """The same for a dry run, whose plan may be another machine's; and whether there is what tracks the run."""
    if config.tracker is not None and config.plan.hardware is None:
        config.tracker.check()
    if config.task.code:
        load_code_apart(config.task.code, key="task.model")
