"""fit for people's own models and data: from Python objects to a RunConfig, and back to the trained model.

Owns what `tfscale.fit(model, data, ...)` means. Refuses to know how a run works: that is attempt.py.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.composition.hydra_compose import compose
from tfscale.config.optimizer_keys import DEFAULT
from tfscale.config.override_keys import overridden
from tfscale.config.schema import RunConfig
from tfscale.data.source import Source
from tfscale.errors import UsageError, nearest
from tfscale.run.attempt import fit_config
from tfscale.run.hints import ARGUMENTS, hints_in_python
from tfscale.run_dir.result import Result
from tfscale.task import Task

if TYPE_CHECKING:
    import keras

# What people know from Keras's `fit` and `compile`, and what to write here.
_AS_IN_KERAS = {
    "x": "give data=(x, y)",
    "y": "give data=(x, y)",
    "epochs": 'give until="5ep"',
    "batch_size": "give global_batch=32",
    "validation_data": "give test=(x, y)",
    "validation_split": "split the data before, and give the second part as test=(x, y)",
    "validation_steps": "give test=... of the examples to look at, such as test=dataset.take(10)",
    "validation_batch_size": 'give overrides=["eval.global_batch=32"]',
    "validation_freq": 'give overrides=["eval.every=2ep"]',
    "class_weight": "give a weight for every example: data=(x, y, sample_weight)",
    "sample_weight": "give data=(x, y, sample_weight)",
    "initial_epoch": "leave it away: a run goes on from its newest checkpoint when run_dir= is given again",
    "callbacks": "callbacks are not called; what they do is asked for by overrides=[...]: checkpoint.every=..., "
    "train.stop_patience=..., optimizer.schedule=..., tracker=mlflow",
    "shuffle": "leave it away: arrays are shuffled anew in every epoch, and a tf.data data set keeps its own order",
    "verbose": 'leave it away; overrides=["run.quiet=true"] shows the result alone',
    "lr": "give optimizer=keras.optimizers.Adam(0.001) with loss=..., or compile the model with it",
    "learning_rate": "give optimizer=keras.optimizers.Adam(0.001) with loss=..., or compile the model with it",
    "weighted_metrics": "compile the model with them",
    "loss_weights": "compile the model with them",
    "workers": 'leave it away: the plan decides it, and overrides=["plan.input_threads=4"] forces it',
}


@dataclass(frozen=True)
class Arguments:
    """What `tfscale.fit` takes besides model and data; it says there what each means."""

    test: Any = None
    until: str = "1ep"
    global_batch: int | None = None
    steps_per_epoch: int | None = None
    loss: Any = None
    optimizer: Any = None
    metrics: Sequence[Any] | None = None
    run_dir: str | os.PathLike[str] | None = None
    seed: int | None = 0
    overrides: Sequence[str] = ()


def config_for(model: Any, data: Any, arguments: Arguments, *, deferred: bool = False) -> RunConfig:
    """The configuration of a run of these objects.

    Args:
        deferred: call functions that return data only once the run needs them.
    """
    overrides, run_dir = arguments.overrides, arguments.run_dir
    wide = _computes_in_float64(model, overrides)
    source = _source(model, data, arguments.test, arguments.steps_per_epoch, deferred, wide=wide)
    task = _task(model, arguments.loss, arguments.optimizer, arguments.metrics)
    global_batch = _global_batch(model, source, arguments.global_batch)
    for override in overrides:
        if override.lstrip("+~").split("=")[0] in ARGUMENTS:
            raise UsageError(f"{override!r} is an argument of fit", where="overrides", fix="give it as fit(...)")
    given = {
        "train.until": arguments.until,
        "train.global_batch": global_batch,
        "train.seed": "null" if arguments.seed is None else arguments.seed,
        "run.recipe": _name(model),
        "checkpoint.metric": "loss",
        "checkpoint.mode": "min",
        "tracker": "none",
    }
    config = compose([f"{key}={value}" for key, value in given.items()] + list(overrides), task=task, data=source)
    config._overridden = overridden(overrides)  # type: ignore[attr-defined]
    if run_dir is not None:
        config.run.dir = os.path.expanduser(os.fspath(run_dir))
    elif config.run.name is None:
        config.run.name = time.strftime("%Y%m%d-%H%M%S-") + os.urandom(2).hex()
    return config


def _source(model: Any, data: Any, test: Any, steps_per_epoch: int | None, deferred: bool, *, wide: bool) -> Source:
    """The data; functions are called now, unless that is deferred."""
    from tfscale.data.given import GivenFunctions, as_source, called, is_labelled

    def is_function(given: Any) -> bool:
        return callable(given) and not isinstance(given, Source)

    if deferred and is_function(data):
        return GivenFunctions(train=data, test=test, steps_per_epoch=steps_per_epoch)
    source = as_source(
        called(data) if is_function(data) else data,
        called(test) if is_function(test) else test,
        steps_per_epoch=steps_per_epoch,
        wide=wide,
    )
    if not isinstance(model, Task) and not is_labelled(source):
        raise UsageError("the data have no y", where="data", fix="give (x, y) or (x, y, sample_weight)")
    return source


def _global_batch(model: Any, source: Source, given: int | None) -> int:
    """As in Keras: a data set's own, and 32 for arrays, where nothing is said."""
    from tfscale.data.given import GivenDataset, GivenFunctions

    if isinstance(source, GivenFunctions) and given is None:
        raise UsageError(
            "several workers must know the global batch before the data are made",
            where="global_batch",
            fix="give global_batch=...",
        )
    if not isinstance(source, GivenDataset):
        return given if given is not None else _fixed_rows(model) or 32
    if given is not None and (why := source.own_steps("train")):
        raise UsageError(
            f"the batches of the data are {why}, so that each of them is one step, whatever its size",
            where="global_batch",
            fix="leave global_batch away",
        )
    return given if given is not None else source.rows


