"""The run of a registered model, brought to this machine to be looked at.

Owns where in a version's files its run lies, and where it is brought to. Refuses to change anything in the registry.

    address = ModelAddress("digits", alias="champion")
    run_of_model(address, registry, Path("runs"))       # runs/registered/1f0c3b9a/digits-3
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tfscale.errors import DataMissing, IOFailure
from tfscale.files import move, sha256_of, unfinished
from tfscale.run_dir.folder import RunDir
from tfscale.tracking.mlflow_registry import Registry
from tfscale.tracking.model_address import ModelAddress

RUN = "run"  # the folder of a version's files that holds its run
FILES = ("config.yaml", "spec.json", "classes.json", "model.json")  # what it takes to build the model again


def run_of_model(address: ModelAddress, registry: Registry, root: Path) -> Path:
    """The folder of the run that a version was made of, with the checkpoint that was exported.

    Raises:
        DataMissing: there is no such version, or it holds no run.
        OutputError, IOFailure: the folder can't be written, or the registry can't be reached.
    """
    version = registry.resolve(address)
    source = registry.source(address.name, version)
    short = address.name[:40]  # no file system takes any length
    folder = root / "registered" / sha256_of(source)[:8] / f"{short}-{version}"
    if (folder / FILES[0]).is_file():
        return folder
    RunDir(folder).check_writable()
    whole = folder.with_name(unfinished(folder.name))
    try:
        shutil.rmtree(whole, ignore_errors=True)
        found = registry.bring(source, RUN, whole)
        if found is None:
            raise DataMissing(
                f"version {version} of {address.name} holds no run, as tfscale promote registers one",
                where=str(address),
                fix="give the run's own folder",
            )
        if not (folder / FILES[0]).is_file():  # else another process has brought it meanwhile, and may use it
            shutil.rmtree(folder, ignore_errors=True)
            move(found, folder)
    except OSError as error:
        raise IOFailure(
            f"the run can't be brought here: {error.strerror or error}", where=str(folder), fix="free space"
        ) from error
    finally:
        shutil.rmtree(whole, ignore_errors=True)
    return folder
