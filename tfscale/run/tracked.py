"""Tracked: what a run gives its tracker: a name that people recognise, its parameters, its data, its model.

Owns the words. Refuses to know trackers, and when a run calls them: the session does.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from tfscale.cluster import Cluster
from tfscale.config.schema import RunConfig, identity
from tfscale.data.contents import LIST
from tfscale.data.source import Source
from tfscale.files import digest_of
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.run_dir.experiment import flatten
from tfscale.run_dir.folder import RunDir
from tfscale.tracking.tracker import NullTracker, Tracker

_DIGEST = 32  # hexadecimal digits; MLflow takes 36 characters
_PLACES = ("run.dir", "run.root", "run.store")


def open_tracker(config: RunConfig, plan: ExecutionPlan, run_dir: RunDir, cluster: Cluster) -> Tracker:
    """The run's tracker, with what is known before the model is built; one that tracks nothing but on the chief."""
    if config.tracker is None or not cluster.is_chief:
        return NullTracker()
    path = run_dir.path
    tracker: Tracker = config.tracker.open(run_dir=path, root=config.run.beside(path), name=name_of(config, path))
    params = {k: v for k, v in flatten(yaml.safe_load(config.yaml) or {}).items() if k not in _PLACES}
    params.update({f"planned.{k}": v for k, v in plan.to_dict().items() if k != "reasons"})
    tracker.params({**params, "data": data_name(config.data)})
    for name in ("config.yaml", "plan.json"):
        tracker.artifact(path / name)
    counts = {split: config.data.num_examples(split) for split in ("train", "test")}
    spec = {key: value for key, value in config.data.spec().items() if isinstance(value, int | float)}  # no columns
    profile = {**{split: count for split, count in counts.items() if count}, **spec}
    about = about_data(config, run_dir)
    if about["version"]:
        profile = {"version": about["version"], **profile}
    source = str(getattr(config.data, "path", "") or config.data.location)
    tracker.dataset(about["name"], about["hash"], source=source, profile=profile)
    return tracker


def about_data(config: RunConfig, run_dir: RunDir) -> dict[str, str]:
    """The data's name, version, "" where they have none, and a hash that tells them from others: of their content where
    the run folder has the hashes of their files, else of what identifies them."""
    told = {"data": identity(config)["data"]}
    if config.data.contents() and (run_dir.path / LIST).is_file():
        told = {"files": (run_dir.path / LIST).read_text(encoding="utf-8")}
    return {
        "name": data_name(config.data),
        "version": config.data.version,
        "hash": digest_of(told, default=str)[:_DIGEST],
    }


def report_model(tracker: Tracker, model: Any) -> None:
    """What was built: a Keras model, its size and what of it is trained."""
    count = {
        "model.parameters": sum(math.prod(v.shape) for v in model.variables),
        "model.trainable_parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
    }
    layers = len(getattr(model, "layers", ()))
    tracker.params({"model": f"{type(model).__name__} {model.name}", "model.layers": layers, **count})


def name_of(config: RunConfig, path: Path) -> str:
    """Such as "resnet on mnist, 24ep (563a34baa8)"."""
    model = config.run.recipe
    if model == "custom":  # nobody gave a name: what is trained is more telling
        model = str(getattr(config.task, "model", type(config.task).__name__))
    return f"{Path(model).name} on {data_name(config.data)}, {config.train.until} ({config.run.name or path.name})"


def data_name(source: Source) -> str:
    """The catalogue's name, else the kind of data and the name of the file or folder."""
    name = getattr(source, "name", "")
    if name:
        return str(name)
    kind = "".join(f" {c.lower()}" if c.isupper() else c for c in type(source).__name__).strip()
    path = str(getattr(source, "path", "")).rstrip("/").rpartition("/")[2]
    return f"{kind} {path}".strip()
