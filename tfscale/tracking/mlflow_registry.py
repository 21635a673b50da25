"""MLflow's model registry: every call of it.

Owns how a registered version is found, made, tagged and brought here, and which alias is whose. Refuses to know why an
alias moves.

    registry = open_registry(Stores.of("http://mlflow:5000", {}), Path("runs"))
    registry.holder("digits", "champion")                              # "3", None: nobody
    registry.bring(registry.source("digits", "3"), "saved_model", Path("models/3"))
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.errors import DataMissing, IOFailure, TfscaleError, UsageError, first_line, nearest, without_secrets
from tfscale.tracking.delivery import cause_of
from tfscale.tracking.mlflow import MlflowTracker
from tfscale.tracking.mlflow_sink import import_mlflow, leave_patience
from tfscale.tracking.model_address import ModelAddress, Stores
from tfscale.tracking.own_store import FILE, half_made_told, made_whole, store_beside

_log = logging.getLogger(__name__)

_LITTLE = 2**20  # bytes of a disk that is full, but for what no file fits in
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
_PAGE = 200  # versions of one request


def open_registry(stores: Stores, root: Path, *, patient: bool = True, makes: bool = False) -> Registry:
    """The registry, with the store of what was uploaded.

    Args:
        root: the folder of the runs, beside which the file lies where no store is named.
        patient: whether MLflow tries again where a server doesn't answer.
        makes: whether that file is made where it is missing.

    Raises:
        UsageError: MLflow isn't installed, or has no store of this kind, or there is no such file.
        IOFailure: nobody listens there.
    """
    if not makes:
        stores.check(root)
    try:
        MlflowTracker(uri=stores.registry, system_metrics=False, required=True).check()
    except IOFailure as error:  # without which a training may go on, and nobody else
        fix = "start it, or correct tracker.uri or MLFLOW_TRACKING_URI"
        raise IOFailure(error.what, where=error.where, fix=fix) from error
    mlflow = import_mlflow()
    if patient:
        leave_patience()
    with _told(mlflow, stores.registry or str(root / FILE)):
        (beside, link) = store_beside(mlflow, root) if stores.registry is None else ("", None)
        address, tracking = (made_whole(mlflow, one or beside) for one in (stores.registry, stores.tracking))
        client = mlflow.MlflowClient(tracking_uri=tracking, registry_uri=address)
        return Registry(mlflow, client, (address, tracking), link)


@dataclass
class ModelFiles:
    """What is uploaded of a model, below one path: folders and files of this machine, by the names that they get."""

    folders: Mapping[str, Path]
    files: Mapping[str, Path]


class Registry:
    """One registry. Every method raises IOFailure where MLflow can't be reached or refuses.

    Args:
        addresses: of the registry, and of the store of what was uploaded. link: kept as long as they are used.
    """

    def __init__(self, mlflow: Any, client: Any, addresses: tuple[str, str], link: Any = None):
        self._mlflow, self._client, self._link = mlflow, client, link
        self._address, self._tracking = addresses

    @property
    def name(self) -> str:
        """For messages."""
        return without_secrets(self._address)

    def holder(self, name: str, alias: str) -> str | None:
        """The version that has an alias; None: nobody, also where there is no such model."""
        found = self._model(name)
        return None if found is None else _aliases(found).get(alias)

    def resolve(self, address: ModelAddress) -> str:
        """The version that is meant; raises DataMissing where there is none."""
        model = self._model(address.name)
        version = address.version or (_aliases(model).get(address.alias) if model is not None else None)
        if version is None or (address.version and version not in self.tags(address.name)):
            aliases = sorted(_aliases(model)) if model is not None else []
            what = f"nobody has the alias {address.alias}{nearest(str(address.alias), aliases)}"
            what = what if version is None else f"it has no version {version}"
            found = f"{address.name}: {what}" if model is not None else "there is no such model"
            raise DataMissing(
                f"{address} is not in the registry {self.name}: {found}",
                where=str(address),
                fix=f"tfscale promote run.dir=RUN name={address.name} as={address.alias or 'champion'} registers one",
            )
        return version

    def tags(self, name: str) -> dict[str, dict[str, str]]:
        """The tags of each version of a model."""
        found: dict[str, dict[str, str]] = {}
        token = None
        with self.errors():
            while True:
                quote = '"' if "'" in name else "'"
                page = self._client.search_model_versions(
                    f"name={quote}{name}{quote}", max_results=_PAGE, page_token=token
                )
                found.update({str(one.version): dict(one.tags) for one in page})
                token = page.token
                if not token:
                    return found

    def source(self, name: str, version: str) -> str:
        """Where the files of a version lie."""
        with self.errors():
            return str(self._client.get_model_version_download_uri(name, version))

    def bring(self, source: str, part: str, folder: Path) -> Path | None:
        """Copies a file or folder of a version into a folder here; None where the version has none of this name."""
        with self.errors():
            repository = self._mlflow.artifacts.get_artifact_repository(source, tracking_uri=self._tracking)
            if part not in {one.path.rstrip("/").rpartition("/")[2] for one in repository.list_artifacts()}:
                return None
            folder.mkdir(parents=True, exist_ok=True)
            with _full_disk_told(folder):
                return Path(repository.download_artifacts(part, str(folder)))

    def bring_all(self, source: str, folder: Path) -> None:
        """Copies all files of a version into a folder here."""
        with self.errors():
            folder.mkdir(parents=True, exist_ok=True)
            repository = self._mlflow.artifacts.get_artifact_repository(source, tracking_uri=self._tracking)
            with _full_disk_told(folder):
                repository.download_artifacts("", str(folder))

    def upload(self, run_id: str, path: str, content: ModelFiles) -> str:
        """Puts files below a path of a run's artifacts; returns their address."""
        with self.errors():
            for name, folder in content.folders.items():
                self._client.log_artifacts(run_id, str(folder), f"{path}/{name}".rstrip("/"))
            for name, file in content.files.items():
                self._client.log_artifact(run_id, str(file), f"{path}/{name}".rpartition("/")[0])
            return f"{self._client.get_run(run_id).info.artifact_uri.rstrip('/')}/{path}"

    def register(self, name: str, run_id: str, source: str, tags: Mapping[str, str], about: str) -> str:
        """Makes a version of what lies at an address; returns its number."""
        with self.errors():
            if self._model(name) is None:
                with contextlib.suppress(self._mlflow.MlflowException):  # another may make it at this moment
                    self._client.create_registered_model(name)
            made = self._client.create_model_version(name, source, run_id, tags=dict(tags), description=about)
            return str(made.version)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        with self.errors():
            self._client.set_registered_model_alias(name, alias, version)

    def tag(self, name: str, version: str, key: str, value: str) -> None:
        with self.errors():
            self._client.set_model_version_tag(name, version, key, value)

    def run_tags(self, run_id: str) -> dict[str, str]:
        """What the run of a model says of itself."""
        with self.errors():
            return dict(self._client.get_run(run_id).data.tags)

    def describe(self, signature: Mapping[str, Sequence[tuple[str, Any, Sequence[int]]]], run_id: str) -> str:
        """The file MLmodel of a SavedModel in saved_model/, with an input example beside it.

        Args:
            signature: "inputs" and "outputs": name, NumPy's dtype and shape of each, -1 for any size.
        """
        types = self._mlflow.types
        schemas = {
            part: types.Schema([types.TensorSpec(dtype, shape, name) for name, dtype, shape in specs])
            for part, specs in signature.items()
        }
        model = self._mlflow.models.Model(
            run_id=run_id,
            signature=self._mlflow.models.ModelSignature(**schemas),
            saved_input_example_info={"artifact_path": "input_example.json", "type": "ndarray", "format": "tf-serving"},
        )
        about = {"saved_model_dir": "saved_model", "meta_graph_tags": ["serve"], "signature_def_key": "serving_default"}
        model.add_flavor("tensorflow", model_type="tf1-estimator", code=None, **about)  # MLflow's name of a signature's
        self._mlflow.pyfunc.add_to_model(model, loader_module="mlflow.tensorflow")
        return str(model.to_yaml())

    def _model(self, name: str) -> Any:
        with self.errors():
            try:
                return self._client.get_registered_model(name)
            except self._mlflow.MlflowException as error:
                if error.error_code in _ABSENT:
                    return None
                raise

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """What MLflow and its libraries raise inside, as ours."""
        return _told(self._mlflow, self._address)


