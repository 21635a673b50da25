"""Stored runs: a run in a store, brought to this machine to be looked at.

Owns where it is brought to, a folder that no training uses, and which of its checkpoints. Refuses to change anything in
the store.

    run_folder("s3://bucket/runs/resnet/563a34baa8", "best")  # runs/stored/1f0c3b9a/resnet/563a34baa8
    run_folder("models:/resnet@champion", "best")             # runs/registered/1f0c3b9a/resnet-3
    run_folder("runs/resnet/563a34baa8", "best")              # itself
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tfscale.errors import CheckpointUnusable, DataMissing, UsageError
from tfscale.files import sha256_of
from tfscale.run_dir.choice import candidates
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.manifest import MANIFEST, Damaged, best_in, is_whole, steps
from tfscale.run_dir.registered_run import FILES, run_of_model
from tfscale.run_dir.store import Store
from tfscale.run_dir.store_access import check_url
from tfscale.tracking.mlflow_registry import open_registry
from tfscale.tracking.model_address import Stores, parse_address

_log = logging.getLogger(__name__)

_CONFIG = FILES[0]
_KEY = "run.dir"
_FIX = f"give {_KEY}=URL/RECIPE/NAME of a run that was trained with run.store=URL"


def run_folder(run: str | Path, which: str | int | None, *, root: Path = Path("runs")) -> Path:
    """The folder of a run that is to be looked at, here on this machine.

    Args:
        run: a folder, or the URL of a run in a store, PLACE/recipe/name, which is brought to root/stored first, or
            models:/NAME@ALIAS, whose run is brought to root/registered.
        which: the checkpoint to bring: "last", "best" or a step; None for none.

    Raises:
        UsageError, SecurityRefused: an URL that can't be.
        OutputError: the store refuses, or the folder can't be written.
        IOFailure: the store can't be reached.
        DataMissing: there is no such run.
        CheckpointUnusable: there is no such checkpoint, or all that would do are damaged.
    """
    if address := parse_address(str(run), where=_KEY):
        return run_of_model(address, open_registry(Stores.of(None, os.environ), root), root)
    if "://" not in str(run):
        return Path(run).expanduser()
    check_url(str(run), _KEY)
    place, *names = str(run).rstrip("/").rsplit("/", 2)
    if place.endswith(("/", ":")):
        raise UsageError(f"{run} names no run in a store", where=_KEY, fix=_FIX)
    store = Store(place, "/".join(names), key=_KEY)
    folder = root.joinpath("stored", sha256_of(place)[:8], *names)
    RunDir(folder).check_writable()  # first, for the store would get the blame
    _bring_files(store, folder)
    if which is not None:
        _bring_checkpoint(store, which, folder / "checkpoints")
    return folder


def _bring_files(store: Store, folder: Path) -> None:
    content = {name: store.read(name) for name in FILES}
    if content[_CONFIG] is None:
        raise DataMissing(f"there is no run at {store.url}: it holds no {_CONFIG}", where=store.url, fix=_FIX)
    RunDir(folder).create()
    for name, data in content.items():
        if data is None:
            RunDir(folder).remove(name)
        else:
            RunDir(folder).write_text(name, data.decode())


def _bring_checkpoint(store: Store, which: str | int, directory: Path) -> None:
    """Leaves it here, and nothing that is no longer there; a damaged one is passed over with a line."""
    reasons: dict[str, str] = {}
    there = store.complete()
    while True:
        for name in steps(directory):
            if name not in there:
                shutil.rmtree(directory / name)
        for name in _wanted(store, which, there):
            try:
                return _bring(store, name, there[name], directory)
            except Damaged as damage:
                reasons[name] = str(damage)
                _log.warning(f"checkpoint {store.url}/checkpoints/{name} can't be used ({damage})")
        before, there = there, store.complete()
        if there.keys() == before.keys():  # else the training went on meanwhile, and removed what was listed
            break
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise CheckpointUnusable(
        f"no checkpoint can be used: {told}" if reasons else "the run has no checkpoint",
        where=store.url,
        fix="restore the objects, or choose another with checkpoint=STEP" if reasons else "train it first",
    )


def _wanted(store: Store, which: str | int, there: Mapping[str, object]) -> list[str]:
    """Those that would do, the first choice first."""

    def best(name: str) -> str:
        return best_in(store.read(f"checkpoints/{name}/{MANIFEST}") or b"")

    chosen = candidates(which, list(there), best, where=store.url)
    return chosen if isinstance(which, int) else list(dict.fromkeys([*chosen, *there]))  # a damaged best one is passed


def _bring(store: Store, name: str, sizes: Mapping[str, int], directory: Path) -> None:
    here = directory / name
    if here.exists():
        if (here / MANIFEST).read_bytes() == store.read(f"checkpoints/{name}/{MANIFEST}") and is_whole(here):
            return
        shutil.rmtree(here)  # the run was trained anew there
    store.fetch(name, sizes, directory)
