"""tfscale: trains a Keras 3 model on whatever hardware it finds, by one command that never changes.

The names below are the public API. They are imported when first used, so that `import tfscale` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfscale.version import __version__ as __version__

_HOMES = {
    "Checkpointer": "tfscale.checkpoint",
    "Cluster": "tfscale.cluster",
    "ExecutionPlan": "tfscale.plan",
    "Hardware": "tfscale.hardware",
    "PlanRequest": "tfscale.plan",
    "Result": "tfscale.run_dir",
    "RunConfig": "tfscale.config",
    "Source": "tfscale.data.source",
    "Task": "tfscale.task",
    "Tracker": "tfscale.tracking.tracker",
    "Trainer": "tfscale.engine.loop",
    "compose": "tfscale.composition",
    "disable": "tfscale.run.script.notebook",
    "enable": "tfscale.run.script.notebook",
    "evaluate_model": "tfscale.run",
    "export_model": "tfscale.export",
    "fit": "tfscale.run",
    "import_table": "tfscale.importer.frames",
    "inspect_data": "tfscale.inspection.inspected",
    "is_chief": "tfscale.cluster",
    "launch_workers": "tfscale.launch",
    "make_plan": "tfscale.plan",
    "predict_model": "tfscale.run",
    "probe": "tfscale.hardware",
}
# Written out: a type checker doesn't follow _HOMES, and takes for private what isn't here.
__all__ = [
    "Checkpointer",
    "Cluster",
    "ExecutionPlan",
    "Hardware",
    "PlanRequest",
    "Result",
    "RunConfig",
    "Source",
    "Task",
    "Tracker",
    "Trainer",
    "compose",
    "disable",
    "enable",
    "evaluate_model",
    "export_model",
    "fit",
    "import_table",
    "inspect_data",
    "is_chief",
    "launch_workers",
    "make_plan",
    "predict_model",
    "probe",
]

if TYPE_CHECKING:
    from tfscale.checkpoint import Checkpointer
    from tfscale.cluster import Cluster, is_chief
    from tfscale.composition.hydra_compose import compose
    from tfscale.config.schema import RunConfig
    from tfscale.data.source import Source
    from tfscale.engine.loop import Trainer
    from tfscale.export.verified import export_model
    from tfscale.hardware import Hardware, probe
    from tfscale.importer.frames import import_table
    from tfscale.inspection.inspected import inspect_data
    from tfscale.launch.workers import launch_workers
    from tfscale.plan.execution_plan import ExecutionPlan, make_plan
    from tfscale.plan.request import PlanRequest
    from tfscale.run.api import fit
    from tfscale.run.keras_answers import evaluate_model, predict_model
    from tfscale.run.script.notebook import disable, enable
    from tfscale.run_dir.result import Result
    from tfscale.task import Task
    from tfscale.tracking.tracker import Tracker


if not TYPE_CHECKING:  # to a type checker it would mean that there is every name

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
        raise AttributeError(f"module 'tfscale' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
