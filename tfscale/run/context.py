"""RunContext: what one attempt of a run has around it, from the moment that it holds its folder.

Owns nothing but these names; what travels together through run/ is this one object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tfscale.cluster import Cluster
from tfscale.config.schema import RunConfig
from tfscale.errors import TfscaleError
from tfscale.keras_fit.callbacks import Callbacks
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.process.stopping import Stopping
from tfscale.run_dir.attempts import Attempts
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.lease import Claim
from tfscale.run_dir.store import Store


@dataclass(frozen=True)
class RunContext:
    """What one attempt has around it.

    Attributes:
        config: what the user configured.
        plan: how it is done; made again where prepared data or a counted model tell more.
        cluster: who takes part.
        run_dir: where the chief writes; others only read there.
        store: where a copy of the run is kept, or None.
        claim: the hold on the run folder.
        attempts: the log of the run's attempts.
        stopping: hears requests to stop.
        environ: where the cluster and its launcher are read from.
        began: when `fit` began, by time.monotonic.
        callbacks: Keras's, of a fit in Python.
    """

    config: RunConfig
    plan: ExecutionPlan
    cluster: Cluster
    run_dir: RunDir
    store: Store | None
    claim: Claim
    attempts: Attempts
    stopping: Stopping
    environ: Mapping[str, str]
    began: float
    callbacks: Callbacks | None = None

    def leave(self, error: TfscaleError) -> None:
        """Writes why this attempt ends."""
        self.attempts.ended(error.exit_code, error.what)
        self.run_dir.leave(error)
