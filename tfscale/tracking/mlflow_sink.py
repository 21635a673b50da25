"""MLflow's own end: every call of MLflow.

Owns which store, experiment and run a run folder belongs to, under which names MLflow takes what it is told, and the
address of the page that shows the run. Refuses to know threads: the delivery calls it on its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.errors import SecurityRefused, first_line, without_secrets
from tfscale.files import inside, read_plain, sha256_of, write_whole
from tfscale.tracking.delivery import Refused
from tfscale.tracking.own_store import PLAIN, half_made_told, made_whole, store_beside

_log = logging.getLogger(__name__)

RUN_ID = "mlflow_run_id"  # the file of the run folder that names its run
_REFUSALS = (400, 409, 413, 422)  # HTTP codes that another try would not change
_METRICS, _PARAMS = 1000, 100  # what one request takes
_LONGEST = 250  # characters of a name
_TOLD = 5  # names in one message
_UNFIT = re.compile(r"[^/\w.\- :]")  # what MLflow takes in no name


# The delivery tries again by itself; MLflow's seven retries of two minutes each would only delay the news.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_lent: set[str] = set()  # those of them that people had not set


@dataclass(frozen=True)
class Place:
    """Where a new run goes, as far as it is known without asking the store.

    Attributes:
        uri: of the store; None: mlflow.db in the folder that the runs share.
        name: of the experiment, "" where `id` says which.
        id: of the experiment.
        parent: the run that surrounds it.
    """

    uri: str | None
    name: str
    id: str | None = None
    parent: str | None = None


def choose_place(mlflow: Any, *, uri: str | None, experiment: str | None, otherwise: str) -> Place:
    """By rank: what the configuration names, the run that is active in this thread, mlflow.set_experiment,
    MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID, and the name that the run has of itself."""
    active, chosen = mlflow.active_run(), mlflow.tracking.fluent._active_experiment_id
    around = mlflow.get_tracking_uri() if active or chosen else None
    uri = around if uri is None else uri
    if experiment is not None:
        return Place(uri, experiment)
    here = around is not None and uri is not None and around.rstrip("/") == uri.rstrip("/")
    if active and here:
        return Place(uri, "", active.info.experiment_id, active.info.run_id)
    if active:
        _warn("the active MLflow run lies in another store than tracker.uri, so that this run is none of its children")
    if chosen and here:
        return Place(uri, "", chosen)
    named, by_id = os.environ.get("MLFLOW_EXPERIMENT_NAME"), os.environ.get("MLFLOW_EXPERIMENT_ID")
    if named or not by_id or by_id == chosen:  # set_experiment leaves its id there, which another store doesn't know
        return Place(uri, named or otherwise)
    return Place(uri, "", by_id)


class Sink:
    """On the delivery's thread but for its making. It finds its run at the first event.

    Args:
        place: see `choose_place`.
        run_dir: the run's folder.
        root: the folder that the runs share.
        name: of a new run.
    """

    name = "MLflow"

    def __init__(self, mlflow: Any, place: Place, *, run_dir: Path, root: Path, name: str):
        self._mlflow, self._place = mlflow, place
        self._run_dir, self._root, self._name = run_dir, root, name
        self._client: Any = None
        self._names: dict[tuple[str, str], str] = {}  # (kind, name): what MLflow calls it
        self._fitted: set[tuple[str, str]] = set()  # (kind, what MLflow calls it)
        self._said: set[str] = set()
        self._refused: list[str] = []
        self._link: tempfile.TemporaryDirectory | None = None
        self.run_id: str | None = None
        self.experiment_id: str | None = None

    def take(self, kind: str, events: list[dict[str, Any]]) -> None:
        if self.run_id is None:
            self._find_run(events[0])
        self._refused.clear()
        try:
            getattr(self, f"_take_{kind}")(events)
        except Exception as error:
            if not self._refuses(error):
                raise
            self._refused.append(f"{kind}: {first_line(error)}")
        if self._refused:
            raise Refused("; ".join(self._refused[:3]))

    def attach(self, files: Iterable[Path]) -> str | None:
        """Gives files to the run that the folder names, at once and on the caller's thread.

        Returns:
            The run's id, None where there is no such run: none is made for them.
        """
        if self._place.uri is None and not (self._root / "mlflow.db").is_file():
            return None  # the run folder is a copy
        self._client = self._mlflow.MlflowClient(tracking_uri=self._store())
        run = self._known_run()
        for file in files if run else ():
            self._client.log_artifact(run.info.run_id, str(file), "reports")
        return str(run.info.run_id) if run else None

    def found_or_made(self, name: str, dataset: dict[str, Any]) -> Any:
        """The run that the folder names, at once and on the caller's thread; where it has none, as after tracker=none,
        one is made that says its data, where there are any, and has ended. The folder goes on to name the run that it
        has elsewhere."""
        self._client = self._mlflow.MlflowClient(tracking_uri=self._store())
        known = self._known_run()
        if known is None:
            own = self._run_dir / RUN_ID
            elsewhere = read_plain(own, most=1000) if own.exists() else None
            self.take("begin", [{"name": name}])
            if elsewhere:
                write_whole(own, elsewhere)
            if dataset:
                self.take("dataset", [dataset])
            self.take("end", [{"status": "FINISHED", "ms": None}])
        return known or self._client.get_run(self.run_id)

    # -- which run

    def _find_run(self, first: dict[str, Any]) -> None:
        if self._client is None:
            self._client = self._mlflow.MlflowClient(tracking_uri=self._store())
        token, name = re.sub(r"\W", "", str(first.get("token", ""))), str(first.get("name") or self._name)
        with half_made_told(self._place.uri or ""):
            run = self._known_run() or self._made(token, name)
        self.experiment_id, self.run_id = run.info.experiment_id, run.info.run_id
        write_whole(self._run_dir / RUN_ID, f"{self.run_id}\n".encode())

    def _store(self) -> str:
        if self._place.uri is not None:
            return made_whole(self._mlflow, self._place.uri)
        uri, self._link = store_beside(self._mlflow, self._root)
        return uri

    def _known_run(self) -> Any:
        """The MLflow run that this run folder belongs to, so that a resumed run goes on in it."""
        known = os.environ.get("MLFLOW_RUN_ID")
        if known is None and (self._run_dir / RUN_ID).exists():
            known = read_plain(self._run_dir / RUN_ID, most=1000).decode(errors="replace").strip()
        if not known or not re.fullmatch(r"[\w-]+", known):
            return None
        try:
            run = self._client.get_run(known)
        except self._mlflow.MlflowException as error:
            if error.get_http_status_code() != 404:
                raise
            return None  # another store, or deleted there for good
        return run if run.info.lifecycle_stage == "active" else None

    def _made(self, token: str, name: str) -> Any:
        from mlflow.tracking.context.registry import resolve_tags

        experiment = self._place.id or self._experiment(self._place.name)
        # An earlier try may have made the run without our hearing of it.
        made = self._client.search_runs([experiment], f"tags.tfscale.token = '{token}'") if token else []
        if made:
            return made[0]
        tags = {**resolve_tags(), **({"tfscale.token": token} if token else {})}
        if self._place.parent:
            tags["mlflow.parentRunId"] = self._place.parent
        return self._client.create_run(experiment, run_name=name or None, tags=tags)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            artifacts = (self._root / "mlartifacts").resolve().as_uri() if self._place.uri is None else None
            tags = {"mlflow.experimentKind": "custom_model_development"}  # else its page asks of what kind it is
            return self._client.create_experiment(name, artifacts, tags)
        if found.lifecycle_stage != "active":
            raise RuntimeError(f"the experiment {name!r} is deleted there: restore it, or give tracker.experiment=NAME")
        return found.experiment_id

    # -- where people find it

    def page(self) -> list[str]:
        """What opens the run in a browser, a line each; [] where that isn't known."""
        if self.run_id is None:
            return []
        path = f"experiments/{self.experiment_id}/runs/{self.run_id}?workflowType=machine_learning"
        uri = self._place.uri
        if uri is not None and uri.startswith(("http://", "https://")):
            place = urllib.parse.urlsplit(uri)
            host = place.netloc.rpartition("@")[2]  # without a user's name and password
            return [f"{place.scheme}://{host}{place.path.rstrip('/')}/#/{path}"]
        if uri is not None and uri.startswith("databricks"):
            return []
        return [self._ui(uri), f"http://127.0.0.1:5000/#/{path}"]

    def _ui(self, uri: str | None) -> str:
        """The command that shows the store."""
        beside = Path(sys.executable).with_name("mlflow")
        program = str(beside) if shutil.which("mlflow") is None and beside.exists() else "mlflow"
        show = f"{shlex.quote(program)} ui --backend-store-uri"
        if uri is not None:
            return f"{show} {shlex.quote(without_secrets(uri))}"
        folder = os.path.relpath(self._root)
        folder = str(self._root.resolve()) if folder.startswith("..") else folder
        if not PLAIN.fullmatch(folder):
            return f"cd {shlex.quote(folder)} && {show} sqlite:///mlflow.db"
        return f"{show} {shlex.quote('sqlite:///' + os.path.normpath(os.path.join(folder, 'mlflow.db')))}"

    # -- the kinds of events

    def _take_begin(self, events: list[dict[str, Any]]) -> None:
        self._each([self.run_id], "the run", lambda some: self._client.update_run(some[0], status="RUNNING"))

    def _take_params(self, events: list[dict[str, Any]]) -> None:
        # MLflow refuses to change a parameter; a resumed run may run on other hardware.
        from mlflow.entities import Param, RunTag

        values = {k: v for event in events for k, v in self._fit("parameter", event["values"]).items()}
        known = self._client.get_run(self.run_id).data.params
        fresh = [Param(k, v) for k, v in values.items() if k not in known]
        changed = [RunTag(f"resumed.{k}"[:_LONGEST], v) for k, v in values.items() if k in known and known[k] != v]
        for some in _parts(fresh, _PARAMS):
            self._each(some, "parameter", lambda some: self._client.log_batch(self.run_id, params=some))
        for some in _parts(changed, _PARAMS):
            self._each(some, "tag", lambda some: self._client.log_batch(self.run_id, tags=some))

    def _take_metrics(self, events: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(k, v, e["ms"], e["step"]) for e in events for k, v in self._fit("metric", e["values"]).items()
        ]
        for some in _parts(metrics, _METRICS):
            self._each(some, "metric", lambda some: self._client.log_batch(self.run_id, metrics=some))

    def _take_dataset(self, events: list[dict[str, Any]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        for event in events:
            kind, source = ("local", {"uri": event["source"]}) if event["source"] else ("code", {"tags": {}})
            data = Dataset(event["name"], event["digest"], kind, json.dumps(source), None, json.dumps(event["profile"]))
            tags = [InputTag("mlflow.data.context", "training")]
            if version := event["profile"].get("version"):
                tags.append(InputTag("version", str(version)))
            self._each([DatasetInput(data, tags)], "data", lambda some: self._client.log_inputs(self.run_id, some))

    def _take_artifact(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            try:
                path = inside(self._run_dir, str(event["path"]))
            except SecurityRefused as error:
                self._refused.append(f"file: {first_line(error)}")
                continue
            if path.exists():  # archived or deleted since
                self._each([str(path)], "file", lambda some: self._client.log_artifact(self.run_id, some[0]))

    def _take_end(self, events: list[dict[str, Any]]) -> None:
        last = events[-1]
        self._each([last["status"]], "end", lambda some: self._client.set_terminated(self.run_id, some[0], last["ms"]))

    # -- what MLflow takes

    def _each(self, some: list[Any], what: str, send: Callable[[list[Any]], Any]) -> None:
        """Sends all of it, or where MLflow refuses that, all but what it refuses alone."""
        try:
            send(some)
        except Exception as error:
            if not self._refuses(error):
                raise
            if len(some) == 1:
                self._refused.append(f"{what} {getattr(some[0], 'key', some[0])}: {first_line(error)}")
                return
            for half in (some[: len(some) // 2], some[len(some) // 2 :]):
                self._each(half, what, send)

    def _refuses(self, error: Exception) -> bool:
        """Whether trying again would not help; what its libraries raise for a network that is away is an OSError."""
        if isinstance(error, self._mlflow.MlflowException):
            return error.get_http_status_code() in _REFUSALS
        return isinstance(error, ValueError | TypeError | LookupError | AttributeError) and not isinstance(
            error, OSError
        )

    def _fit(self, kind: str, values: dict[str, Any]) -> dict[str, Any]:
        """The values under names that MLflow takes; what is called otherwise there is reported once."""
        fresh, renamed = [name for name in values if (kind, name) not in self._names], []
        for name in sorted(fresh, key=lambda name: fit_name(name) != name):  # those that are fit keep theirs
            fitted = fit_name(name)
            if (kind, fitted) in self._fitted:
                fitted = f"{fitted[: _LONGEST - 7]}_{sha256_of(name)[:6]}"
            self._names[kind, name] = fitted
            self._fitted.add((kind, fitted))
            short, there = name.rpartition("/")[2], fitted.rpartition("/")[2]
            if fitted != name and short not in self._said:
                self._said.add(short)
                renamed.append(f"{short!r}: there it is {there!r}")
        if renamed:
            more = f"; and {len(renamed) - _TOLD} more" if len(renamed) > _TOLD else ""
            _warn(f"MLflow takes no {kind} named {'; '.join(renamed[:_TOLD])}{more}")
        return {self._names[kind, name]: value for name, value in values.items()}


def fit_name(name: str) -> str:
    """The name as MLflow takes it: itself, or the nearest that it takes."""
    parts = [part for part in _UNFIT.sub("_", name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:_LONGEST].rstrip("/") or "_"


def _warn(text: str) -> None:
    _log.warning(f"{without_secrets(text)}")


def _parts(some: list[Any], size: int) -> Iterable[list[Any]]:
    return (some[i : i + size] for i in range(0, len(some), size))


def monitors() -> list[Any]:
    """MLflow's own, of the processor, disk, network and, where they are, GPUs."""
    from mlflow.system_metrics.metrics import cpu_monitor, disk_monitor, gpu_monitor, network_monitor

    monitors: list[Any] = [cpu_monitor.CPUMonitor(), disk_monitor.DiskMonitor(), network_monitor.NetworkMonitor()]
    with contextlib.suppress(Exception):  # no NVIDIA driver
        monitors.append(gpu_monitor.GPUMonitor())
    return monitors


def leave_patience() -> None:
    """MLflow's own patience again, for what the program does with it after a run."""
    while _lent:
        os.environ.pop(_lent.pop(), None)


def import_mlflow() -> Any:
    """MLflow, as impatient as the delivery needs it until `leave_patience`."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before the import, which looks a host up
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # with the password in it
    for name, value in _PATIENCE.items():
        if name not in os.environ:
            os.environ[name] = value
            _lent.add(name)
    import logging

    import mlflow
    import mlflow.tracking.fluent  # the rest is imported on first use, which would be on the thread

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    return mlflow
