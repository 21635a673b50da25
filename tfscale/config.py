"""The typed configuration of a run, and its composition by Hydra.

Owns the schema (`RunConfig` and its sections), `compose()`, the allow-list of `_target_` and the redaction of secrets.
Refuses to know what any value does. Below `compose()` there is no DictConfig.

The three plug points (task, data, tracker) are nodes with a `_target_` that names a dataclass; its fields are the
node's keys, so that a misspelt key or a wrong type is found here, before TensorFlow is imported.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Optional

from tfscale.duration import Duration
from tfscale.errors import SecurityRefused, UsageError, nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from tfscale.data.source import Source
    from tfscale.task import Task
    from tfscale.tracking.tracker import TrackerSpec

MISSING = "???"  # OmegaConf's mark for a value that must be given
PLUG_POINTS = ("task", "data", "tracker")
_ALLOWED = ("tfscale.", "keras.")
_SECRET = re.compile(r"(?i)(secret|passw|token|api_?key|access_?key|credential|private)")

OPTIMIZERS = {"sgd": 1, "adam": 2, "adamw": 2, "lion": 1, "rmsprop": 1}  # variables per parameter
SCHEDULES = ("constant", "cosine", "linear", "step")

# Optional[...] rather than "| None" below: OmegaConf reads these annotations at run time.


class Strategy(Enum):
    """Names of distribution strategies; `auto` leaves the choice to the plan."""

    auto = "auto"
    one_device = "one_device"
    mirrored = "mirrored"
    multi_worker = "multi_worker"
    tpu = "tpu"


class Precision(Enum):
    """Names of Keras dtype policies; `auto` leaves the choice to the plan."""

    auto = "auto"
    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"
    float64 = "float64"


@dataclass
class TrainConfig:
    """What is trained for how long. Durations are written 90ep, 500st, 10%, 30s, 10m, 2h."""

    until: str = MISSING
    global_batch: int = MISSING
    seed: int = 0
    accumulate: Optional[int] = None  # micro-batches per step; null lets the plan choose
    clip_norm: Optional[float] = None
    log_every: str = "10s"
    stop_patience: Optional[int] = None  # evaluations without a better checkpoint.metric; null never stops


@dataclass
class OptimizerConfig:
    """The optimizer and its learning-rate schedule."""

    name: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    weight_decay: float = 0.0
    no_decay: list[str] = field(default_factory=lambda: ["bias", "gamma", "beta"])  # by the last part of the name
    schedule: str = "constant"
    warmup: str = "0st"
    warmup_from: float = 0.0
    decay_at: list[str] = field(default_factory=list)
    decay_by: float = 0.1
    final: float = 0.0  # cosine and linear end at this share of learning_rate


@dataclass
class EvalConfig:
    """When and how the test split is evaluated."""

    every: str = "1ep"
    global_batch: Optional[int] = None  # null: the training's global batch
    split: str = "test"


@dataclass
class CheckpointConfig:
    """When checkpoints are written and which are kept."""

    every: str = "1ep"
    keep: int = 2
    metric: str = "accuracy"
    mode: str = "max"


@dataclass
class PlanConfig:
    """Overrides of the execution plan: null (or auto) means that the plan decides."""

    dry_run: bool = False
    hardware: Optional[str] = None
    strategy: Strategy = Strategy.auto
    precision: Precision = Precision.auto
    xla: Optional[bool] = None
    deterministic: Optional[bool] = None
    steps_per_loop: Optional[int] = None
    intra_op_threads: Optional[int] = None
    inter_op_threads: Optional[int] = None
    input_threads: Optional[int] = None
    input_ram_bytes: Optional[int] = None
    prefetch: Optional[int] = None


@dataclass
class RunSection:
    """Where the run lives. `dir` is derived as root/recipe/name where it isn't given."""

    recipe: str = "custom"
    root: str = "runs"
    name: Optional[str] = None
    dir: Optional[str] = None


@dataclass
class ResumeConfig:
    """What to do with checkpoints that exist: `auto` goes on from the newest good one, `never` starts at zero."""

    mode: str = "auto"


@dataclass
class DebugConfig:
    """Aids for finding faults; none of them changes the numbers."""

    traceback: bool = False


@dataclass
class Extensions:
    """Packages of the user's whose classes a `_target_` may name, each with a trailing dot: ["mypkg."]."""

    allow: list[str] = field(default_factory=list)


@dataclass
class RunConfig:
    """Everything that one run is told. Built by `compose`; `task`, `data` and `tracker` are built objects there."""

    task: Any = MISSING
    data: Any = MISSING
    tracker: Any = None
    train: TrainConfig = field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    run: RunSection = field(default_factory=RunSection)
    debug: DebugConfig = field(default_factory=DebugConfig)
    extensions: Extensions = field(default_factory=Extensions)

    if TYPE_CHECKING:
        task: Task
        data: Source
        tracker: TrackerSpec

    @property
    def yaml(self) -> str:
        """The composed configuration for people and archives: interpolations unresolved, secrets redacted."""
        return getattr(self, "_yaml", "")


