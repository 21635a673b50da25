"""Contestants of `step.py` that train a Keras model: `tfscale.fit`, and Keras's own.

Both train in a thread, by epochs without end that wait for their turn, so that what a call costs isn't in a step.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

from benchmarks.side_by_side import Work
from benchmarks.step_models import BATCHES, DECAY, EPSILON, RATE, STEPS, build, data

ENDLESS = 10**6  # epochs


def ours(name: str, scratch: str, precision: str = "") -> Work:
    """Args: scratch: where its run folder lies; precision: that the model is built under; "" where nobody asks for one,
    and it is given as a user has it."""
    import tfscale

    never = [f"checkpoint.every={ENDLESS}ep", "tracker=none"]
    if precision:
        never.append(f"plan.precision={precision}")

    def fit(**how: Any) -> None:
        make = functools.partial(_made, name)
        tfscale.fit(make if precision else make(), run_dir=f"{scratch}/{os.getpid()}", overrides=never, **how)

    return _work(name, fit, how=f"tfscale.fit, {precision or 'as planned'}")


def keras_fit(name: str, policy: str, tuned: str) -> Work:
    """Args: tuned: "" as it is written, or "tuned": loops of as many steps as an epoch has, without XLA."""
    import keras

    keras.config.set_dtype_policy(policy)
    how = {"steps_per_execution": STEPS, "jit_compile": False} if tuned else {}

    def fit(**given: Any) -> None:
        _made(name, **how).fit(**given)

    told = ", ".join(f"{key}={value}" for key, value in how.items()) or "as written"
    return _work(name, fit, how=f"keras fit, {policy}, {told}")


def _made(name: str, **how: Any) -> Any:
    """The model, as everybody trains it."""
    import keras

    model, loss = build(name), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(RATE, weight_decay=DECAY, epsilon=EPSILON), loss=loss, **how)
    return model


def _work(name: str, fit: Callable[..., None], *, how: str) -> Work:
    """Args: fit: is given data, callbacks and everything that says how long."""
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

    x, y = data(name)

    def train() -> None:
        given = {"batch_size": BATCHES[name], "epochs": ENDLESS, "verbose": 0, "shuffle": False}
        try:
            fit(x=x, y=y, callbacks=[Turns()], **given)
        except BaseException as error:  # raised where it is waited for
            failed.append(error)
            done.release()

    threading.Thread(target=train, daemon=True).start()

    def run(steps: int) -> None:
        for _ in range(steps // STEPS):
            turns.release()
            done.acquire()
            if failed:
                raise failed[0]

    run(STEPS)
    parameters = sum(int(v.value.shape.num_elements()) for v in trained[0].trainable_variables)
    return Work(run, STEPS, {"parameters": parameters, "loss": losses[0], "how": how})