def fit_model(
    model: Any,
    data: Any,
    *,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> Result:
    """`tfscale.fit` for a model and data; see there.

    Raises:
        UsageError: also for an argument that there isn't.
    """
    _refuse_unknown(options)
    with hints_in_python():
        return _fit(model, data, environ=environ, arguments=Arguments(**options))


def _fit(
    model: Any,
    data: Any,
    *,
    environ: Mapping[str, str] | None,
    arguments: Arguments,
) -> Result:
    from tfscale.keras_task.given_model import GivenModel

    several = _is_multi_worker(environ)
    config = config_for(model, data, arguments, deferred=several)
    if arguments.run_dir is None and several:
        raise UsageError(
            "the workers of one run must agree on its folder", where="run_dir", fix='give run_dir="runs/my-run"'
        )
    result = fit_config(config, environ=environ)
    if isinstance(config.task, GivenModel) and result.status != "planned":
        _bring_back(config, model)
    return result


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    """All unknown arguments at once, each with the word that says the same here."""
    known = [field.name for field in dataclasses.fields(Arguments)]
    unknown = [name for name in options if name not in known]
    if unknown:
        fixes = dict.fromkeys(_AS_IN_KERAS.get(name, _known(name, known)) for name in unknown)
        raise UsageError(
            f"tfscale.fit has no argument {', '.join(f'{name}=' for name in unknown)}",
            where=", ".join(unknown),
            fix="; ".join(fixes),
        )


def refuse_beside_config(options: Mapping[str, Any]) -> None:
    """Raises UsageError for arguments beside a configuration."""
    if options:
        given = ", ".join(f"{name}=" for name in options)
        raise UsageError(
            f"a configuration says everything itself, and {given} would change nothing",
            where=given,
            fix='compose it with overrides, such as compose(["+recipe=resnet", "train.until=5ep"])',
        )


def _known(name: str, known: Sequence[str]) -> str:
    return f"its arguments are {', '.join(known)}{nearest(name, list(known))}"


def _is_multi_worker(environ: Mapping[str, str] | None) -> bool:
    from tfscale.cluster import Cluster

    return Cluster.resolve(environ).is_multi_worker


def _task(model: Any, loss: Any, optimizer: Any, metrics: Sequence[Any] | None) -> Task:
    import keras

    from tfscale.keras_task.given_model import GivenModel

    bare = isinstance(model, keras.Model)
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


def _computes_in_float64(model: Any, overrides: Sequence[str]) -> bool:
    policy = getattr(model, "dtype_policy", None)
    return "plan.precision=float64" in overrides or getattr(policy, "compute_dtype", "") == "float64"


def _fixed_rows(model: Any) -> int | None:
    """The only batch size that a model takes, where it says one."""
    import keras

    from tfscale.keras_task.fixed_batch import needed_rows

    return needed_rows(model) if isinstance(model, keras.Model) else None


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
    import re

    name = getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__
    kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", type(model).__name__).lower()
    if re.fullmatch(rf"{kind}_\d+", name):  # Keras counts the models that nobody names
        name = kind
    return "model" if name == "<lambda>" else re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _bring_back(config: RunConfig, model: Any) -> None:
    """Puts the run's newest state into the model that people hold, and its optimizer, where another one was trained, or
    none at all."""
    import keras

    from tfscale.data.pipeline import first_examples
    from tfscale.state.keras_state import copy_optimizer, copy_state

    live = config.task.live
    if not isinstance(model, keras.Model) or live is model:
        return
    if not model.built:
        model(first_examples(config.data, config.task, "train")["x"], training=False)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    if live is None:
        _restore(config, model)
        return
    copy_state(live, model)
    copy_optimizer(live.optimizer, model.optimizer)


def _restore(config: RunConfig, model: keras.Model) -> None:
    """As the training left it, also the learning rate after a roll-back."""
    from tfscale.checkpoint import Checkpointer
    from tfscale.keras_task.model_task import inner_optimizer
    from tfscale.optimizers.build import remember_rate, scale_learning_rate
    from tfscale.preflight import locate
    from tfscale.state.train_state import TrainState

    state = TrainState(model, inner_optimizer(model.optimizer))
    remember_rate(state.optimizer)
    Checkpointer(locate(config).checkpoints).restore_trained(state)
    scale_learning_rate(state.optimizer, state.memory.get("learning_rate_scale", 1.0))
