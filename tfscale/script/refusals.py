"""What is refused before a script begins.

Owns what of the configuration a script can be given. Refuses to run anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from tfscale.cluster import Cluster
from tfscale.composition.hydra_compose import compose
from tfscale.config.schema import PlanConfig
from tfscale.data.keras_source import KerasSource
from tfscale.errors import UsageError
from tfscale.hardware import probe
from tfscale.keras_fit.arguments import ARGUMENTS
from tfscale.keras_task.given_model import GivenModel
from tfscale.plan.execution_plan import ExecutionPlan, make_plan
from tfscale.plan.request import PlanRequest


def refuse_several_workers() -> None:
    """Raises UsageError where this process is one of several: each would train for itself."""
    cluster = Cluster.resolve(os.environ)
    if cluster.is_multi_worker:
        raise UsageError(
            f"this is {cluster.role}:{cluster.index} of several processes, and a script trains in one in this version",
            where="the cluster",
            fix="call tfscale.fit with functions for model and data, or run it on one worker",
        )


def first_plan(overrides: Sequence[str]) -> ExecutionPlan:
    """What can be planned before there is a model: devices and threads.

    Raises:
        UsageError: overrides that there aren't, or that the script itself decides.
    """
    for override in overrides:
        name = override.lstrip("+~").partition("=")[0]
        if name in ARGUMENTS:
            fix = "use --run-dir DIR" if name == "run.dir" else "change it in the script"
            raise UsageError(f"{override!r} is an argument of fit, which the script gives", where="--override", fix=fix)
    forced = PlanConfig()
    if overrides:
        needed = ["train.until=1ep", "train.global_batch=32"]  # as a fit has them
        forced = compose([*needed, *overrides], task=GivenModel(), data=KerasSource()).plan
    if forced.dry_run:
        raise UsageError(
            "a script can't go on behind a fit that trains nothing", where="plan.dry_run", fix="leave it away"
        )
    return make_plan(probe(), Cluster(), PlanRequest(global_batch=32, forced=forced, uneven=True))
