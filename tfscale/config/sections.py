"""The sections of a configuration: every key with its type, its default and its meaning.

A meaning is the comment behind a key, or the one above it: `tfscale config` and docs/configuration.md show them as they
stand here. Bounds are in bounds.py, and what optimizers have in the place of null in optimizer_keys.py. Refuses to know
what is valid together: that is schema.py's `validate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Optional

import tfscale.config.optimizer_keys as optimizers

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


class Explain(Enum):
    """How much a run says of its plan."""

    brief = "brief"
    full = "full"


@dataclass
class TrainConfig:
    """What is trained for how long. Durations are written 90ep, 500st, 10%, 30s, 10m, 2h."""

    until: str = MISSING  # when training is complete
    global_batch: int = MISSING  # examples of one step, over all replicas
    # of weights, order and augmentation; null: that of Python, NumPy and TensorFlow is left as it is
    seed: Optional[int] = 0
    accumulate: Optional[int] = None  # micro-batches per step; null lets the plan choose
    clip_norm: Optional[float] = None  # the largest global norm of the reduced gradients; null: they aren't clipped
    ema: Optional[float] = None  # decay of the weights' moving average, which is evaluated and exported in their place
    log_every: str = "10s"  # how often a line reports loss, metrics and speed
    profile: Optional[str] = None  # "100:110": the steps that TensorFlow's profiler watches, into profile/
    max_rollbacks: int = 0  # how often a loss that isn't finite returns to the last checkpoint, without that batch
    rollback_factor: float = 0.5  # what the learning rate is multiplied with at each roll-back
    stop_patience: Optional[int] = None  # evaluations without a better checkpoint.metric; null never stops


@dataclass
class OptimizerConfig:
    """The optimizer and its learning-rate schedule. Null is the optimizer's own default, which is Keras's; a key that
    the optimizer hasn't got is refused (`optimizers.OWN_KEYS` lists them)."""

    name: Optional[str] = None  # which optimizer; null: rmsprop, as in Keras's compile; a compiled model brings its own
    learning_rate: Optional[float] = None  # the learning rate behind the warm-up, from which a schedule falls
    # the global batch that learning_rate is for; it grows in proportion with train.global_batch
    reference_batch: Optional[int] = None
    layer_decay: Optional[float] = None  # what each layer's rate is of that of the layer above it; null: 1
    momentum: Optional[float] = None  # of sgd, rmsprop, lars and muon: the share of the last update that goes on
    nesterov: Optional[bool] = None  # of sgd, lars and muon: Nesterov's momentum
    rho: Optional[float] = None  # of rmsprop: the decay of the mean of squared gradients
    centered: Optional[bool] = None  # of rmsprop: gradients are divided by their variance, not their second moment
    beta_1: Optional[float] = None  # of adam, adamw, lamb, lion and muon's adamw: the first moment's decay
    beta_2: Optional[float] = None  # of adam, adamw, lamb, lion and muon's adamw: the second moment's decay
    amsgrad: Optional[bool] = None  # of adam and adamw: the largest second moment so far counts
    epsilon: Optional[float] = None  # of all but sgd, lion and lars: what keeps a division from one by zero
    trust_coefficient: Optional[float] = None  # of lars: the share of its norm by which a step of rate 1 moves a matrix
    exclude_layers: Optional[list[str]] = None  # of muon: layers by a part of their path whose matrices adamw trains
    # how much weights shrink: of sgd by an L2 loss; of the others decoupled, as in Keras
    weight_decay: Optional[float] = None
    # variables without weight_decay, by the last part of their names: [bias, gamma, beta]
    no_decay: Optional[list[str]] = None
    schedule: str = "constant"  # how the learning rate goes on behind the warm-up
    warmup: str = "0st"  # how long the learning rate rises at the start, linearly
    warmup_from: Optional[float] = None  # the learning rate that the warm-up begins with; null: 0
    decay_at: list[str] = field(default_factory=list)  # of the schedule step: when the rate falls, such as [30ep, 60ep]
    decay_by: Optional[float] = None  # of the schedule step: what the rate is multiplied with then; null: 0.1
    decay_over: Optional[str] = None  # the end of training in which wsd falls; null: 10%
    rise_over: Optional[str] = None  # the start of training in which one_cycle rises; null: 30%
    start: Optional[float] = None  # the share of learning_rate that one_cycle begins with; null: 0.04
    # cosine, linear, exponential, wsd and one_cycle end at this share of learning_rate; null: 0, of exponential 0.01,
    # of one_cycle 4e-6
    final: Optional[float] = None

    @property
    def effective(self) -> dict[str, Any]:
        """Every setting that takes effect, with the defaults filled in."""
        return optimizers.effective(vars(self))