def compose(overrides: Sequence[str] = (), *, config_dir: str | None = None) -> RunConfig:
    """Composes tfscale's configuration with Hydra overrides, checks it and builds the plug points.

    Args:
        overrides: as on the command line, such as ["+recipe=resnet", "train.until=5ep"].
        config_dir: a folder of the user's own groups, searched besides ours.

    Raises:
        UsageError: unknown group, key or value, wrong type or missing value; all problems in one message.
        SecurityRefused: a `_target_` outside the allow-list.
    """
    return to_run_config(compose_raw(overrides, config_dir=config_dir))


def compose_raw(overrides: Sequence[str], *, config_dir: str | None = None) -> DictConfig:
    """The composed DictConfig, for `--cfg job` and for `to_run_config`; raises UsageError like `compose`."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException

    ConfigStore.instance().store(name="schema", node=RunConfig)
    extra = [f"hydra.searchpath=[file://{config_dir}]"] if config_dir else []

    def attempt(some: Sequence[str]) -> DictConfig:
        return hydra_compose("config", overrides=[*some, *extra])

    with initialize_config_module("tfscale.configs", version_base="1.3"):
        try:
            return attempt(overrides)
        except (HydraException, ValueError) as error:
            raise _explain(error, list(overrides), attempt) from None


def to_run_config(raw: DictConfig) -> RunConfig:
    """Turns the composed configuration into typed objects; raises like `compose`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    missing = sorted(OmegaConf.missing_keys(raw))
    if missing:
        raise UsageError(_missing_text(missing), where=", ".join(missing), fix=_missing_fix(missing))
    try:
        allowed = (*_ALLOWED, *raw.extensions.allow)
        plain = OmegaConf.to_container(raw, resolve=True)
        assert isinstance(plain, dict)
        check_targets(plain, allowed)
        problems: list[str] = []
        built = {name: _build(plain.get(name), name, problems) for name in PLUG_POINTS}
        typed = copy.deepcopy(raw)
        for name in PLUG_POINTS:
            typed[name] = None
        config = OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        raise UsageError(_first_line(error), where=str(getattr(error, "full_key", "") or ""), fix="") from None
    assert isinstance(config, RunConfig)
    if problems:
        raise UsageError("; ".join(problems), fix="correct the keys; --cfg job prints the whole configuration")
    for name, value in built.items():
        setattr(config, name, value)
    config._yaml = _redacted_yaml(raw)  # type: ignore[attr-defined]
    return config


