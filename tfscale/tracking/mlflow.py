"""MLflow tracking on a thread of its own.

Owns every call of MLflow. A new sqlite store takes ten seconds to create and a server may be away: training never
waits for either. Events go through a queue; what MLflow doesn't take is reported once and stays in metrics.jsonl.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from tfscale.errors import UsageError, first_line
from tfscale.tracking.tracker import Tracker

_CLOSE_SECONDS = 60.0  # how long a finished run waits for MLflow to take the rest
_FAILED_SECONDS = 5.0
_FILE = "mlflow_run_id"


@dataclass
class MlflowTracker:
    """tracker=mlflow; without a `uri` the store is root/mlflow.db and artifacts go to root/mlartifacts."""

    uri: Optional[str] = None
    experiment: str = "tfscale"
    system_metrics: bool = True

    def check(self) -> None:
        """Raises UsageError where the package is missing."""
        if importlib.util.find_spec("mlflow") is None:
            raise UsageError(
                "tracker=mlflow needs the package mlflow, which is not installed",
                where="tracker",
                fix='pip install "tfscale[mlflow]", or tracker=none',
            )

    def open(self, *, run_dir: Path, root: Path, name: str) -> Tracker:
        return _QueuedTracker(self, run_dir=run_dir, root=root, name=name)


class _QueuedTracker:
    def __init__(self, spec: MlflowTracker, *, run_dir: Path, root: Path, name: str):
        self._spec, self._run_dir, self._root, self._name = spec, run_dir, root, name
        self._events: queue.SimpleQueue[tuple[Callable[..., Any], tuple] | None] = queue.SimpleQueue()
        self._started = threading.Event()
        self._run_id: str | None = None
        self._status = "FINISHED"
        self._warned = False
        self._waiting_since: float | None = None
        # Here and not on the thread: tensorflow_datasets replaces Python's import while it is imported itself, and an
        # import of MLflow at that moment fails.
        self._mlflow = _import_mlflow()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """The run's id; waits for MLflow to have made it, but not for ever."""
        self._started.wait(self._left(_CLOSE_SECONDS))
        return self._run_id

    def params(self, values: Mapping[str, Any]) -> None:
        self._events.put((self._log_params, (dict(values),)))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._events.put((self._log_metrics, (dict(values), step, int(time.time() * 1000))))

    def artifact(self, path: Path) -> None:
        self._events.put((self._log_artifact, (path,)))

    def close(self, status: str) -> None:
        self._status = status
        self._events.put(None)
        self._thread.join(self._left(_CLOSE_SECONDS if status == "FINISHED" else _FAILED_SECONDS))
        if self._thread.is_alive():
            self._warn("MLflow did not take everything in time")

    def _left(self, seconds: float) -> float:
        """What is left of the time that the end of a run may wait for MLflow, all its waits together."""
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        return max(0.0, seconds - (time.monotonic() - self._waiting_since))

    # -- on the thread

    def _work(self) -> None:
        try:
            self._start()
        except Exception as error:  # MLflow raises whatever its stores and servers raise
            self._warn(f"MLflow is out of reach, so this run is only in its folder: {first_line(error)}")
        finally:
            self._started.set()
        while (event := self._events.get()) is not None:
            if self._run_id is None:
                continue
            call, arguments = event
            try:
                call(*arguments)
            except Exception as error:
                self._warn(f"MLflow did not take an event: {first_line(error)}")
        if self._run_id is not None:
            try:
                self._mlflow.end_run(self._status)
                self._use(self._former_uri)
            except Exception as error:
                self._warn(f"MLflow did not end the run: {first_line(error)}")

    def _start(self) -> None:
        mlflow = self._mlflow
        uri, artifacts = self._spec.uri, None
        if uri is None:
            uri = f"sqlite:///{(self._root / 'mlflow.db').resolve()}"
            artifacts = (self._root / "mlartifacts").resolve().as_uri()
        self._former_uri = mlflow.get_tracking_uri()
        self._use(uri)
        if mlflow.get_experiment_by_name(self._spec.experiment) is None:
            mlflow.create_experiment(self._spec.experiment, artifact_location=artifacts)
        mlflow.set_experiment(self._spec.experiment)
        run_id = self._known_run(mlflow)
        run = mlflow.start_run(
            run_id=run_id, run_name=None if run_id else self._name, log_system_metrics=self._spec.system_metrics
        )
        self._run_id = run.info.run_id
        (self._run_dir / _FILE).write_text(self._run_id + "\n")

    def _use(self, uri: str) -> None:
        """Sets MLflow's address without its side effect on the environment, which the next run would read."""
        former = os.environ.get("MLFLOW_TRACKING_URI")
        self._mlflow.set_tracking_uri(uri)
        if former is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = former

    def _known_run(self, mlflow: Any) -> str | None:
        """The MLflow run that this run folder belongs to, so that a resumed run goes on in it."""
        known = os.environ.get("MLFLOW_RUN_ID")
        if known is None and (self._run_dir / _FILE).exists():
            known = (self._run_dir / _FILE).read_text().strip()
        if known:
            try:
                mlflow.get_run(known)
            except mlflow.exceptions.MlflowException:
                return None  # another store, or deleted there
        return known or None

    def _log_params(self, values: dict[str, Any]) -> None:
        # MLflow refuses to change a parameter; a resumed run may run on other hardware.
        known = self._mlflow.get_run(str(self._run_id)).data.params
        fresh = {k: str(v)[:500] for k, v in values.items() if k not in known}
        changed = {k: str(v)[:500] for k, v in values.items() if k in known and known[k] != str(v)[:500]}
        if fresh:
            self._mlflow.log_params(fresh)
        if changed:
            self._mlflow.set_tags({f"resumed.{k}": v for k, v in changed.items()})

    def _log_metrics(self, values: dict[str, float], step: int, timestamp: int) -> None:
        self._mlflow.log_metrics(values, step=step, timestamp=timestamp)

    def _log_artifact(self, path: Path) -> None:
        self._mlflow.log_artifact(str(path))

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            print(f"tfscale: {text}", file=sys.stderr)


def _import_mlflow() -> Any:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before the import, which looks a host up
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import logging

    import mlflow
    import mlflow.tracking.fluent  # the rest is imported on first use, which would be on the thread

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    return mlflow
