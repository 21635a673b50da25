"""The typed configuration of a run.

Owns the schema (`RunConfig`, whose sections are in sections.py), what makes values valid and what identifies an
experiment. Refuses to know Hydra, which composition/ leaves behind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

import tfscale.config.optimizer_keys as optimizers
from tfscale.config.applied_settings import AppliedSettings
from tfscale.config.bounds import CHOICES, DURATIONS, LEAST, MOST, SHARES
from tfscale.config.duration import Duration
from tfscale.config.sections import (
    MISSING,
    CheckpointConfig,
    ClusterSection,
    DebugConfig,
    EvalConfig,
    Explain,
    ExportConfig,
    Extensions,
    LogSection,
    Measured,
    OptimizerConfig,
    PlanConfig,
    Precision,
    ResumeConfig,
    RunSection,
    Strategy,
    TrainConfig,
    WirePrecision,
)
from tfscale.config.step_range import StepRange
from tfscale.errors import UsageError, nearest

__all__ = [
    "MISSING",
    "CheckpointConfig",
    "ClusterSection",
    "DebugConfig",
    "EvalConfig",
    "Explain",
    "ExportConfig",
    "Extensions",
    "LogSection",
    "Measured",
    "OptimizerConfig",
    "PlanConfig",
    "Precision",
    "ResumeConfig",
    "RunConfig",
    "RunSection",
    "Strategy",
    "TrainConfig",
    "WirePrecision",
    "class_name",
    "identity",
    "identity_defaults",
    "validate",
]


@dataclass
class RunConfig:
    """Everything that one run is told. Built by `compose`; `task`, `data` and `tracker` are built objects there."""

    task: Any = MISSING  # what is learnt: a tfscale.Task, which a recipe brings, or the group task
    data: Any = MISSING  # what it is learnt from: a tfscale.Source, by the group data
    tracker: Any = None  # where parameters and metrics go besides the run's folder: a TrackerSpec, by the group tracker
    train: TrainConfig = field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    init_from: Optional[str] = None  # whose weights a fresh run begins with: a run, Keras file or preset
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    cluster: ClusterSection = field(default_factory=ClusterSection)
    run: RunSection = field(default_factory=RunSection)
    log: LogSection = field(default_factory=LogSection)
    debug: DebugConfig = field(default_factory=DebugConfig)
    extensions: Extensions = field(default_factory=Extensions)

    @property
    def yaml(self) -> str:
        """The composed configuration for people and archives: interpolations unresolved, secrets redacted."""
        return getattr(self, "_yaml", "")

    @property
    def overridden(self) -> frozenset[str]:
        """The keys that the command itself set, such as "train.until" or "data"."""
        return getattr(self, "_overridden", frozenset())

    @property
    def left_out(self) -> Mapping[str, Any]:
        """What a recipe says of another optimizer than the command's, which is no part of this configuration."""
        return getattr(self, "_left_out", {})

    @property
    def settings(self) -> AppliedSettings:
        """What settings files set, such as tfscale.yaml; the keys are none of `overridden`."""
        return getattr(self, "_settings", AppliedSettings())


_IDENTITY = ("task", "data", "train", "optimizer", "init_from")
_OF_TRAINING = ("global_batch", "seed", "clip_norm", "ema")


