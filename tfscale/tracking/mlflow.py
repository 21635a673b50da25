"""MLflow tracking that training never waits for.

Owns every call of MLflow: which experiment and run this run folder belongs to, and what becomes of each event. A new
sqlite store takes ten seconds to create and a server may be slow or away, so events go through a spool in the run
folder (spool.py) and a thread (delivery.py); what isn't taken while the run lasts waits for the next attempt.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import sys
import threading
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from tfscale.errors import IOFailure, UsageError, first_line
from tfscale.tracking.delivery import Delivery, Refused, milliseconds
from tfscale.tracking.spool import Spool, SpoolBusy
from tfscale.tracking.tracker import NullTracker, Tracker

_CLOSE_SECONDS = 60.0  # how long a finished run waits for MLflow to take the rest
_FAILED_SECONDS = 5.0
_FILE = "mlflow_run_id"
_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
_REFUSALS = (400, 409, 413, 422)  # HTTP codes that another try would not change
_METRICS, _PARAMS, _LENGTH = 1000, 100, 500  # what one request takes, and how long a parameter may be
_SAMPLE_SECONDS = 10.0  # between two looks at the machine


@dataclass
class MlflowTracker:
    """tracker=mlflow; without a `uri` the store is root/mlflow.db and artifacts go to root/mlartifacts.

    required: whether a run ends with code 74 where MLflow can't be reached at its start, or has not been told
        everything at its end.
    """

    uri: Optional[str] = None
    experiment: str = "tfscale"
    system_metrics: bool = True
    required: bool = False

    def check(self) -> None:
        """Raises UsageError for a missing package or a kind of store that MLflow no longer has, and IOFailure where a
        server is required and nobody listens there."""
        for package, key in (("mlflow", "tracker=mlflow"), ("psutil", "tracker.system_metrics=true")):
            if importlib.util.find_spec(package) is None and (package == "mlflow" or self.system_metrics):
                off = "tracker=none" if package == "mlflow" else "tracker.system_metrics=false"
                raise UsageError(
                    f"{key} needs the package {package}, which is not installed",
                    where="tracker",
                    fix=f'pip install "tfscale[mlflow]", or {off}',
                )
        scheme = self.uri.partition(":")[0].partition("+")[0] if self.uri is not None else _SCHEMES[0]
        if scheme not in _SCHEMES:
            raise UsageError(
                f"MLflow has no store at {self.uri!r}: plain files are none any more; it takes {', '.join(_SCHEMES)}",
                where="tracker.uri",
                fix="tracker.uri=sqlite:////PATH/mlflow.db or tracker.uri=http://HOST:PORT",
            )

        if self.required and scheme in ("http", "https"):
            _refuse_nobody(str(self.uri))

    def open(self, *, run_dir: Path, root: Path, name: str) -> Tracker:
        sink = _Sink(self, run_dir=run_dir, root=root, name=name)
        try:
            spool = Spool(self._spool(run_dir, joins=not name))
        except (OSError, SpoolBusy) as error:
            if self.required:
                raise IOFailure(f"what MLflow is to be told can't be kept: {error}", where=str(run_dir)) from error
            print(f"tfscale: this run is only in its folder: {first_line(error)}", file=sys.stderr)
            return NullTracker()
        return _MlflowRun(self, sink, spool, run_dir, owns=bool(name))

    def deliver(self, *, run_dir: Path, root: Path) -> None:
        """Delivers what a finished run still owes MLflow; raises IOFailure where it is required and can't."""
        file = self._spool(run_dir, joins=False)
        if not Spool.holds_any(file):
            return
        with contextlib.suppress(SpoolBusy):
            delivery = Delivery(Spool(file), _Sink(self, run_dir=run_dir, root=root, name=run_dir.name))
            self._close(delivery, _CLOSE_SECONDS)

    def _spool(self, run_dir: Path, *, joins: bool) -> Path:
        return run_dir / ("mlflow_spool-evaluator.jsonl" if joins else "mlflow_spool.jsonl")

    def _close(self, delivery: Delivery, within: float) -> None:
        if not delivery.close(within) and self.required:
            raise IOFailure(
                f"MLflow was not told everything: {delivery.failure or 'it takes too long'}",
                where="tracker.required",
                fix="run the same command again when MLflow is back: what it is owed is kept in the run folder",
            )


