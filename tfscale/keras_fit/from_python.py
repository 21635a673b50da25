"""A fit as a run: from Python objects, under Keras's names, to a RunConfig and the callbacks that hear of it.

Owns who makes the steps: the model itself, or tfscale's translation of them. Refuses to know how a run works.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfscale.cluster import Cluster
from tfscale.composition.hydra_compose import compose
from tfscale.config.optimizer_keys import DEFAULT
from tfscale.config.override_keys import overridden
from tfscale.config.schema import RunConfig
from tfscale.data.keras_source import KerasSource
from tfscale.data.source import Source
from tfscale.errors import UsageError
from tfscale.hooks.keras_fit_hooks import is_trainer, steps_of_its_own
from tfscale.hooks.tensorflow_hooks import is_deterministic
from tfscale.keras_fit.arguments import ARGUMENTS, Data, FitArguments, read
from tfscale.keras_fit.callbacks import Callbacks, Range
from tfscale.preflight import plan_run
from tfscale.state.train_state import stateful_layers
from tfscale.task import Task

_SECONDS_APART = 5  # of two checkpoints: people's epochs may take milliseconds
# Settings that only tfscale's own steps have: a model's own step computes and applies its gradients itself.
_OF_TRANSLATED = (
    "train.accumulate",
    "train.clip_norm",
    "train.ema",
    "train.max_rollbacks",
    "plan.xla",
    "plan.micro_batch",
    "plan.wire_precision",
    "plan.input_threads",
    "plan.input_ram_bytes",
    "plan.decoded_ram_bytes",
    "plan.prefetch",
)


@dataclass(frozen=True)
class Fit:
    """What is trained, and the callbacks that hear of it."""

    config: RunConfig
    callbacks: Callbacks


def as_run(given: FitArguments, *, environ: Mapping[str, str] | None) -> Fit:
    """The run that these arguments ask for; a model is compiled, where they say how.

    Raises:
        UsageError: they don't go together, or a model or data of a kind that can't be trained.
    """
    import keras

    if most := keras.config.max_epochs():
        given = replace(given, epochs=min(given.epochs, most))
    several = Cluster.resolve(environ).is_multi_worker
    _refuse_together(given, several)
    task = _task(given.model, given.loss, given.optimizer, given.metrics)
    data = read(given, deferred=several, needs_y=isinstance(task, Task) and _learns_from_labels(given.model))
    config = _config(given, task, data, why := _needs_translation(given, task, data, several))
    if not why and plan_run(config, environ=environ).num_replicas > 1 and not _brings_steps(given.model):
        config = _config(given, task, data, "several replicas")
    last = max(given.epochs, given.initial_epoch)
    listed = None if isinstance(given.validation_freq, int) else given.validation_freq
    return Fit(config, Callbacks(given.callbacks, Range(given.initial_epoch, last, listed), verbose=given.verbose))


def _config(given: FitArguments, task: Task, data: Data, translated: str) -> RunConfig:
    """Args:
    translated: why the model's own steps don't train it, or "": they do.
    """
    from tfscale.keras_task.given_model import GivenModel

    if isinstance(task, GivenModel):
        task = GivenModel(model=task.model, by_own_steps=not translated)
    source = data.translated(wide=_computes_in_float64(given)) if translated else data.for_own_steps()
    values = {
        "train.until": given.until or f"{given.epochs - given.initial_epoch}ep",
        "train.global_batch": _global_batch(given, source),
        "train.seed": "null" if given.seed is None else given.seed,
        "eval.every": f"{given.validation_freq}ep" if isinstance(given.validation_freq, int) else "1ep",
        "run.recipe": _name(given.model),
        "run.quiet": str(given.verbose in (0, False)).lower(),
        "checkpoint.metric": "loss",
        "checkpoint.mode": "min",
        "tracker": "none",
    }
    if "checkpoint.every" not in overridden(given.overrides):
        values["checkpoint.seconds_apart"] = _SECONDS_APART
    if not translated:  # the numbers that Keras's own fit gives in this process
        values["plan.deterministic"] = str(is_deterministic()).lower()
    if given.validation_batch_size:
        values["eval.global_batch"] = given.validation_batch_size
    config = compose(
        [f"{key}={value}" for key, value in values.items()] + list(given.overrides), task=task, data=source
    )
    if isinstance(source, KerasSource) and source.test is not None and config.eval.global_batch is not None:
        source.test = replace(source.test, batch_size=config.eval.global_batch)
    config._overridden = overridden(given.overrides)  # type: ignore[attr-defined]
    if given.run_dir is not None:
        config.run.dir = os.path.expanduser(os.fspath(given.run_dir))
    elif config.run.name is None:
        config.run.name = new_name()
    return config


def new_name() -> str:
    """Of a run folder that nobody named."""
    return time.strftime("%Y%m%d-%H%M%S-") + os.urandom(2).hex()


def config_before_a_fit(overrides: Sequence[str], *, rows: int = 32, settings: bool = True) -> RunConfig:
    """What overrides and settings files say where there is neither a model nor data yet: of the plan and the cluster.

    Args:
        settings: whether files say anything.

    Raises:
        UsageError: overrides that there aren't.
    """
    from tfscale.keras_task.given_model import GivenModel

    needed = ["train.until=1ep", f"train.global_batch={rows}"]  # as a fit has them
    return compose([*needed, *overrides], task=GivenModel(), data=KerasSource(), settings=settings)


def _refuse_together(given: FitArguments, several: bool) -> None:
    for override in given.overrides:
        if override.lstrip("+~").split("=")[0] in ARGUMENTS:
            raise UsageError(f"{override!r} is an argument of fit", where="overrides", fix="give it as fit(...)")
    if given.run_dir is None and several:
        raise UsageError(
            "the workers of one run must agree on its folder", where="run_dir", fix='give run_dir="runs/my-run"'
        )
    if given.global_batch is not None and given.batch_size is not None:
        raise UsageError("global_batch= and batch_size= say the same", where="global_batch", fix="give batch_size=")
    if given.until is not None and (given.epochs, given.initial_epoch) != (1, 0):
        raise UsageError("until= and epochs= say the same", where="until", fix="give epochs= alone")
    if given.until is None and given.epochs <= given.initial_epoch:
        raise UsageError(
            f"training begins at initial_epoch={given.initial_epoch} and is to end at epochs={given.epochs}",
            where="epochs",
            fix=f"give epochs={given.initial_epoch + 1} or more",
        )


def _needs_translation(given: FitArguments, task: Task, data: Data, several: bool) -> str:
    """Why a model isn't trained by its own steps, as far as that is known before the plan; "" where it is."""
    from tfscale.keras_task.given_model import GivenModel

    if not isinstance(task, GivenModel):
        return "a Task has a loss of its own"
    if several and not is_trainer(given.model):
        return "a function is called once the workers have met"
    if data.is_source:
        return "a Source gives examples and no batches"
    if given.global_batch is not None and data.train.is_batched:
        return "global_batch= cuts the batches anew"
    if data.has_text_labels:
        return "labels that are texts are numbered"
    if is_trainer(given.model) and stateful_layers(given.model):
        return "layers that carry a state take batches of one size"
    asked = [o for o in given.overrides if o.lstrip("+~").split("=")[0] in _OF_TRANSLATED]
    return f"{asked[0]} is a setting of tfscale's own steps" if asked else ""


