"""The export of a run: its model with samples from its own data.

Owns what of a run an export needs. Refuses to know the files and the check, which are verified.py's.

    export_run(Exported(run.task, run.state, run.config, run.plan, run.folder), run.folder / "export")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfscale.config.schema import RunConfig
from tfscale.data.source import Source
from tfscale.export.real_samples import Wanted, raw_samples, real_samples
from tfscale.export.run_facts import run_facts
from tfscale.export.verified import export_model, rehearse
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.task import Task

if TYPE_CHECKING:
    from tfscale.state.train_state import TrainState


@dataclass(frozen=True)
class Exported:
    """What of a trained run is exported.

    Attributes:
        state: with the weights that count.
        folder: of the run.
        identity: of the experiment.
        class_names: as the run was trained; None: the data's.
    """

    task: Task
    state: TrainState
    config: RunConfig
    plan: ExecutionPlan
    folder: Path
    identity: str = ""
    class_names: Sequence[str] | None = None

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.plan, self.config.train.seed, self.config.export.examples)


def export_run(run: Exported, directory: str | Path) -> Path:
    """Exports this state, checked on the first `export.examples` examples of the test split (the training split where
    there is none).

    Raises:
        like `export_model`.
    """
    source = run.config.data
    samples, names = real_samples(run.task, source, run.wanted), run.class_names or source.class_names()
    facts = run_facts(run.folder, run.task, run.config, step=run.state.step)
    return export_model(
        run.task, run.state, directory, samples=samples, identity=run.identity, class_names=names, run=facts
    )


def rehearse_export(task: Task, state: TrainState, source: Source) -> str:
    """Finds before the first step that this model can't be exported.

    Returns:
        What the export will leave out, for people; "" where it is whole.

    Raises:
        UsageError: it can't be.
    """
    rows = task.fixed_rows or 1
    samples = raw_samples(task, source, rows)
    some = {name: [values[i % len(values)] for i in range(rows)] for name, values in samples.items()}
    why = rehearse(task, state.model, some)
    return f"the export will hold saved_model/ and no model.keras: {why}" if why else ""
