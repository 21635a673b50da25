"""MLflow tracking that training never waits for.

Owns what a run tells and how long it waits. A new sqlite store takes ten seconds to create and a server may be slow
or away, so events go through a spool in the run folder (spool.py) and a thread (delivery.py); what isn't taken while
the run lasts waits for the next attempt. The calls of MLflow are mlflow_sink.py's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import socket
import threading
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from tfscale.errors import IOFailure, UsageError, first_line, without_secrets
from tfscale.files import inside
from tfscale.tracking.delivery import Delivery, milliseconds
from tfscale.tracking.mlflow_sink import RUN_ID, Sink, choose_place, import_mlflow, leave_patience, monitors
from tfscale.tracking.own_store import FILE, PLAIN
from tfscale.tracking.spool import Spool, SpoolBusy
from tfscale.tracking.tracker import NullTracker, Tracker

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 60.0  # how long a finished run waits for MLflow to take the rest
_FAILED_SECONDS = 5.0
_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
_DATABASES = ("postgresql", "mysql", "mssql")  # whose drivers nothing of ours installs
_PACKAGES = {"psycopg": '"psycopg[binary]"', "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # of modules
_LENGTH = 500  # of a parameter
_SAMPLE_SECONDS = 10.0  # between two looks at the machine


@dataclass
class MlflowTracker:
    """tracker=mlflow; without a `uri` the store is root/mlflow.db and artifacts go to root/mlartifacts.

    experiment: None: that of the run that is active in this process (which the new run becomes a child of), of
        mlflow.set_experiment, MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID, else `default_experiment`.
    required: whether a run ends with code 74 where MLflow can't be reached at its start, or has not been told
        everything at its end.
    """

    uri: Optional[str] = None  # of the store, such as http://HOST:PORT; null: mlflow.db beside the runs
    experiment: Optional[str] = None
    default_experiment: str = "tfscale"  # the experiment where nothing else names one
    system_metrics: bool = True  # whether use of processor, memory and GPUs is recorded, too
    required: bool = False
    parent: Optional[str] = None  # the id of an MLflow run that this one is a child of, as a trial of its sweep is

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
        if scheme in _DATABASES:
            _refuse_driverless(str(self.uri))
        if self.required and scheme in ("http", "https"):
            _refuse_nobody(str(self.uri))

    def open(self, *, run_dir: Path, root: Path, name: str) -> Tracker:
        sink = self._sink(run_dir, root, name)
        try:
            spool = _opened(self._spool(run_dir, joins=not name), run_dir)
        except (OSError, SpoolBusy) as error:
            if self.required:
                raise IOFailure(f"what MLflow is to be told can't be kept: {error}", where=str(run_dir)) from error
            _log.warning(f"this run is only in its folder: {first_line(error)}")
            return NullTracker()
        return _MlflowRun(self, sink, spool, run_dir, name)

    def deliver(self, *, run_dir: Path, root: Path) -> None:
        """Delivers what a finished run still owes MLflow; raises IOFailure where it is required and can't."""
        file = self._spool(run_dir, joins=False)
        if not Spool.holds_any(file):
            return
        with contextlib.suppress(SpoolBusy):
            delivery = Delivery(_opened(file, run_dir), self._sink(run_dir, root, run_dir.name))
            self._close(delivery, _CLOSE_SECONDS)

    def attach(self, files: Iterable[Path], *, run_dir: Path, root: Path) -> str | None:
        """Gives files from anywhere to the MLflow run of a run that is over, below reports/; raises what MLflow raises.

        Returns:
            That run's id, None where the run has none.
        """
        if not (run_dir / RUN_ID).is_file():
            return None
        try:
            return self._sink(run_dir, root, "").attach(files)
        finally:
            leave_patience()

    def run_of(self, name: str, dataset: Mapping[str, Any], *, run_dir: Path, root: Path) -> str:
        """The id of the MLflow run of a run that is over, or of a sweep; where it has none, one is made of this name
        with this data, {} of none. Raises what MLflow raises."""
        try:
            return str(self._sink(run_dir, root, name).found_or_made(name, dict(dataset)).info.run_id)
        finally:
            leave_patience()

    def uri_beside(self, root: Path) -> str:
        """The address of the store in a folder that runs share; raises IOFailure where an address has no room for its
        name."""
        file = (root / FILE).resolve()
        if not PLAIN.fullmatch(str(file)):
            raise IOFailure(f"sqlite's address has no room for {file}", where="run.root", fix="use plain characters")
        return f"sqlite:///{file}"

    def _sink(self, run_dir: Path, root: Path, name: str) -> Sink:
        # Here and not on the delivery's thread: tensorflow_datasets replaces Python's import while it is imported
        # itself, and an import of MLflow at that moment fails; and the run that is active is the thread's own.
        mlflow = import_mlflow()
        place = choose_place(mlflow, uri=self.uri, experiment=self.experiment, otherwise=self.default_experiment)
        if self.parent is not None:
            place = dataclasses.replace(place, parent=self.parent)
        return Sink(mlflow, place, run_dir=run_dir, root=root, name=name)

    def _spool(self, run_dir: Path, *, joins: bool) -> Path:
        return run_dir / ("mlflow_spool-evaluator.jsonl" if joins else "mlflow_spool.jsonl")

    def _close(self, delivery: Delivery, within: float) -> None:
        told = delivery.close(within)
        leave_patience()
        if not told and self.required:
            raise IOFailure(
                f"MLflow was not told everything: {delivery.failure or 'it takes too long'}",
                where="tracker.required",
                fix="run the same command again when MLflow is back: what it is owed is kept in the run folder",
            )


