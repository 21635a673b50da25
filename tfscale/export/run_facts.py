"""What a run's folder tells of a trained model: figures, plan, data and the command that trains it again.

Owns where each of them is found. Refuses to know how they are shown, and what nobody wrote down.

    facts = run_facts(Path("runs/resnet/563a34baa8"), task, config, step=188)
    facts.metrics                    # {"loss": ..., "accuracy": ...} of that very step, {} where it wasn't evaluated
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tfscale.config.override_syntax import as_override
from tfscale.config.schema import RunConfig
from tfscale.data.origin import origin_of
from tfscale.errors import TfscaleError
from tfscale.files import lines_of, parse_json, read_json
from tfscale.run_dir.experiment import flatten
from tfscale.task import Task

# What a command sets of the training itself; the rest is about where it runs and how it looks
_SECTIONS = ("task", "data", "train", "optimizer", "eval", "checkpoint", "init_from", "plan", "extensions")
_NO_FIGURES = ("step", "epoch", "kind")


@dataclass(frozen=True)
class RunFacts:
    """What is known of the run that an export comes from.

    Attributes:
        task: the name of its class.
        recipe: as the command names it; "" where there was none.
        command: what trains it again; "" where nobody can tell.
        metrics: of the split `split` at the exported step; empty where they weren't measured.
        result: of result.json: epochs, parameters, data and so on.
        plan: of plan.json.
        origin: as of `origin_of`.
    """

    task: str = ""
    recipe: str = ""
    command: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    split: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)


def run_facts(folder: Path, task: Task, config: RunConfig, *, step: int) -> RunFacts:
    """Reads what there is; what is missing or broken in the folder is unknown."""
    saved = _read(folder / "config.yaml")
    result, plan = _mapping(folder / "result.json"), _mapping(folder / "plan.json")
    recipe, split = str((saved.get("run") or {}).get("recipe") or ""), str((saved.get("eval") or {}).get("split") or "")
    recipe = "" if recipe == "custom" else recipe
    known, data = origin_of(config.data), result.get("data") or {}
    if data.get("name", known.get("name")) != known.get("name"):
        known = {}  # other data than those of the training were given for the check
    command = _command(saved, recipe) if recipe else ""
    metrics = _metrics(folder, split, step) or (result.get("metrics") or {} if result.get("step") == step else {})
    return RunFacts(type(task).__name__, recipe, command, metrics, split, result, plan, known)


def _metrics(folder: Path, split: str, step: int) -> dict[str, float]:
    """Of the last evaluation of this step."""
    found: dict[str, float] = {}
    for name in ("metrics.jsonl", "evaluator.jsonl"):
        if not (folder / name).is_file():
            continue
        for line in lines_of(folder / name):
            try:
                row = parse_json(line, where=name)
            except (TfscaleError, ValueError):
                continue
            if isinstance(row, dict) and row.get("step") == step and row.get("kind") == split:
                figures = {key: value for key, value in row.items() if key not in _NO_FIGURES}
                found = {key: value for key, value in figures.items() if isinstance(value, int | float)}
    return found


def _command(saved: Mapping[str, Any], recipe: str) -> str:
    """`tfscale train +recipe=NAME` with what differs from the recipe; "" where another group was chosen, or the recipe
    is not to be had here."""
    from tfscale.composition.hydra_compose import compose_raw
    from tfscale.redaction import redacted_yaml

    try:
        usual = flatten(yaml.safe_load(redacted_yaml(compose_raw([f"+recipe={recipe}"]))))
    except TfscaleError:
        return ""
    now = flatten(saved)
    differing = {
        key: value
        for key, value in now.items()
        if key.split(".")[0] in _SECTIONS and (key not in usual or usual[key] != value)
    }
    if any("_target_" in key or isinstance(value, dict) for key, value in differing.items()):
        return ""
    return " ".join([f"tfscale train +recipe={recipe}", *(as_override(*one) for one in differing.items())])


def _read(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _mapping(file: Path) -> dict[str, Any]:
    found = read_json(file)
    return found if isinstance(found, dict) else {}