class _MlflowRun:
    """The Tracker. `owns`: whether this process makes and ends the run, or only adds to it."""

    def __init__(self, spec: MlflowTracker, sink: _Sink, spool: Spool, run_dir: Path, *, owns: bool):
        self._spec, self._sink, self._run_dir, self._owns = spec, sink, run_dir, owns
        self._delivery = Delivery(spool, sink, quiet=spec.required)
        self._over = threading.Event()
        if not owns:
            return
        self._delivery.put({"kind": "begin", "token": uuid.uuid4().hex})
        if spec.required and not (self._delivery.answered(_CLOSE_SECONDS) and not self._delivery.failure):
            self._delivery.close(0.0)
            raise _out_of_reach(self._delivery.failure or "no answer")
        self._delivery.quiet = False
        if spec.system_metrics:
            threading.Thread(target=self._watch_machine, args=(_monitors(),), name="machine", daemon=True).start()

    @property
    def run_id(self) -> str | None:
        """The run's id; waits for MLflow to have made it, but not for ever."""
        self._delivery.answered(_CLOSE_SECONDS)
        return self._sink.run_id

    def params(self, values: Mapping[str, Any]) -> None:
        self._delivery.put({"kind": "params", "values": {k: str(v)[:_LENGTH] for k, v in values.items()}})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        event: dict[str, Any] = {"kind": "metrics", "values": {k: float(v) for k, v in values.items()}, "step": step}
        event["ms"] = milliseconds()
        self._delivery.put(event, may_drop=True)

    def artifact(self, path: Path) -> None:
        inside = path.is_relative_to(self._run_dir)
        self._delivery.put(
            {"kind": "artifact", "path": str(path.relative_to(self._run_dir) if inside else path.resolve())}
        )

    def close(self, status: str) -> None:
        self._over.set()
        if self._owns:
            self._delivery.put({"kind": "end", "status": status, "ms": milliseconds()})
        if status == "FINISHED":
            self._spec._close(self._delivery, _CLOSE_SECONDS)
        else:  # what ended the run is to be told, not this
            self._delivery.close(_FAILED_SECONDS)

    def _watch_machine(self, monitors: list[Any]) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            now = milliseconds()
            values: dict[str, float] = {}
            for monitor in monitors:
                with contextlib.suppress(Exception):  # a driver may fail at any moment
                    monitor.collect_metrics()
                    values.update({f"system/{k}": float(v) for k, v in monitor.aggregate_metrics().items()})
                monitor.clear_metrics()
            event = {"kind": "metrics", "values": values, "step": now // 1000, "ms": now}
            self._delivery.put(event, may_drop=True)


class _Sink:
    """MLflow's end; on the delivery's thread but for its making. It finds its run at the first event."""

    name = "MLflow"

    def __init__(self, spec: MlflowTracker, *, run_dir: Path, root: Path, name: str):
        # Here and not on the thread: tensorflow_datasets replaces Python's import while it is imported itself, and an
        # import of MLflow at that moment fails.
        self._mlflow = _import_mlflow()
        self._spec, self._run_dir, self._root, self._name = spec, run_dir, root, name
        self._client: Any = None
        self.run_id: str | None = None

    def take(self, kind: str, events: list[dict[str, Any]]) -> None:
        if self.run_id is None:
            self.run_id = self._find_run(str(events[0].get("token", "")))
            (self._run_dir / _FILE).write_text(self.run_id + "\n")
        try:
            getattr(self, f"_take_{kind}")(events)
        except self._mlflow.MlflowException as error:
            if error.get_http_status_code() in _REFUSALS:
                raise Refused(first_line(error)) from error
            raise

    # -- which run

    def _find_run(self, token: str) -> str:
        uri, artifacts = self._spec.uri, None
        if uri is None:
            uri = f"sqlite:///{(self._root / 'mlflow.db').resolve()}"
            artifacts = (self._root / "mlartifacts").resolve().as_uri()
        if self._client is None:
            self._client = self._mlflow.MlflowClient(tracking_uri=uri)
        known = self._known_run()
        if known:
            return known
        found = self._client.get_experiment_by_name(self._spec.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self._spec.experiment, artifacts)
        # An earlier try may have made the run without our hearing of it.
        made = self._client.search_runs([experiment], f"tags.tfscale.token = '{token}'") if token else []
        if made:
            return made[0].info.run_id
        from mlflow.tracking.context.registry import resolve_tags

        tags = {**resolve_tags(), **({"tfscale.token": token} if token else {})}
        return self._client.create_run(experiment, run_name=self._name or None, tags=tags).info.run_id

    def _known_run(self) -> str | None:
        """The MLflow run that this run folder belongs to, so that a resumed run goes on in it."""
        known = os.environ.get("MLFLOW_RUN_ID")
        if known is None and (self._run_dir / _FILE).exists():
            known = (self._run_dir / _FILE).read_text().strip()
        if not known:
            return None
        try:
            self._client.get_run(known)
        except self._mlflow.MlflowException as error:
            if error.get_http_status_code() != 404:
                raise
            return None  # another store, or deleted there
        return known

    # -- the kinds of events

    def _take_begin(self, events: list[dict[str, Any]]) -> None:
        self._client.update_run(self.run_id, status="RUNNING")

    def _take_params(self, events: list[dict[str, Any]]) -> None:
        # MLflow refuses to change a parameter; a resumed run may run on other hardware.
        from mlflow.entities import Param, RunTag

        values = {k: v for event in events for k, v in event["values"].items()}
        known = self._client.get_run(self.run_id).data.params
        fresh = [Param(k, v) for k, v in values.items() if k not in known]
        changed = [RunTag(f"resumed.{k}", v) for k, v in values.items() if k in known and known[k] != v]
        for some in _parts(fresh, _PARAMS):
            self._client.log_batch(self.run_id, params=some)
        for some in _parts(changed, _PARAMS):
            self._client.log_batch(self.run_id, tags=some)

    def _take_metrics(self, events: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(k, v, e["ms"], e["step"]) for e in events for k, v in e["values"].items()]
        for some in _parts(metrics, _METRICS):
            self._client.log_batch(self.run_id, metrics=some)

    def _take_artifact(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            path = self._run_dir / event["path"]
            if path.exists():  # set aside or deleted since
                self._client.log_artifact(self.run_id, str(path))

    def _take_end(self, events: list[dict[str, Any]]) -> None:
        self._client.set_terminated(self.run_id, events[-1]["status"], events[-1]["ms"])


def _refuse_nobody(uri: str) -> None:
    """A look that takes no import of MLflow."""
    place = urllib.parse.urlsplit(uri)
    host, port = place.hostname or "", place.port or (443 if place.scheme == "https" else 80)
    if place.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return
    try:
        socket.create_connection((host, port), timeout=_FAILED_SECONDS).close()
    except OSError as error:
        raise _out_of_reach(f"{host}:{port}: {error}") from None


def _out_of_reach(cause: str) -> IOFailure:
    return IOFailure(
        f"MLflow is out of reach: {cause}",
        where="tracker.uri",
        fix="start it, correct tracker.uri, or go on without it: tracker.required=false",
    )


def _parts(some: list[Any], size: int) -> Iterator[list[Any]]:
    return (some[i : i + size] for i in range(0, len(some), size))


def _monitors() -> list[Any]:
    """MLflow's own, of the processor, disk, network and, where they are, GPUs."""
    from mlflow.system_metrics.metrics import cpu_monitor, disk_monitor, gpu_monitor, network_monitor

    monitors: list[Any] = [cpu_monitor.CPUMonitor(), disk_monitor.DiskMonitor(), network_monitor.NetworkMonitor()]
    with contextlib.suppress(Exception):  # no NVIDIA driver
        monitors.append(gpu_monitor.GPUMonitor())
    return monitors


def _import_mlflow() -> Any:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before the import, which looks a host up
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # with the password in it
    # The delivery tries again by itself; MLflow's seven retries of two minutes each would only delay the news.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    import logging

    import mlflow
    import mlflow.tracking.fluent  # the rest is imported on first use, which would be on the thread

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    return mlflow
