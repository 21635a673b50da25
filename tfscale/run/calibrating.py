"""Calibrating: a plan that measures what it can't know, before the first step: `plan.calibrate=auto`, and
`plan.micro_batch=auto` of that alone.

Owns when that is done, and that it is done once: what was chosen stands in calibration.json of the run's folder, where
a resumed run finds it, and beside the folder, where other runs of the same model do. Which choices there are is
plan/calibration.py's, how they are timed engine/trials.py's.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfscale.assembly.parts import Parts
from tfscale.config.schema import RunConfig
from tfscale.data.keras_source import KerasSource
from tfscale.engine.compilation import without_xla_where_needed
from tfscale.files import digest_of, write_whole
from tfscale.hooks.keras_hooks import layers_in
from tfscale.hooks.tensorflow_hooks import set_determinism
from tfscale.plan.calibration import Traits, calibrated, choices
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.state.kept_state import kept
from tfscale.version import __version__

FILE, FOLDER = "calibration.json", "calibrations"
_log = logging.getLogger(__name__)


def by_measured_plan(parts: Parts, *, heartbeat: Any) -> Parts:
    """The parts with a plan whose open choices were settled by real steps, where that is asked for and can be done.

    Weights, optimizer, random numbers and the position in the data are those of a run that hasn't measured, to the
    bit. Call it once everything is built and before anything is restored, on all workers: the chief's times decide.
    """
    config, run_dir = parts.config, parts.run_dir
    if config.plan.calibrate is None and config.plan.micro_batch is None:
        return parts
    if why := _why_not(parts):
        _log.info(f"calibration: nothing is measured: {why}")
        return parts
    key = _key(parts)
    found = _of_chief(parts, _kept(parts, key) if parts.cluster.is_chief else None)
    if found is None:
        found, is_whole = _measured(parts, heartbeat)
        found["key"] = key
        if run_dir.writes and is_whole:
            _share(_beside(config, run_dir.path, key), (json.dumps(found, indent=1) + "\n").encode())
    if run_dir.writes:
        run_dir.write_json(FILE, found)
    plan = dataclasses.replace(parts.plan, **found["plan"], reasons={**parts.plan.reasons, **found["reasons"]})
    run_dir.write_json("plan.json", plan.to_dict())
    set_determinism(plan.deterministic)
    for name in found["plan"]:
        _log.info(f"plan: {name} {_shown(getattr(plan, name))}: {plan.reasons[name]}")
    return dataclasses.replace(parts, plan=plan, trainer=parts.trainer.by(plan))


def _shown(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _why_not(parts: Parts) -> str:
    """Why nothing can be measured; "" where something can."""
    plan, data = parts.plan, parts.config.data
    if plan.strategy in ("parameter_server", "tpu"):
        return f"there is nothing to choose under {plan.strategy}"
    if any(parts.run_dir.checkpoints.glob("*")) and parts.run_dir.read_json(FILE) is None:
        return "the run began without it, and goes on as it began"
    if isinstance(data, KerasSource):
        from tfscale.keras_fit.trial_batches import why_none

        if plan.num_replicas > 1:
            return "the model's own steps run on several replicas"
        if parts.state.model.run_eagerly:
            return "the model runs eagerly"
        return why_none(data)
    return "the data are read in one order, and a look at them would change it" if data.resolved().by_pass else ""


def _choices(parts: Parts, plan: ExecutionPlan) -> list[Any]:
    model, forced = parts.state.model, parts.config.plan
    if getattr(model, "jit_compile", False) and parts.task.by_own_steps:
        forced = dataclasses.replace(forced, xla=True, fused_kernels=False)  # as people have compiled it
    wanted = dataclasses.replace(plan, xla=True)
    compiles = without_xla_where_needed(wanted, model, forced=None).xla and not parts.task.reduces_inside
    convolves = any("Conv" in type(layer).__name__ for layer in layers_in(model))
    return choices(plan, forced, Traits(convolves=convolves, compiles=compiles))


def _measured(parts: Parts, heartbeat: Any) -> tuple[dict[str, Any], bool]:
    """({"plan": the fields that were settled, "reasons": why}, JSON values; whether there was time for all)."""
    from tfscale.engine.trials import Trials

    plan, began = parts.plan, time.monotonic()
    _log.info("calibration: some real steps are timed before the first one, and leave everything as it was")
    with kept(parts.state, parts.strategy):
        trials, settled, is_whole = Trials(parts.trainer, heartbeat=heartbeat), list[str](), True
        for options in _choices(parts, plan):
            if trials.over:
                names = " or ".join(one.name for one in options)
                _log.info(f"calibration: the time for it is over: {names} is left as planned")
                is_whole = False
                continue
            tried = trials.rounds([one.of(plan) for one in options], lambda plan: _batches(parts, plan))
            for place, why in tried.failed.items():
                _log.info(f"calibration: {options[place].name} is no choice here: {why}")
            if tried.places:
                plan = calibrated(plan, [options[place] for place in tried.places], tried.rounds)
                settled += options[0].fields
    _log.info(f"calibration: measured in {time.monotonic() - began:.0f} s")
    chosen = {name: getattr(plan, name) for name in settled}
    return {"plan": chosen, "reasons": {name: plan.reasons[name] for name in settled}}, is_whole


def _batches(parts: Parts, plan: ExecutionPlan) -> Any:
    """Training batches apart from those that will be trained on, as this plan cuts them."""
    if isinstance(parts.config.data, KerasSource):
        from tfscale.keras_fit.trial_batches import trial_batches

        return trial_batches(parts.config.data)
    other = dataclasses.replace(parts, plan=plan)
    return other.dataset("train", parts.shard(), training=True, start_step=parts.state.step)


# -- what was measured before


def _key(parts: Parts) -> str:
    """What a measurement holds for: this hardware, these versions, this model, this plan and what was forced of it."""
    import keras
    import tensorflow as tf

    plan, model, forced = parts.plan, parts.state.model, parts.config.plan
    variables = [(tuple(v.shape), str(v.dtype)) for v in model.variables]
    return digest_of({
        "hardware": plan.reasons["accelerator"],
        "versions": [__version__, tf.__version__, keras.__version__],
        "plan": {**plan.agreed(), "threads": [plan.intra_op_threads, plan.inter_op_threads]},
        "forced": {name: str(getattr(forced, name)) for name in (*plan.agreed(), "calibrate", "micro_batch")
                   if getattr(forced, name, None) is not None},
        "model": [[type(layer).__name__ for layer in layers_in(model)], variables],
        "optimizer": [type(parts.state.optimizer).__name__, len(parts.state.optimizer.variables)],
    })[:16]  # fmt: skip


def _kept(parts: Parts, key: str) -> dict[str, Any] | None:
    """What was measured before, of this run or of another one of the same model."""
    found = parts.run_dir.read_json(FILE)
    if found is not None and found.get("key") == key:
        _log.info("calibration: as this run has measured it before")
        return found
    if found is not None:
        _log.info("calibration: hardware, versions or plan aren't those that this run has measured: once more")
    file = _beside(parts.config, parts.run_dir.path, key)
    try:
        others: dict[str, Any] = json.loads(file.read_text())
        if others["key"] == key and others["plan"].keys() == others["reasons"].keys():
            _log.info(f"calibration: as another run has measured it: {file}")
            return others
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    return None


def _beside(config: RunConfig, path: Path, key: str) -> Path:
    return config.run.beside(path) / FOLDER / f"{key}.json"


def _share(file: Path, text: bytes) -> None:
    """For other runs; where it can't be written, they measure for themselves."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, text)
    except OSError as error:
        _log.info(f"calibration: other runs can't find it: {error}")


def _of_chief(parts: Parts, found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the chief has found, on every worker."""
    if parts.agreement is None:
        return dict(found) if found is not None else None
    told: dict[str, Any] | None = json.loads(parts.agreement.bytes_of_chief(json.dumps(found).encode()))
    return told
