"""fit: what people call. Owns whether they gave a configuration or a model; refuses to know how either is trained."""

from __future__ import annotations

import contextlib
import inspect
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from tfscale.config.schema import RunConfig
from tfscale.console.messages import received
from tfscale.errors import UsageError
from tfscale.keras_fit.arguments import FitArguments
from tfscale.keras_fit.bring_back import bring_back
from tfscale.keras_fit.from_python import Fit, as_run
from tfscale.keras_task.given_model import GivenModel
from tfscale.run.attempt import fit_config
from tfscale.run.hints import hints_in_python
from tfscale.run_dir.result import Result


def fit(
    what: Any,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: Any = "auto",
    callbacks: Any = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    shuffle: bool | str = True,
    class_weight: Mapping[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: int | Sequence[int] = 1,
    *,
    data: Any = None,
    test: Any = None,
    until: str | None = None,
    global_batch: int | None = None,
    loss: Any = None,
    optimizer: Any = None,
    metrics: Sequence[Any] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Result:
    """Trains a Keras model as its own `fit` does, or what a configuration describes.

    From Python: `fit(model, x, y, epochs=5)` takes what `model.fit` takes, under the same names and with the same
    meaning, and trains by the model's own steps on whatever hardware the plan finds; see "Coming from Keras". From a
    configuration: `fit(compose(["+recipe=resnet"]))`. Either resumes where the run folder left off.

    Args:
        what: a compiled Keras 3 model, trained in place; or a function that returns one, which is called under the
            strategy's scope and the plan's precision; or a `tfscale.Task`; or a `RunConfig`, beside which nothing else
            is given.
        x: what Keras's fit takes: arrays, frames, a tf.data.Dataset, a PyDataset, a generator or a loader; also a tuple
            (x, y) or (x, y, sample_weight), a function that returns data, or a `tfscale.Source`. Under several workers
            give functions for `what` and `x`, and call `fit` before anything of TensorFlow: workers can only be joined
            before it starts.
        y, batch_size, epochs, validation_split, validation_data, shuffle, class_weight, sample_weight, initial_epoch,
            steps_per_epoch, validation_steps, validation_batch_size, validation_freq: as of Keras's fit. Batches are
            global, over all replicas and workers.
        verbose: 0 is quiet; all else shows the run's own progress.
        callbacks: as of Keras's fit; they are called between compiled loops.
        data, test: other names of x and validation_data.
        global_batch: as batch_size, and of a data set the size to which its batches are cut anew.
        until: the length of training, in the place of `epochs`: "5ep" epochs, "500st" steps.
        loss, optimizer, metrics: compile a bare model, as `model.compile` takes them; without `optimizer` it is Keras's
            own default, rmsprop.
        run_dir: the run's folder. Given again, the run goes on from its newest checkpoint, and a finished one says so;
            None makes a new one, runs/<model's name>/<time>.
        seed: given to Keras, NumPy and Python, as by `keras.utils.set_random_seed`, and of the order of arrays; None
            leaves them as the program left them.
        overrides: further configuration, as on the command line: ["checkpoint.every=1ep", "tracker=mlflow"].
        environ: where the cluster is read from.
        say: deprecated: receives the messages, which go through logging, to the logger "tfscale".

    Returns:
        What the run came to, with Keras's History in `history` and `epoch`; `model.history` is set, too. A model that
        was given holds the trained weights.

    Raises:
        TfscaleError: each with its exit code. Bad input is found before a step is made; bad configurations before
            TensorFlow is imported.
    """
    given = {name: value for name, value in locals().items() if name not in ("what", "environ", "say")}
    with _received(say):
        if isinstance(what, RunConfig):
            _refuse_beside_config(given)
            return fit_config(what, environ=environ)
        return fit_model(FitArguments(what, **_renamed(given)), environ=environ)


def fit_model(
    given: FitArguments, *, environ: Mapping[str, str] | None = None, settle: Callable[[Fit], None] = lambda fit: None
) -> Result:
    """`fit` of a model.

    Args:
        settle: is called with the run before it begins, and may say where its folder is.
    """
    with hints_in_python():
        run = as_run(given, environ=environ)
        settle(run)
        task = run.config.task
        try:
            result = fit_config(run.config, environ=environ, callbacks=run.callbacks)
        finally:
            if isinstance(task, GivenModel):
                task.placement.back()
        if isinstance(task, GivenModel) and result.status != "planned":
            bring_back(run.config, run.callbacks, given.model, result)
        return result


def _renamed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Under Keras's names; raises UsageError where both are given."""
    found = dict(given)
    for ours, theirs in (("data", "x"), ("test", "validation_data")):
        value = found.pop(ours)
        if value is not None and found[theirs] is not None:
            raise UsageError(f"{ours}= and {theirs}= say the same", where=ours, fix=f"give {theirs}= alone")
        found[theirs] = value if value is not None else found[theirs]
    return found


def _refuse_beside_config(given: Mapping[str, Any]) -> None:
    usual = {name: p.default for name, p in inspect.signature(fit).parameters.items()}
    names = [f"{name}=" for name, value in given.items() if value is not usual[name] and value != usual[name]]
    if names:
        raise UsageError(
            f"a configuration says everything itself, and {', '.join(names)} would change nothing",
            where=", ".join(names),
            fix='compose it with overrides, such as compose(["+recipe=resnet", "train.until=5ep"])',
        )


def _received(say: Callable[[str], None] | None) -> AbstractContextManager[None]:
    if say is None:
        return contextlib.nullcontext()
    warnings.warn(
        'fit(say=...) will go: messages are records of logging.getLogger("tfscale")', DeprecationWarning, stacklevel=3
    )
    return received(say)