def _aliases(model: Any) -> dict[str, str]:
    return {str(alias): str(version) for alias, version in dict(model.aliases).items()}


@contextlib.contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    """MLflow keeps to itself why a copy failed."""
    try:
        yield
    except Exception as error:
        if shutil.disk_usage(folder).free < _LITTLE:
            what, fix = "what the registry holds can't be copied here: the disk is full", "free space, or set TMPDIR"
            raise IOFailure(what, where=str(folder), fix=f"{fix} to a folder with room") from error
        raise


@contextlib.contextmanager
def _told(mlflow: Any, address: str) -> Iterator[None]:
    """What MLflow and its libraries raise, as ours."""
    try:
        with half_made_told(address):
            yield
    except TfscaleError:
        raise
    except Exception as error:
        refused = isinstance(error, mlflow.MlflowException) and error.get_http_status_code() in (400, 413, 422)
        if refused and error.error_code == "INVALID_PARAMETER_VALUE":  # type: ignore[attr-defined]
            raise UsageError(
                f"the registry refuses: {first_line(error)}", where=without_secrets(address), fix="correct the names"
            ) from error
        raise IOFailure(
            f"the registry can't be used: {cause_of(error)}",
            where=without_secrets(address),
            fix="start it, or correct tracker.uri or MLFLOW_TRACKING_URI; nothing is lost: run the command again",
        ) from error
