"""How an alias moves to a run's export.

Owns the order of what is done, since MLflow has no transactions: the registry is read again before the alias is set.
Refuses to know MLflow, when a run is better, and how an alias moves (alias_moves.py).

    promote(Promotion("runs/resnet/563a34baa8", "champion"))
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.composition.hydra_compose import compose_run
from tfscale.config.schema import RunConfig
from tfscale.console.messages import RESULT
from tfscale.console.offline_page import missing
from tfscale.errors import CheckFailed, DataCorrupt, UsageError
from tfscale.promotion.exported_run import ExportedRun
from tfscale.promotion.verdict import Rule, Verdict, answers, decide, incomparable
from tfscale.promotion.version_description import described
from tfscale.run_dir.registered_run import run_of_model
from tfscale.run_dir.store_copy import run_folder
from tfscale.tracking.alias_history import Event, line_of, read_events, was_rolled_back
from tfscale.tracking.alias_moves import set_alias
from tfscale.tracking.mlflow import MlflowTracker
from tfscale.tracking.mlflow_registry import Registry, open_registry
from tfscale.tracking.model_address import ModelAddress, Stores, check_alias, check_name, is_address
from tfscale.trained.restored_run import RestoredRun

_log = logging.getLogger("tfscale.promote")
_TRIES = 3  # where the alias moves while it is compared
_EXPORT = "tfscale.export"  # the tag that tells one export from another
_COMMIT = "mlflow.source.git.commit"


@dataclass(frozen=True)
class Promotion:
    """What is asked for.

    Attributes:
        run_dir: of the run. alias: that it is to get.
        name: of the registered model, None: the recipe's.
        uri: of the registry, None: the run's tracker's.
        by, min_gain: see `Rule`.
        overrides, config_dir: as for `RestoredRun.open`.
    """

    run_dir: str
    alias: str
    name: str | None = None
    uri: str | None = None
    by: str | None = None
    min_gain: float | None = None
    overrides: Sequence[str] = ()
    config_dir: str | None = None


@dataclass(frozen=True)
class _Candidate:
    """The run with all that is known of it before TensorFlow is there."""

    asked: Promotion
    config: RunConfig
    exported: ExportedRun
    name: str
    root: Path

    @property
    def address(self) -> ModelAddress:
        return ModelAddress(self.name, alias=self.asked.alias)

    @property
    def stores(self) -> Stores:
        return Stores.of(self.asked.uri, os.environ, getattr(self.config.tracker, "uri", None))


def promote(asked: Promotion) -> str:
    """Registers a run's export and gives it the alias, if nobody has it or the run is better by more than noise.

    Returns:
        The number of the version that has the alias: the run's.

    Raises:
        CheckFailed: it isn't better, was rolled back, or another promotion came between.
        DataMissing, DataCorrupt, CheckpointUnusable: of the run, its export or its data.
        UsageError: the runs can't be compared, or names that can't be.
        IOFailure: the registry can't be used.
    """
    check_alias(asked.alias)
    if is_address(asked.run_dir):
        raise UsageError(
            f"{asked.run_dir} is registered already",
            where="run.dir",
            fix="give the run's folder, or set the alias in MLflow",
        )
    folder = run_folder(asked.run_dir, None)
    exported = ExportedRun.of(folder)
    config = compose_run(folder, asked.overrides, config_dir=asked.config_dir)
    name = _usual_name(config, folder) if asked.name is None else asked.name
    check_name(name)
    if importlib.util.find_spec("scipy") is None:
        raise missing("comparing runs needs SciPy", where="as", extra="report")
    candidate = _Candidate(asked, config, exported, name, config.run.beside(folder))
    registry = open_registry(candidate.stores, candidate.root, makes=True)
    return _moved(candidate, registry)


def _moved(candidate: _Candidate, registry: Registry) -> str:
    name, alias = candidate.name, candidate.asked.alias
    mine: str | None = None
    for _ in range(_TRIES):
        held = registry.holder(name, alias)
        own = _versions_of(candidate, registry)
        mine = mine or max(own, key=int, default=None)
        if held is not None and held in own:
            _make_known(registry, candidate.address, held)
            _log.log(RESULT, f"{name}: version {held} has the alias {alias} already; nothing moved")
            return held
        _refuse_rolled_back(registry, name, alias, mine)
        verdict = None if held is None else _compared(candidate, registry, held)
        if verdict is not None and not verdict.better:
            left = f"the run is version {mine}, without it" if mine else "nothing is registered"
            raise CheckFailed(
                f"not better by more than noise: {verdict.sentence}; version {held} keeps the alias {alias}, {left}",
                where=str(candidate.address),
                fix="train a better run, or evaluate on more examples",
            )
        mine = mine or _registered(candidate, registry, verdict)
        if registry.holder(name, alias) == held:
            why = verdict.sentence if verdict else f"nobody had the alias {alias}"
            set_alias(registry, candidate.address, mine, held, why=why, numbers=verdict.numbers if verdict else {})
            _log.log(RESULT, f"{name}: version {mine} has the alias {alias} now: {why}")
            return mine
        _log.warning(f"the alias {alias} has moved meanwhile; it is compared again")
    raise CheckFailed(
        f"the alias {alias} moves faster than runs are compared; version {mine} is registered without it",
        where=str(candidate.address),
        fix="promote one run after another",
    )


def _make_known(registry: Registry, address: ModelAddress, held: str) -> None:
    """Keeps that a version has the alias where nothing tells: a kill came between, or it was set by hand."""
    events = read_events(registry.tags(address.name), address.alias)
    line = line_of(events)
    if line[-1:] != [held]:
        event = Event.next(events, held, line[-1] if line else None, "it had the alias already")
        registry.tag(address.name, held, *event.tag(address.alias))


def _usual_name(config: RunConfig, folder: Path) -> str:
    """As `tfscale serve` names it."""
    return str(config.run.recipe or folder.resolve().name)


def _versions_of(candidate: _Candidate, registry: Registry) -> list[str]:
    """Those that hold this very export: two promotions at once register it twice."""
    return [v for v, tags in registry.tags(candidate.name).items() if tags.get(_EXPORT) == candidate.exported.digest]


def _refuse_rolled_back(registry: Registry, name: str, alias: str, mine: str | None) -> None:
    back = was_rolled_back(read_events(registry.tags(name), alias), mine) if mine else None
    if back:
        raise CheckFailed(
            f"version {mine} of {name} holds this run, and the alias {alias} was rolled back from it",
            where=f"models:/{name}/{mine}",
            fix="promote another run, or set the alias in MLflow by hand",
        )


def _compared(candidate: _Candidate, registry: Registry, held: str) -> Verdict:
    """The run beside the version that has the alias, on the run's examples."""
    asked, config, exported = candidate.asked, candidate.config, candidate.exported
    split, rule = config.eval.split, Rule(asked.by, asked.min_gain, config.checkpoint.metric, config.checkpoint.mode)
    theirs_at = run_of_model(ModelAddress(candidate.name, version=held), registry, candidate.root)
    # Its own data may be older: the examples are this run's, in a source of its own, since a run gives it its classes.
    others = [one for one in asked.overrides if not one.lstrip("+~").startswith(("data=", "data."))]
    source = compose_run(exported.folder, asked.overrides, config_dir=asked.config_dir).data
    opened: dict[str, Any] = {"config_dir": asked.config_dir}
    _log.info(f"comparing with version {held} on the {split} split")
    with RestoredRun.open(exported.folder, asked.overrides, checkpoint=exported.step, **opened) as run:
        own = answers(run, split)
    try:
        with RestoredRun.open(theirs_at, others, checkpoint="last", data=source, **opened) as run:
            theirs = answers(run, split)
    except (UsageError, DataCorrupt) as error:  # this run has answered them
        raise incomparable(f"version {held}: {error.what}") from error
    return decide(own, theirs, rule, who=f"version {held}")