def check_targets(node: Any, allowed: Sequence[str], path: str = "") -> None:
    """Refuses every `_target_` anywhere in the tree that no allowed prefix covers, before anything is imported.

    Raises:
        SecurityRefused: naming the key and the target.
    """
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and not (isinstance(target, str) and target.startswith(tuple(allowed))):
            raise SecurityRefused(
                f"_target_ {target!r} is outside the allowed packages ({', '.join(allowed)})",
                where=f"{path}._target_".lstrip("."),
                fix="if you trust the package, add extensions.allow=[package.]",
            )
        for key, value in node.items():
            check_targets(value, allowed, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_targets(value, allowed, f"{path}[{i}]")


def _build(node: Any, path: str, problems: list[str]) -> Any:
    """Builds the dataclass that `_target_` names, its fields type-checked by OmegaConf; problems are collected."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if node is None:
        return None
    if not isinstance(node, dict) or "_target_" not in node:
        problems.append(f"{path} has no _target_")
        return None
    target = node["_target_"]
    module_name, _, class_name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        problems.append(f"{path}._target_: {target} can't be imported ({error})")
        return None
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        problems.append(f"{path}._target_: {target} is not a dataclass")
        return None
    fields = {k: v for k, v in node.items() if k != "_target_"}
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), fields))
    except OmegaConfBaseException as error:
        key = str(getattr(error, "key", "") or "")
        names = [f.name for f in dataclasses.fields(cls)]
        hint = nearest(key, names) if key not in names else ""
        problems.append(f"{path}.{key}: {_first_line(error)}{hint}")
        return None


def validate(config: RunConfig) -> None:
    """Checks what types alone don't: durations, names and ranges; raises one UsageError for all of it."""
    problems: list[tuple[str, str]] = []

    def check(key: str, holds: bool, text: str) -> None:
        if not holds:
            problems.append((key, text))

    durations = {
        "train.until": config.train.until,
        "train.log_every": config.train.log_every,
        "eval.every": config.eval.every,
        "checkpoint.every": config.checkpoint.every,
        "optimizer.warmup": config.optimizer.warmup,
        **{f"optimizer.decay_at[{i}]": text for i, text in enumerate(config.optimizer.decay_at)},
    }
    for key, text in durations.items():
        try:
            duration = Duration.parse(text)
        except UsageError as error:
            problems.append((key, str(error)))
            continue
        countable = key in ("train.until", "optimizer.warmup") or key.startswith("optimizer.decay_at")
        check(key, not (countable and duration.is_time), f"{text} is wall time, and epochs or steps are needed here")
        check(key, key != "train.until" or duration.unit != "%", f"{text} is a share of itself")
    for key, value, names in (
        ("optimizer.name", config.optimizer.name, tuple(OPTIMIZERS)),
        ("optimizer.schedule", config.optimizer.schedule, SCHEDULES),
        ("checkpoint.mode", config.checkpoint.mode, ("max", "min")),
        ("resume.mode", config.resume.mode, ("auto", "never")),
        ("eval.split", config.eval.split, ("train", "test")),
    ):
        check(key, value in names, f"unknown value {value!r}{nearest(value, names)} use one of {', '.join(names)}")
    for key, number in (("train.global_batch", config.train.global_batch), ("checkpoint.keep", config.checkpoint.keep)):
        check(key, number >= 1, f"{number} is not positive")
    if problems:
        raise UsageError(
            "; ".join(f"{key}: {text}" for key, text in problems),
            where=", ".join(key for key, _ in problems),
            fix="correct these values",
        )


def identity(config: RunConfig) -> dict[str, Any]:
    """What makes this experiment itself: task, data and hyper-parameters.

    The plan, the hardware, the duration and places on disk are left out, so that the same experiment finds its run
    folder again wherever and for however long it runs.
    """
    train = {k: v for k, v in vars(config.train).items() if k in ("global_batch", "seed", "clip_norm")}
    return {
        "task": {"class": _class_name(config.task), **vars(config.task)},
        "data": {"class": _class_name(config.data), **config.data.identity()},
        "train": train,
        "optimizer": dict(vars(config.optimizer)),
    }


def _class_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _redacted_yaml(raw: DictConfig) -> str:
    from omegaconf import OmegaConf

    def redact(node: Any, secret: bool = False) -> Any:
        if isinstance(node, dict):
            return {k: redact(v, secret or bool(_SECRET.search(str(k)))) for k, v in node.items()}
        if isinstance(node, list):
            return [redact(v, secret) for v in node]
        unresolved = isinstance(node, str) and node.startswith("${")
        return "<redacted>" if secret and node is not None and not unresolved else node

    return OmegaConf.to_yaml(OmegaConf.create(redact(OmegaConf.to_container(raw, resolve=False))))


def _missing_text(missing: list[str]) -> str:
    if "task" in missing:
        return "no recipe was chosen, so there is nothing to train"
    return f"no value was given for {', '.join(missing)}"


def _missing_fix(missing: list[str]) -> str:
    if "task" in missing:
        return "add one, such as +recipe=resnet; --help lists them"
    return " ".join(f"{key}=..." for key in missing)


def _explain(error: Exception, overrides: list[str], attempt: Callable[[Sequence[str]], DictConfig]) -> UsageError:
    """One UsageError for everything that is wrong with these overrides.

    Hydra stops at the first problem. Each plain override is tried alone on top of the groups that compose, so that
    all of them are reported at once.
    """
    from hydra.errors import HydraException

    groups = [o for o in overrides if re.match(r"^\+?[\w/@]+=", o) and "." not in o.split("=", 1)[0]]
    problems: list[tuple[str, str]] = []
    good_groups: list[str] = []
    for group in groups:
        try:
            attempt([*good_groups, group])
            good_groups.append(group)
        except (HydraException, ValueError) as one:
            problems.append((group, _reason(one, attempt, good_groups)))
    for override in overrides:
        if override in groups:
            continue
        try:
            attempt([*good_groups, override])
        except (HydraException, ValueError) as one:
            problems.append((override, _reason(one, attempt, good_groups)))
    if not problems:
        problems = [(" ".join(overrides), _reason(error, attempt, []))]
    return UsageError(
        "; ".join(reason for _, reason in problems),
        where=", ".join(override for override, _ in problems),
        fix="correct the override; --help lists recipes and groups, --cfg job every key",
    )


def _reason(error: Exception, attempt: Callable[[Sequence[str]], DictConfig], groups: list[str]) -> str:
    """One sentence for one of Hydra's errors, with the nearest name where a name is unknown."""
    text = str(error)
    found = re.search(r"Could not find '([\w/]+)/([^/']+)'", text) or re.search(
        r"In '[^']*': Could not find '([\w/]+)/([^/']+)'", text
    )
    if found:
        group, name = found[1], found[2]
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        return f"unknown {group} '{name}'{nearest(name, options)} available: {', '.join(options) or 'none'}"
    cause = error.__cause__ or error
    found = re.search(r"Key '([^']+)' is not in struct", text) or re.search(r"Key '([^']+)' not in '", str(cause))
    if found or "Could not override" in text:
        path = re.search(r"full_key: (\S+)", str(cause)) or re.search(r"Could not override '([^']+)'", text)
        bad = path[1] if path else (found[1] if found else text)
        if found:
            return f"unknown key '{bad}'{nearest(bad, _all_keys(attempt(groups)))}"
    full_key = re.search(r"full_key: (\S+)", str(cause))
    prefix = f"{full_key[1]}: " if full_key else ""
    return prefix + _first_line(cause)


def _all_keys(raw: DictConfig) -> list[str]:
    from omegaconf import OmegaConf

    keys: list[str] = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                keys.append(f"{path}{key}")
                walk(value, f"{path}{key}.")

    walk(OmegaConf.to_container(raw, resolve=False), "")
    return keys


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