def _value(config: RunConfig, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def _durations(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Every duration that is given, those of a list one by one: ("optimizer.decay_at[0]", "30ep")."""
    for key in DURATIONS:
        value = _value(config, key)
        if isinstance(value, list):
            yield from ((f"{key}[{place}]", text) for place, text in enumerate(value))
        elif value is not None:
            yield key, value


def _wrong_range(text: str | None) -> str:
    """Why it is no range of steps, "" where it is one or none is given."""
    try:
        if text is not None:
            StepRange.parse(text, where="train.profile")
    except UsageError as error:
        return f"{error.what}: {error.fix}"
    return ""


def validate(config: RunConfig) -> None:
    """Checks what types alone don't: durations, names and ranges; raises one UsageError for all of it."""
    problems: list[tuple[str, str]] = []

    def check(key: str, holds: bool, text: str) -> None:
        if not holds:
            problems.append((key, text))

    for key, text in _durations(config):
        try:
            duration = Duration.parse(text)
        except UsageError as error:
            problems.append((key, str(error)))
            continue
        countable = "s" not in DURATIONS[key.partition("[")[0]]
        check(key, not (countable and duration.is_time), f"{text} is wall time, and epochs or steps are needed here")
        check(key, key != "train.until" or duration.unit != "%", f"{text} is a share of itself")
    check("train.profile", not (wrong := _wrong_range(config.train.profile)), wrong)
    for key, names in CHOICES.items():
        value = _value(config, key)
        if value is None:
            continue
        check(key, value in names, f"unknown value {value!r}{nearest(value, names)} use one of {', '.join(names)}")
    for key, reason in optimizers.without_effect(vars(config.optimizer)).items():
        check(f"optimizer.{key}", False, reason)
    for key, least in LEAST.items():
        number = _value(config, key)
        check(key, number is None or number >= least, f"{number} is less than {least}")
    for key, share in SHARES.items():
        number = _value(config, key)
        check(key, number is None or share.has(number), f"{number} is not in {share}")
    for key, most in MOST.items():
        number = _value(config, key)
        check(key, number is None or number <= most, f"{number} is more than {most}")
    for key in config.resume.allow_changed:
        check("resume.allow_changed", key.split(".")[0] in _IDENTITY, f"{key!r} is not under {', '.join(_IDENTITY)}")
    found_again = not config.resume.allow_changed or config.run.name or config.run.dir
    check(
        "resume.allow_changed",
        bool(found_again),
        "the run folder is named by a digest of what may have changed, so run.dir or run.name is needed",
    )
    if problems:
        raise UsageError(
            "; ".join(f"{key}: {text}" for key, text in problems),
            where=", ".join(key for key, _ in problems),
            fix="correct these values",
        )


def identity(config: RunConfig, *, brings_optimizer: bool | None = None) -> dict[str, Any]:
    """What makes this experiment itself: every value of task, data and hyper-parameters.

    The plan, the hardware, the duration and places on disk are left out, so that the same experiment finds its run
    folder again wherever and for however long it runs. So is the optimizer's section where it takes no effect.

    Args:
        brings_optimizer: whether the task has its own optimizer; None: as far as it says so itself.
    """
    owns = config.task.brings_optimizer if brings_optimizer is None else brings_optimizer
    found: dict[str, Any] = {"init_from": config.init_from} if config.init_from else {}
    for name, part in (("task", config.task), ("data", config.data)):
        found[name] = {"class": class_name(part), **part.identity()}
    for key in ("freeze", "unfreeze"):  # nothing where nothing is frozen, as when there were no such keys
        found["task"].pop(key, None)
        found["task"] |= {key: value} if (value := getattr(config.task, key)) else {}
    found["train"] = {key: getattr(config.train, key) for key in _OF_TRAINING}
    found["train"]["seed"] = config.train.seed or 0  # null is 0 to whatever needs one
    if owns is not True:
        found["optimizer"] = config.optimizer.effective
    return found


def identity_defaults(config: RunConfig, known: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of those keys of `known`, which is the identity, that have one, in the same nesting."""
    found: dict[str, Any] = {}
    for name, part in (("task", config.task), ("data", config.data)):
        found[name] = {key: value for key, value in _defaults(type(part)).items() if key in known[name]}
    found["train"] = {key: value for key, value in _defaults(TrainConfig).items() if key in _OF_TRAINING}
    found["optimizer"] = {**_defaults(OptimizerConfig), **optimizers.defaults(config.optimizer.name)}
    return found


def class_name(part: Any) -> str:
    """The name of a task's or source's class in an experiment, which lasts when a module moves: its `stable_name`, else
    that of a class of ours; a user's class is known by its module, too."""
    cls = type(part)
    if stable := vars(cls).get("stable_name"):
        return str(stable)
    return cls.__qualname__ if cls.__module__.startswith("tfscale.") else f"{cls.__module__}.{cls.__qualname__}"


def _defaults(cls: type[Any]) -> dict[str, Any]:
    found = {}
    for one in dataclasses.fields(cls):
        if one.default is not dataclasses.MISSING:
            found[one.name] = one.default
        elif one.default_factory is not dataclasses.MISSING:
            found[one.name] = one.default_factory()
    return found