def _brings_steps(model: Any) -> bool:
    """Whether several replicas can train it by no other steps than its own: tfscale's can't scale a loss that they
    don't know, and keep no averages for an optimizer."""
    import keras

    from tfscale.keras_task.model_task import inner_optimizer

    if not is_trainer(model):
        return False
    own_loss = type(model).compute_loss is not keras.Model.compute_loss
    return bool(steps_of_its_own(model)) or own_loss or getattr(inner_optimizer(model.optimizer), "use_ema", False)


def _learns_from_labels(model: Any) -> bool:
    """Whether a model without labels has nothing to learn from: neither a step nor a loss of its own."""
    return not is_trainer(model) or (bool(model.compiled and model.loss) and not steps_of_its_own(model))


def _global_batch(given: FitArguments, source: Source) -> int:
    """As in Keras: a data set's own, and 32 for arrays, where nothing is said."""
    from tfscale.data.given import GivenArrays, GivenFunctions
    from tfscale.data.given_dataset import GivenDataset

    rows = given.global_batch or given.batch_size
    if isinstance(source, KerasSource):
        return source.train.rows
    if isinstance(source, GivenFunctions) and rows is None:
        raise UsageError(
            "several workers must know the global batch before the data are made",
            where="batch_size",
            fix="give batch_size=...",
        )
    if not isinstance(source, GivenDataset):
        if rows is None and given.steps_per_epoch and isinstance(source, GivenArrays):
            rows = -(-source.num_examples("train") // given.steps_per_epoch)
        return rows if rows is not None else _fixed_rows(given.model) or 32
    if rows is not None and (why := source.own_steps("train")):
        raise UsageError(
            f"the batches of the data are {why}, so that each of them is one step, whatever its size",
            where="global_batch",
            fix="leave global_batch away",
        )
    return rows if rows is not None else source.rows


def _task(model: Any, loss: Any, optimizer: Any, metrics: Sequence[Any] | None) -> Task:
    from tfscale.keras_task.given_model import GivenModel

    bare = is_trainer(model)
    if not bare and not isinstance(model, Task) and not _is_maker(model):
        raise UsageError(
            f"model is a {type(model).__name__}" + (", which takes arguments" if callable(model) else ""),
            where="model",
            fix="give a Keras model, a function that returns one, a tfscale.Task or a tfscale.RunConfig",
        )
    given = {"loss": loss, "optimizer": optimizer, "metrics": metrics}
    names = [name for name, value in given.items() if value is not None]
    if names and not bare:
        what, fix = "a function's model is compiled by the function", f"compile it there and leave {names[0]}= away"
        if isinstance(model, Task):
            what, fix = "a Task has its own loss and metrics", f"leave {names[0]}= away; optimizer.* are overrides"
        raise UsageError(what, where=", ".join(names), fix=fix)
    if names and loss is None:
        raise UsageError(
            f"{' and '.join(names)} compile a model, which takes a loss, too",
            where=", ".join(names),
            fix="give loss=..., or give the model compiled",
        )
    if isinstance(model, Task):
        return model
    if loss is not None:
        model.compile(optimizer=DEFAULT if optimizer is None else optimizer, loss=loss, metrics=list(metrics or ()))
    return GivenModel(model=model)


def _computes_in_float64(given: FitArguments) -> bool:
    policy = getattr(given.model, "dtype_policy", None)
    return "plan.precision=float64" in given.overrides or getattr(policy, "compute_dtype", "") == "float64"


def _fixed_rows(model: Any) -> int | None:
    """The only batch size that a model takes, where it says one."""
    from tfscale.keras_task.fixed_batch import needed_rows

    return needed_rows(model) if is_trainer(model) else None


def _is_maker(model: Any) -> bool:
    """Whether it is a function without arguments: a model of another framework can be called, too."""
    if not callable(model):
        return False
    try:
        signature = inspect.signature(model)
        signature.bind()
    except (TypeError, ValueError):
        return False
    plain = inspect.isroutine(model) or inspect.isclass(model) or isinstance(model, functools.partial)
    return plain or not any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())


def _name(model: Any) -> str:
    name = getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__
    kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", type(model).__name__).lower()
    if re.fullmatch(rf"{kind}_\d+", name):  # Keras counts the models that nobody names
        name = kind
    return "model" if name == "<lambda>" else re.sub(r"[^A-Za-z0-9_.-]", "_", name)