def _opened(file: Path, run_dir: Path) -> Spool:
    """The spool, unless it is to deliver what is none of the run's; raises SecurityRefused, and as Spool does."""

    def refuse(event: dict[str, Any]) -> None:
        if event.get("kind") == "artifact":
            inside(run_dir, str(event.get("path")))

    spool = Spool(file)
    spool.check(refuse)
    return spool


class _MlflowRun:
    """The Tracker. `name`: of the run that this process makes and ends; "": it only adds to one."""

    def __init__(self, spec: MlflowTracker, sink: Sink, spool: Spool, run_dir: Path, name: str):
        self._spec, self._sink, self._run_dir, self._owns = spec, sink, run_dir, bool(name)
        self._delivery = Delivery(spool, sink, quiet=spec.required)
        self._over = threading.Event()
        if not name:
            return
        self._delivery.put({"kind": "begin", "token": uuid.uuid4().hex, "name": name})
        if spec.required and not (self._delivery.answered(_CLOSE_SECONDS) and not self._delivery.failure):
            self._delivery.close(0.0)
            raise _out_of_reach(self._delivery.failure or "no answer")
        self._delivery.quiet = False
        if spec.system_metrics:
            threading.Thread(target=self._watch_machine, args=(monitors(),), name="machine", daemon=True).start()

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
        if not path.is_relative_to(self._run_dir):  # the spool may name nothing else, for others may have written it
            self._delivery.warn(f"MLflow is not given {path}, which lies outside of the run folder")
            return
        self._delivery.put({"kind": "artifact", "path": str(path.relative_to(self._run_dir))})

    def dataset(self, name: str, digest: str, *, source: str, profile: Mapping[str, Any]) -> None:
        self._delivery.put(
            {"kind": "dataset", "name": name, "digest": digest, "source": source, "profile": dict(profile)}
        )

    def page(self) -> list[str]:
        return self._sink.page()

    def close(self, status: str) -> None:
        self._over.set()
        if self._owns:
            self._delivery.put({"kind": "end", "status": status, "ms": milliseconds()})
        if status == "FINISHED":
            self._spec._close(self._delivery, _CLOSE_SECONDS)
        else:  # what ended the run is to be reported, not this
            self._delivery.close(_FAILED_SECONDS)
            leave_patience()

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


def _refuse_nobody(uri: str) -> None:
    """A look that takes no import of MLflow."""
    try:
        place = urllib.parse.urlsplit(uri)
        host, port = place.hostname or "", place.port or (443 if place.scheme == "https" else 80)
        host.encode("idna")
    except ValueError as error:
        raise _no_address(uri, first_line(error)) from None
    if not host:
        raise _no_address(uri, "it names no host")
    if place.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return
    try:
        socket.create_connection((host, port), timeout=_FAILED_SECONDS).close()
    except OSError as error:
        raise _out_of_reach(f"{host}:{port}: {error}") from None


def _refuse_driverless(uri: str) -> None:
    """Raises UsageError where the package is missing by which SQLAlchemy, which MLflow brings, speaks to a database."""
    import sqlalchemy

    try:
        sqlalchemy.make_url(uri).get_dialect().import_dbapi()
    except ImportError as error:
        name = error.name or uri.partition(":")[0]
        lacks = f"{name}, which is not installed" if isinstance(error, ModuleNotFoundError) else first_line(error)
        raise UsageError(
            f"tracker.uri={uri.partition(':')[0]}://... needs the package {lacks}",
            where="tracker.uri",
            fix=f"pip install {_PACKAGES.get(name, name)}",
        ) from None
    except sqlalchemy.exc.ArgumentError as error:
        raise _no_address(without_secrets(uri), first_line(error)) from None


def _no_address(uri: str, why: str) -> UsageError:
    return UsageError(
        f"{uri} is no address of a server: {why}", where="tracker.uri", fix="tracker.uri=http://HOST:PORT"
    )


def _out_of_reach(cause: str) -> IOFailure:
    return IOFailure(
        f"MLflow is out of reach: {cause}",
        where="tracker.uri",
        fix="start it, correct tracker.uri, or go on without it: tracker.required=false",
    )
