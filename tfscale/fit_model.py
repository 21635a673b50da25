"""fit for people's own models and data: from Python objects to a RunConfig, and back to the trained model.

Owns what `tfscale.fit(model, data, ...)` means. Refuses to know how a run works: that is run.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfscale.composition import compose
from tfscale.config import RunConfig
from tfscale.data.source import Source
from tfscale.errors import UsageError
from tfscale.task import Task

_OURS = ("train.until", "train.global_batch", "train.seed", "run.dir")  # arguments of `fit`, not overrides


def config_for(
    model: Any,
    data: Any,
    *,
    test: Any = None,
    until: str = "1ep",
    global_batch: int | None = None,
    steps_per_epoch: int | None = None,
    loss: Any = None,
    optimizer: Any = "adam",
    metrics: Sequence[Any] = (),
    run_dir: str | os.PathLike | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
    deferred: bool = False,
) -> RunConfig:
    """The configuration of a run of these objects; the arguments are those of `tfscale.fit`.

    Args:
        deferred: call functions that return data only once the run needs them.
    """
    from tfscale.data.given import GivenDataset, GivenFunctions, as_source, is_labelled

    task = model if isinstance(model, Task) else _task(model, loss, optimizer, metrics)
    functions = callable(data) and not isinstance(data, Source)
    if functions and deferred:
        source: Source = GivenFunctions(train=data, test=test, steps_per_epoch=steps_per_epoch)
    else:
        source = as_source(
            data() if functions else data,
            test() if callable(test) and not isinstance(test, Source) else test,
            steps_per_epoch=steps_per_epoch,
        )
    if functions and deferred and global_batch is None:
        raise UsageError(
            "several workers must know the global batch before the data are made",
            where="global_batch",
            fix="give global_batch=...",
        )
    if not isinstance(model, Task) and not is_labelled(source):
        raise UsageError("the data have no y", where="data", fix="give (x, y) or (x, y, sample_weight)")
    for override in overrides:
        if override.lstrip("+").split("=")[0] in _OURS:
            raise UsageError(f"{override!r} is an argument of fit", where="overrides", fix="give it as fit(...)")
    if global_batch is None:
        global_batch = source.rows if isinstance(source, GivenDataset) else 32  # as in Keras
    given = {
        "train.until": until,
        "train.global_batch": global_batch,
        "train.seed": seed,
        "run.recipe": _name(model),
        "checkpoint.metric": "loss",
        "checkpoint.mode": "min",
        "tracker": "none",
    }
    config = compose([f"{key}={value}" for key, value in given.items()] + list(overrides), task=task, data=source)
    config.run.dir = os.fspath(run_dir) if run_dir is not None else None
    if run_dir is None:
        config.run.name = time.strftime("%Y%m%d-%H%M%S-") + os.urandom(2).hex()
    return config


def fit_model(
    model: Any,
    data: Any,
    *,
    environ: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
    **options: Any,
):
    """`tfscale.fit` for a model and data; see there."""
    from tfscale.keras_task.given import GivenModel
    from tfscale.run import fit_config

    several = _is_multi_worker(environ)
    config = config_for(model, data, deferred=several, **options)
    if options.get("run_dir") is None and several:
        raise UsageError(
            "the workers of one run must agree on its folder", where="run_dir", fix='give run_dir="runs/my-run"'
        )
    result = fit_config(config, environ=environ, say=say)
    if isinstance(config.task, GivenModel) and result.status != "planned":
        _bring_back(config, model)
    return result


def _is_multi_worker(environ: Mapping[str, str] | None) -> bool:
    from tfscale.cluster import Cluster

    return Cluster.resolve(environ).is_multi_worker


def _task(model: Any, loss: Any, optimizer: Any, metrics: Sequence[Any]) -> Task:
    import keras

    from tfscale.keras_task.given import GivenModel

    if not isinstance(model, keras.Model) and not callable(model):
        raise UsageError(
            f"model is a {type(model).__name__}",
            where="model",
            fix="give a Keras model, a function that returns one, a tfscale.Task or a tfscale.RunConfig",
        )
    if loss is not None:
        if not isinstance(model, keras.Model):
            raise UsageError(
                "a function's model is compiled by the function", where="loss", fix="compile it there and leave loss="
            )
        model.compile(optimizer=optimizer, loss=loss, metrics=list(metrics))
    return GivenModel(model=model)


def _name(model: Any) -> str:
    import re

    name = getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__
    kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", type(model).__name__).lower()
    if re.fullmatch(rf"{kind}_\d+", name):  # Keras counts the models that nobody names
        name = kind
    return "model" if name == "<lambda>" else re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _bring_back(config: RunConfig, model: Any) -> None:
    """Puts the run's newest weights into the model that people hold, where another one was trained, or none at all."""
    import keras

    from tfscale.checkpoint import Checkpointer
    from tfscale.data.pipeline import first_examples
    from tfscale.run import locate
    from tfscale.state import TrainState

    live = config.task.live
    if not isinstance(model, keras.Model) or live is model:
        return
    if not model.built:
        model(first_examples(config.data, config.task, "train")["x"], training=False)
    if live is not None:
        model.set_weights(live.get_weights())
        return
    state = TrainState(model, model.optimizer)
    Checkpointer(locate(config).checkpoints).restore_model(state)
