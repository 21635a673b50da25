"""Contestants of `step.py` that train a Keras model: `tfscale.fit`, and Keras's own.

Both train in a thread, by epochs without end that wait for their turn, so that what a call costs isn't in a step. All
are given one and the same endless data set and the steps of an epoch, since Keras then keeps one iterator over epochs:
each new one would wait for the thread of TensorFlow that tunes it.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import Work
from benchmarks.step_models import STEPS, compiled, data, spec

ENDLESS = 10**6  # epochs


def ours(name: str, scratch: str, precision: str = "") -> Work:
    """Args: scratch: where its run folder lies; precision: that the model is built under; "" where nobody asks for one,
    and it is given as a user has it."""
    import tfscale

    never = [f"checkpoint.every={ENDLESS}ep", "tracker=none"]
    if precision:
        never.append(f"plan.precision={precision}")
    run_dir = Path(scratch) / str(os.getpid())

    def fit(**how: Any) -> None:
        if precision:  # as functions, called once the plan is applied
            made: Any = functools.partial(compiled, name)
            x: Any = functools.partial(_dataset, name)
        else:
            made, x = compiled(name), _dataset(name)
        tfscale.fit(made, x=x, run_dir=run_dir, overrides=never, **how)

    def told() -> tuple[str, str]:
        plan = json.loads((run_dir / "plan.json").read_text())
        asked = "asked for" if precision else "as planned"
        how = f"tfscale.fit, {plan['precision']} {asked}, xla {plan['xla']}, deterministic {plan['deterministic']}"
        return plan["precision"], how

    return in_turns(fit, epoch=spec(name).epoch, told=told)


def keras_fit(name: str, policy: str, how: str) -> Work:
    """Args: how: "written"; "loops", of as many steps as an epoch has, without XLA; or "xla"."""
    import keras

    ways: dict[str, dict[str, Any]] = {
        "written": {},
        "loops": {"jit_compile": False, "steps_per_execution": spec(name).epoch},
        "xla": {"jit_compile": True},
    }
    options = ways[how]
    xla: list[bool] = []
    used: list[str] = []

    def fit(**given: Any) -> None:
        keras.config.set_dtype_policy(policy)  # here, since Keras keeps it for each thread
        model = compiled(name, **options)
        xla.append(bool(model.jit_compile))
        used.append(model.layers[-1].compute_dtype)
        model.fit(x=_dataset(name), **given)

    def told() -> tuple[str, str]:
        chosen = ", ".join(f"{key}={value}" for key, value in options.items()) or "as written"
        return used[0], f"keras fit, {policy}, {chosen}, XLA {'on' if xla[0] else 'off'}"

    return in_turns(fit, epoch=spec(name).epoch, told=told)


def _dataset(name: str) -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data(name)).batch(spec(name).batch, drop_remainder=True).repeat()


def in_turns(fit: Callable[..., None], *, epoch: int, told: Callable[[], tuple[str, str]]) -> Work:
    """Args: fit: is given callbacks and everything that says how long; epoch: steps of one, which divide STEPS; told:
    in which precision and how it was trained, once it was."""
    import keras

    turns, done = threading.Semaphore(0), threading.Semaphore(0)
    losses, failed, trained = [], [], []  # type: list[float], list[BaseException], list[Any]

    class Turns(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            turns.acquire()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            losses.append(float(logs["loss"]))
            trained[:] = [self.model]
            done.release()

    def train() -> None:
        try:
            fit(callbacks=[Turns()], epochs=ENDLESS, steps_per_epoch=epoch, verbose=0)
        except BaseException as error:  # raised where it is waited for
            failed.append(error)
            done.release()

    threading.Thread(target=train, daemon=True).start()

    def run(steps: int) -> None:
        for _ in range(steps // epoch):
            turns.release()
            done.acquire()
            if failed:
                raise failed[0]

    run(STEPS)
    parameters = sum(int(v.value.shape.num_elements()) for v in trained[0].trainable_variables)
    loss = sum(losses) / len(losses)  # of the first STEPS steps, all epochs being of the same length
    precision, how = told()
    facts = {"parameters": parameters, "loss": loss, "precision": precision.removeprefix("mixed_"), "how": how}
    return Work(run, epoch, facts)
