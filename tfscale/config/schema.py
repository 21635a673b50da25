"""The typed configuration of a run.

Owns the schema (`RunConfig` and its sections), what makes values valid and what identifies an experiment. Refuses to
know Hydra, which composition/ leaves behind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Optional

import tfscale.config.optimizer_keys as optimizers
from tfscale.config.bounds import CHOICES, LEAST
from tfscale.config.duration import Duration
from tfscale.config.step_range import StepRange
from tfscale.errors import UsageError, nearest

MISSING: Any = "???"  # OmegaConf's mark for a value that must be given

# Optional[...] rather than "| None" below: OmegaConf reads these annotations at run time.


class Strategy(Enum):
    """Names of distribution strategies; `auto` leaves the choice to the plan."""

    auto = "auto"
    one_device = "one_device"
    mirrored = "mirrored"
    multi_worker = "multi_worker"
    tpu = "tpu"
    parameter_server = "parameter_server"


class WirePrecision(Enum):
    """In what gradients travel between replicas: `full` as they are computed."""

    full = "full"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Precision(Enum):
    """Names of Keras dtype policies; `auto` leaves the choice to the plan."""

    auto = "auto"
    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"
    float64 = "float64"


class Measured(Enum):
    """What real steps settle before the first one."""

    auto = "auto"


@dataclass
class TrainConfig:
    """What is trained for how long. Durations are written 90ep, 500st, 10%, 30s, 10m, 2h."""

    until: str = MISSING
    global_batch: int = MISSING
    seed: Optional[int] = 0  # null: that of Python, NumPy and TensorFlow is left as it is
    accumulate: Optional[int] = None  # micro-batches per step; null lets the plan choose
    clip_norm: Optional[float] = None
    ema: Optional[float] = None  # decay of the weights' moving average, which is evaluated and exported in their place
    log_every: str = "10s"
    profile: Optional[str] = None  # "100:110": the steps that TensorFlow's profiler watches, into profile/
    max_rollbacks: int = 0  # how often a loss that isn't finite returns to the last checkpoint, without that batch
    rollback_factor: float = 0.5  # what the learning rate is multiplied with at each roll-back
    stop_patience: Optional[int] = None  # evaluations without a better checkpoint.metric; null never stops


@dataclass
class OptimizerConfig:
    """The optimizer and its learning-rate schedule. Null is the optimizer's own default, which is Keras's; a key that
    the optimizer hasn't got is refused (`optimizers.OWN_KEYS` lists them)."""

    name: Optional[str] = None  # null: rmsprop, as in Keras's compile; a compiled model brings its own
    learning_rate: Optional[float] = None
    reference_batch: Optional[int] = None  # that learning_rate is for; it grows in proportion with train.global_batch
    layer_decay: Optional[float] = None  # what each layer's rate is of that of the layer above it; null: 1
    momentum: Optional[float] = None  # of sgd, rmsprop, lars and muon
    nesterov: Optional[bool] = None
    rho: Optional[float] = None  # of rmsprop, as is centered
    centered: Optional[bool] = None
    beta_1: Optional[float] = None  # of adam, adamw, lamb, lion and of what muon leaves to adamw
    beta_2: Optional[float] = None
    amsgrad: Optional[bool] = None
    epsilon: Optional[float] = None
    trust_coefficient: Optional[float] = None  # of lars: the share of its norm by which a step of rate 1 moves a matrix
    exclude_layers: Optional[list[str]] = None  # of muon: layers by a part of their path whose matrices adamw trains
    weight_decay: Optional[float] = None  # of sgd it is an L2 loss's; of the others it is decoupled, as in Keras
    no_decay: Optional[list[str]] = None  # variables without it, by the last part of their names: [bias, gamma, beta]
    schedule: str = "constant"
    warmup: str = "0st"
    warmup_from: Optional[float] = None  # null: 0
    decay_at: list[str] = field(default_factory=list)  # of the schedule step, as is decay_by
    decay_by: Optional[float] = None  # null: 0.1
    decay_over: Optional[str] = None  # the end of training in which wsd falls; null: 10%
    rise_over: Optional[str] = None  # the start of training in which one_cycle rises; null: 30%
    start: Optional[float] = None  # the share of learning_rate that one_cycle begins with; null: 0.04
    # cosine, linear, wsd and one_cycle end at this share of learning_rate; null: 0, of one_cycle 4e-6
    final: Optional[float] = None

    @property
    def effective(self) -> dict[str, Any]:
        """Every setting that takes effect, with the defaults filled in."""
        return optimizers.effective(vars(self))


@dataclass
class EvalConfig:
    """When and how the test split is evaluated."""

    every: str = "1ep"
    global_batch: Optional[int] = None  # null: the training's global batch
    split: str = "test"
    beside_ema: bool = False  # with train.ema: the weights themselves, too, as raw_loss and the like


