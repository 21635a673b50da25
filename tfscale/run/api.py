"""fit: what people call. Owns whether they gave a configuration or a model; refuses to know how either is trained."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, overload

from tfscale.config.schema import RunConfig
from tfscale.console.messages import received
from tfscale.run.attempt import fit_config
from tfscale.run.keras_fit import fit_model, refuse_beside_config
from tfscale.run_dir.result import Result


@overload
def fit(
    what: RunConfig,
    *,
    environ: Mapping[str, str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Result: ...


@overload
def fit(
    what: Any,
    data: Any,
    *,
    test: Any = None,
    until: str = "1ep",
    global_batch: int | None = None,
    steps_per_epoch: int | None = None,
    loss: Any = None,
    optimizer: Any = None,
    metrics: Sequence[Any] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Result: ...


def fit(
    what: Any,
    data: Any = None,
    *,
    environ: Mapping[str, str] | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Result:
    """Trains what a configuration describes, or a Keras model on people's own data.

    From a configuration: `fit(compose(["+recipe=resnet"]))`. It resumes where the run folder left off.

    From Python: `fit(model, data, test=test_data, until="5ep")`, the arguments being

        what: a compiled Keras 3 model, trained in place; or a function that returns one, which is called under the
            strategy's scope and the plan's precision; or a `tfscale.Task`.
        data: a tf.data.Dataset batched as for Keras's `fit`, with elements (x, y) or (x, y, sample_weight); or a tuple
            of NumPy arrays (x, y) or (x, y, sample_weight), each nested as the model takes it, the first axis counting
            examples; or a `tfscale.Source`. Arrays are shuffled anew in every epoch; a data set keeps its own order.
            Under several workers give functions for `what` and `data`, and call `fit` before anything of
            TensorFlow: workers can only be joined before it starts.
        test: the same kind of data, evaluated after every epoch (eval.every); None evaluates nothing.
        until: the length of training: "5ep" epochs, "500st" steps.
        global_batch: examples per step over all replicas; None: the data set's own, and 32 for arrays.
        steps_per_epoch: only for a training data set that never ends.
        loss, optimizer, metrics: compile a bare model, as `model.compile` takes them; without `optimizer` it is Keras's
            own default, rmsprop.
        run_dir: the run's folder. Given again, the run goes on from its newest checkpoint, and a finished one says so;
            None makes a new one, runs/<model's name>/<time>.
        seed: of the order of arrays; it also seeds Keras, NumPy and Python.
        overrides: further configuration, as on the command line: ["checkpoint.every=1ep", "tracker=mlflow"].

    Args:
        environ: where the cluster is read from.
        say: deprecated: receives the messages, which go through logging, to the logger "tfscale".

    Returns:
        What the run came to; a model that was given holds the trained weights.

    Raises:
        TfscaleError: each with its exit code. Bad input is found before a step is made; bad configurations before
            TensorFlow is imported.
    """
    with _received(say):
        if isinstance(what, RunConfig):
            refuse_beside_config({"data": data, **options} if data is not None else options)
            return fit_config(what, environ=environ)
        return fit_model(what, data, environ=environ, **options)


def _received(say: Callable[[str], None] | None) -> AbstractContextManager[None]:
    if say is None:
        return contextlib.nullcontext()
    warnings.warn(
        'fit(say=...) will go: messages are records of logging.getLogger("tfscale")', DeprecationWarning, stacklevel=3
    )
    return received(say)