def _registered(candidate: _Candidate, registry: Registry, verdict: Verdict | None) -> str:
    """Uploads the export and makes a version of it."""
    exported, config = candidate.exported, candidate.config
    tags = exported.tags(config.eval.split)
    told = [getattr(config.tracker, name, None) for name in ("experiment", "default_experiment")]
    experiment = told[0] or told[1] or config.run.recipe
    tracker = MlflowTracker(candidate.stores.tracking, experiment, system_metrics=False)
    name, digest = tags.get("tfscale.data.name", "data"), tags.get("tfscale.data.hash", exported.digest[:32])
    data = {"name": name, "digest": digest, "source": "", "profile": {}}
    with registry.errors():
        run_id = tracker.run_of(exported.name, data, run_dir=exported.folder, root=candidate.root)
    if commit := registry.run_tags(run_id).get(_COMMIT):
        tags["tfscale.git_commit"] = commit
    _log.info(f"uploading the export of step {exported.step}")
    with exported.files(registry.describe(exported.signature, run_id)) as content:
        source = registry.upload(run_id, f"registered/{exported.digest[:12]}", content)
    about = f"{exported.name}, step {exported.step}." + (f" {verdict.sentence}." if verdict else "")
    card = exported.card
    if not card:
        _log.info("the export has no model card (README.md), so that the version's description is one line")
    return registry.register(candidate.name, run_id, source, tags, described(about, card))