@dataclass
class EvalConfig:
    """When and how the test split is evaluated."""

    every: str = "1ep"  # how often it is evaluated during training
    global_batch: Optional[int] = None  # examples of one step of evaluation; null: the training's global batch
    split: str = "test"  # what is evaluated
    beside_ema: bool = False  # with train.ema: the weights themselves, too, as raw_loss and the like


@dataclass
class CheckpointConfig:
    """When checkpoints are written and which are kept."""

    every: str = "1ep"  # how often one is written; a kill loses at most this, and seconds_apart besides
    seconds_apart: float = 0.0  # the least between two that training doesn't wait for; a fit in Python has 5
    keep: int = 2  # how many of the newest are kept; the best one is kept besides
    max_failed_saves: int = 3  # saves in a row that may fail; then the run ends with 74
    metric: str = "accuracy"  # of an evaluation: what the best checkpoint is chosen by
    mode: str = "max"  # whether more of that metric is better, or less


@dataclass
class PlanConfig:
    """Overrides of the execution plan: null (or auto) means that the plan decides."""

    dry_run: bool = False  # prints the plan with its reasons and stops
    explain: Explain = Explain.brief  # what a run shows of its plan: about five lines, or full, as dry_run does
    hardware: Optional[str] = None  # a JSON file that describes another machine to plan for, with dry_run alone
    strategy: Strategy = Strategy.auto  # how devices and workers share a step
    precision: Precision = Precision.auto  # of computing: Keras's dtype policy
    calibrate: Optional[Measured] = None  # auto chooses kernels, packs and determinism by a few real steps of each
    micro_batch: Optional[Measured] = None  # auto takes the fastest that fits; train.accumulate names it instead
    local_devices: Optional[int] = None  # devices of one worker; on a CPU they are logical ones
    xla: Optional[bool] = None  # whether XLA compiles the training step
    deterministic: Optional[bool] = None  # whether TensorFlow computes the same bits again, which may cost time
    # whether a training step takes fewer kernels; they equal Keras's up to rounding
    fused_kernels: Optional[bool] = None
    steps_per_loop: Optional[int] = None  # steps of one compiled loop, between which signals are heard; 1 or more
    intra_op_threads: Optional[int] = None  # threads that share one operation of TensorFlow; 1 or more
    inter_op_threads: Optional[int] = None  # operations of TensorFlow that run at once; 1 or more
    input_threads: Optional[int] = None  # examples that are read and preprocessed at once; 1 or more
    input_ram_bytes: Optional[int] = None  # a split that is smaller is held in memory whole
    # memory for pictures that are decoded once, by each worker; 0: none are held
    decoded_ram_bytes: Optional[int] = None
    prefetch: Optional[int] = None  # steps whose batches are made ahead; 1 or more
    bytes_per_pack: Optional[int] = None  # gradients that one all-reduce takes; 0 reduces all in one
    wire_precision: Optional[WirePrecision] = None  # in what gradients travel between replicas; full: as computed


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

    recipe: str = "custom"  # the folder below root that the run lies in; a recipe says its own name
    root: str = "runs"  # the folder of all runs
    name: Optional[str] = None  # the name of the run's folder; null: a digest of task, data and hyper-parameters
    dir: Optional[str] = None  # the run's folder itself, in the place of root/recipe/name
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

    at_end: bool = False  # whether a run exports itself as it ends
    examples: int = 8  # how many of the test split an export is compared with the trained model on


@dataclass
class ResumeConfig:
    """What to do with checkpoints that exist: `auto` goes on from the newest good one, `never` starts at zero."""

    mode: str = "auto"  # auto goes on from the newest good checkpoint; never starts at zero
    # what may differ from the checkpoints' run: ["optimizer.learning_rate"]
    allow_changed: list[str] = field(default_factory=list)


@dataclass
class DebugConfig:
    """Aids for finding faults; none of them changes the numbers."""

    traceback: bool = False  # shows an error's whole traceback besides its one line


@dataclass
class Extensions:
    """Packages of the user's whose classes a `_target_` may name, each with a trailing dot: ["mypkg."]."""

    # their names; from the command or the settings of the user (docs/settings.md): no other file allows anything
    allow: list[str] = field(default_factory=list)
