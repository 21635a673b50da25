"""A pytest plugin for the processes that `run.py` starts: owns what stands in for Keras's `fit`, and what is told of each
test; refuses to know which tests there are and what is expected of them.

One record a line goes to the file that REPORT names: {"test", "phase": "begun"}, then {"test", "phase": "ended",
"outcome", "fits", "reason"}. So that it is known after a crash which test was at work.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

REPORT = "KERAS_SUITE_REPORT"
THROUGH = "KERAS_SUITE_THROUGH"  # "1": fit is tfscale's; otherwise Keras's own, and its calls are counted

_fits = 0


def fit(
    self: Any,
    x: Any = None,
    y: Any = None,
    batch_size: Any = None,
    epochs: Any = 1,
    verbose: Any = "auto",
    callbacks: Any = None,
    validation_split: Any = 0.0,
    validation_data: Any = None,
    shuffle: Any = True,
    class_weight: Any = None,
    sample_weight: Any = None,
    initial_epoch: Any = 0,
    steps_per_epoch: Any = None,
    validation_steps: Any = None,
    validation_batch_size: Any = None,
    validation_freq: Any = 1,
) -> Any:
    """`keras.Model.fit` by tfscale: Keras's arguments as they are, and its History back."""
    import tfscale

    tfscale.fit(
        self,
        x,
        y,
        batch_size=batch_size,
        epochs=epochs,
        verbose=verbose,
        callbacks=callbacks,
        validation_split=validation_split,
        validation_data=validation_data,
        shuffle=shuffle,
        class_weight=class_weight,
        sample_weight=sample_weight,
        initial_epoch=initial_epoch,
        steps_per_epoch=steps_per_epoch,
        validation_steps=validation_steps,
        validation_batch_size=validation_batch_size,
        validation_freq=validation_freq,
    )
    return self.history


def _counted(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    def counting(*arguments: Any, **named: Any) -> Any:
        global _fits
        _fits += 1
        return wrapped(*arguments, **named)

    return counting


def pytest_configure(config: pytest.Config) -> None:
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

    config.addinivalue_line("markers", "requires_trainable_backend: Keras's own; TensorFlow is one")
    TensorFlowTrainer.fit = _counted(fit if os.environ.get(THROUGH) == "1" else TensorFlowTrainer.fit)
    _stand_in_for_missing_modules()


def pytest_collection_finish() -> None:
    """What was only needed to import the tests goes again: Keras asks for JAX while it runs, too."""
    if getattr(sys.modules.get("jax"), "__file__", "") is None:
        del sys.modules["jax"]


def _stand_in_for_missing_modules() -> None:
    """trainer_test imports JAX for any backend; `conftest` lies at the root of Keras's repository, not in its wheel."""
    if importlib.util.find_spec("jax") is None:
        sys.modules["jax"] = types.ModuleType("jax")
        sys.modules["jax"].__file__ = None
    conftest = types.ModuleType("conftest")
    conftest.skip_if_backend = lambda name, reason: pytest.mark.skipif(name == "tensorflow", reason=reason)  # type: ignore[attr-defined]
    sys.modules.setdefault("conftest", conftest)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    global _fits
    _fits = 0
    _tell(test=item.nodeid, phase="begun")
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[pytest.TestReport]:
    report = yield
    if report.failed or report.skipped or report.when == "teardown":
        if not getattr(item, "_keras_suite_told", False):
            outcome = "passed" if report.passed else report.outcome
            reason = "" if report.passed or call.excinfo is None else _reason(call.excinfo.value)
            _tell(test=item.nodeid, phase="ended", outcome=outcome, fits=_fits, reason=reason)
        item._keras_suite_told = True  # type: ignore[attr-defined]
    return report


def _reason(error: BaseException) -> str:
    """One line: what it was, and, of a refusal of ours, with its exit code."""
    from tfscale.errors import TfscaleError

    text = " ".join(str(error).split())
    kind = f"refused ({error.exit_code})" if isinstance(error, TfscaleError) else type(error).__name__
    return f"{kind}: {text}"[:400]


def _tell(**record: Any) -> None:
    with open(os.environ[REPORT], "a") as file:
        file.write(json.dumps(record) + "\n")