@dataclass
class CheckpointConfig:
    """When checkpoints are written and which are kept."""

    every: str = "1ep"
    seconds_apart: float = 0.0  # at least, of two that training doesn't wait for; a fit in Python has 5
    keep: int = 2
    max_failed_saves: int = 3  # in a row; training goes on until then
    metric: str = "accuracy"
    mode: str = "max"


@dataclass
class PlanConfig:
    """Overrides of the execution plan: null (or auto) means that the plan decides."""

    dry_run: bool = False
    hardware: Optional[str] = None
    strategy: Strategy = Strategy.auto
    precision: Precision = Precision.auto
    calibrate: Optional[Measured] = None  # kernels, packs and determinism, by a few real steps of each
    micro_batch: Optional[Measured] = None  # the fastest that fits; train.accumulate names it instead
    local_devices: Optional[int] = None  # of one worker; on a CPU they are logical ones
    xla: Optional[bool] = None
    deterministic: Optional[bool] = None
    fused_kernels: Optional[bool] = None  # of a training step; equal to Keras's up to rounding
    steps_per_loop: Optional[int] = None
    intra_op_threads: Optional[int] = None
    inter_op_threads: Optional[int] = None
    input_threads: Optional[int] = None
    input_ram_bytes: Optional[int] = None
    decoded_ram_bytes: Optional[int] = None  # of pictures that are decoded once, by each worker
    prefetch: Optional[int] = None
    bytes_per_pack: Optional[int] = None  # of one all-reduce; 0 reduces all gradients in one
    wire_precision: Optional[WirePrecision] = None


@dataclass
class ClusterSection:
    """How the processes of one run find each other. Who they are is told by the environment, not here."""

    start_timeout: float = 300.0  # seconds to wait for missing peers
    silence: float = 15.0  # seconds without a sign of life after which a peer is given up
    grace: float = 25.0  # seconds from SIGTERM to the end, come what may; a little less than the cluster's own
    maintenance: str = "auto"  # who gives notice that this machine will be taken away: auto, gce or none


@dataclass
class RunSection:
    """Where the run lives. `dir` is derived as root/recipe/name where it isn't given."""

    recipe: str = "custom"
    root: str = "runs"
    name: Optional[str] = None
    dir: Optional[str] = None
    store: Optional[str] = None  # an URL such as s3://bucket/runs, where a copy of root/recipe/name is kept
    quiet: bool = False  # says nothing but the result, and what goes wrong
    hang_timeout: float = 1800.0  # seconds after which a step that has not ended is given up

    def beside(self, path: Path) -> Path:
        """The folder beside the run folder `path` that holds what many runs share, such as the tracker's store."""
        return path.parent if self.dir else path.parent.parent


@dataclass
class LogSection:
    """How the messages of a run look; they go through Python's logging, below the logger "tfscale"."""

    # auto: for people on a terminal, else plain lines with the time; plain: these everywhere; json: JSON lines
    format: str = "auto"


@dataclass
class ExportConfig:
    """Whether a finished run leaves export/model.keras and export/saved_model in its folder."""

    at_end: bool = False
    examples: int = 8  # of the test split, on which an export is compared with the trained model


@dataclass
class ResumeConfig:
    """What to do with checkpoints that exist: `auto` goes on from the newest good one, `never` starts at zero."""

    mode: str = "auto"
    allow_changed: list[str] = field(default_factory=list)  # what may differ from them: ["optimizer.learning_rate"]


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

    task: Any = MISSING  # a tfscale.Task
    data: Any = MISSING  # a tfscale.Source
    tracker: Any = None  # a tfscale.tracking.tracker.TrackerSpec
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


_IDENTITY = ("task", "data", "train", "optimizer", "init_from")
_OF_TRAINING = ("global_batch", "seed", "clip_norm", "ema")


def _value(config: RunConfig, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


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

    durations = {
        "train.until": config.train.until,
        "train.log_every": config.train.log_every,
        "eval.every": config.eval.every,
        "checkpoint.every": config.checkpoint.every,
        "optimizer.warmup": config.optimizer.warmup,
        **{f"optimizer.{key}": vars(config.optimizer)[key] or "0st" for key in ("decay_over", "rise_over")},
        **{f"optimizer.decay_at[{i}]": text for i, text in enumerate(config.optimizer.decay_at)},
    }
    for key, text in durations.items():
        try:
            duration = Duration.parse(text)
        except UsageError as error:
            problems.append((key, str(error)))
            continue
        countable = key == "train.until" or key.startswith("optimizer.")
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
    for key in ("momentum", "rho", "beta_1", "beta_2"):
        share = getattr(config.optimizer, key)
        check(f"optimizer.{key}", share is None or 0 <= share <= 1, f"{share} is not in 0..1")
    decay = config.optimizer.layer_decay
    check("optimizer.layer_decay", decay is None or 0 < decay <= 1, f"{decay} is not in 0..1, 0 excluded")
    ema = config.train.ema
    check("train.ema", ema is None or 0 <= ema < 1, f"{ema} is not in 0..1, 1 excluded")
    check("train.seed", (config.train.seed or 0) < 2**31, f"{config.train.seed} is more than 2147483647")
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
