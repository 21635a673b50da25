"""Settings: which of them take effect where, so that none is accepted and then ignored.

Owns the refusal of what a command asks for and nothing would do. What a task or a source ignores of its own fields, it
says itself (`Task.ignored`, `Source.ignored`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

from tfscale.config.freezing_patterns import check_freezing
from tfscale.config.schema import OptimizerConfig, RunConfig
from tfscale.errors import UsageError

_UNCOMPILED = "leave it away, or give the model uncompiled: keras.models.load_model(FILE, compile=False).save(FILE)"
_OF_EVALUATION = ("eval.every", "eval.global_batch", "eval.split", "checkpoint.metric", "checkpoint.mode")
# What evaluation, prediction and export read of a trained run's configuration. Of train they read how much at once.
_LOOKING = ("task", "data", "plan", "eval", "debug", "extensions", "train.global_batch", "train.seed")


def refuse_ignored(config: RunConfig, task: Any = None, *, brings_optimizer: bool | None = None) -> None:
    """Refuses what is set and would take no effect in a training.

    Called before TensorFlow is there, and again once the model is built and more is known.

    Args:
        task: the task with its model built, in place of the configured one.
        brings_optimizer: whether it has its own optimizer; None: as far as it says so itself.

    Raises:
        UsageError: naming all of it.
    """
    check_freezing(config.task)
    task = config.task if task is None else task
    owns = task.brings_optimizer if brings_optimizer is None else brings_optimizer
    found = [(f"{part}.{name}", why) for part, thing in (("task", task), ("data", config.data))
             for name, why in thing.ignored().items()]  # fmt: skip
    found += _of_optimizer(config) if owns else []
    found += _of_run(config)
    if found:
        raise UsageError(
            "; ".join(f"{key}: {why}" for key, why in found),
            where=", ".join(key for key, _ in found),
            fix=_UNCOMPILED if owns and any(key.startswith("optimizer") for key, _ in found) else "leave it away",
        )


def _of_optimizer(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Every key that is set or differs from what nobody has set."""
    usual = OptimizerConfig()
    for field in dataclasses.fields(OptimizerConfig):
        key = f"optimizer.{field.name}"
        if key in config.overridden or getattr(config.optimizer, field.name) != getattr(usual, field.name):
            yield key, "the model is compiled and brings its own optimizer"


def _of_run(config: RunConfig) -> Iterator[tuple[str, str]]:
    train, run, told = config.train, config.run, config.overridden
    if train.rollback_factor != type(train)().rollback_factor and not train.max_rollbacks:
        yield "train.rollback_factor", "without train.max_rollbacks it changes nothing"
    if config.plan.micro_batch is not None and train.accumulate is not None:
        yield "plan.micro_batch", "train.accumulate says how many there are"
    if config.eval.beside_ema and train.ema is None:
        yield "eval.beside_ema", "without train.ema there are no other weights beside which to evaluate"
    if config.resume.allow_changed and config.resume.mode == "never":
        yield "resume.allow_changed", "with resume.mode=never there is nothing to compare with"
    if run.dir is not None and "run.root" in told:  # run.name still names it in the store and the tracker
        yield "run.root", "run.dir says where the run lives"


def refuse_without_test(config: RunConfig) -> None:
    """Refuses settings of the evaluation where the prepared data have nothing to evaluate; raises UsageError."""
    if config.data.num_examples(config.eval.split):
        return
    usual = RunConfig()
    keys = [key for key in _OF_EVALUATION if key in config.overridden and _at(config, key) != _at(usual, key)]
    if config.train.stop_patience is not None:
        keys.append("train.stop_patience")
    if keys:
        raise UsageError(
            f"the data have no {config.eval.split} split, so that nothing is evaluated and {', '.join(keys)} would do "
            "nothing",
            where=", ".join(keys),
            fix="give data with a test split, choose eval.split=train, or leave it away",
        )


def _at(config: RunConfig, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), config)


def refuse_training(told: Iterable[str]) -> None:
    """Refuses overrides of a trained run that only a training would heed.

    Args:
        told: the keys that the command sets.

    Raises:
        UsageError: naming all of them.
    """
    ignored = sorted(key for key in told if not any(key == one or key.startswith(f"{one}.") for one in _LOOKING))
    if ignored:
        raise UsageError(
            f"{', '.join(ignored)} would do nothing: the run is trained already",
            where=", ".join(ignored),
            fix="leave it away; the command that trains takes it",
        )
