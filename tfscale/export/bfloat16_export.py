"""A trained run as SavedModel in bfloat16, which counts once another process has loaded it and its metrics hold.

Owns the order: build, write, ask a fresh process, measure what the precision costs. Refuses to know which values become
bfloat16, which is bfloat16_model.py's.

    about = write_bfloat16(run, folder, most_loss=0.01)      # folder/saved_model
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.errors import CheckFailed
from tfscale.export.export_folder import files_of, versions
from tfscale.export.lost_accuracy import measure
from tfscale.export.real_samples import Wanted, real_samples, served_fields
from tfscale.export.verified import described_signature, write_served
from tfscale.export.verify import ask, largest_difference
from tfscale.trained.restored_run import RestoredRun

# Of one graph in two processes: where threads add up in another order, numbers of 8 bits differ by this, and now and
# then an example has two classes that are as likely but for that
_SAME, _OTHERS = 0.05, 1 / 8


def write_bfloat16(run: RestoredRun, folder: Path, *, most_loss: float) -> dict[str, Any]:
    """Writes saved_model/, with the signature and the preprocessing of a float32 export; returns what export.json says.

    Raises:
        UsageError: the model can't be built in bfloat16, or nothing measures what that costs.
        CheckFailed: it doesn't load without tfscale, answers otherwise there, or loses more than `most_loss`.
    """
    import tensorflow as tf

    from tfscale.export.bfloat16_model import in_bfloat16
    from tfscale.export.keras_file import in_full_precision
    from tfscale.export.live_answers import keras_answers, preprocessed_samples, rows_of
    from tfscale.export.saved_model import Served
    from tfscale.export.signature import feed
    from tfscale.runtime import global_state as runtime

    task = run.task
    samples = real_samples(task, run.source, Wanted(run.plan, run.config.train.seed, run.config.export.examples))
    samples = served_fields(task, samples)
    with tf.device("CPU:0"), runtime.exact_policy():  # the process that checks has no accelerator either
        exact = in_full_precision(task, run.state.model)
        inputs = feed(task, exact, preprocessed_samples(task, samples))
        wanted, _ = keras_answers(task, exact, inputs)
    with tf.device("CPU:0"):
        model = in_bfloat16(task, exact)
        served = Served(task, model, inputs)
        raw = write_served(served, folder, samples, inputs)
        expected = served.answered(raw, rows=rows_of(task))
        found, _ = keras_answers(task, model, inputs)
    said = ask(folder, None, raw, imports=task.served_with, rows=rows_of(task))
    check_same(expected, said)
    lost = measure(run, exact, lambda inputs: model(inputs, training=False), most_loss=most_loss)
    # of the model's own outputs: what a task makes of them may be a class, or boxes in another order
    off = max(largest_difference(value, found[name]) for name, value in wanted.items())
    return {
        **described_signature(task, served),
        "precision": "bfloat16",
        "live_precision": run.state.model.dtype_policy.name,
        "samples": samples.count,
        "split": samples.split or None,
        "differences": {"saved_model": off},
        "loss_of_precision": lost,
        "versions": versions(),
        "files": files_of(folder),
    }


def check_same(expected: Mapping[str, np.ndarray], said: Mapping[str, np.ndarray]) -> None:
    """Raises CheckFailed: an output is absent, of another shape or type, or says something else of many examples."""
    wrong, others = [], np.zeros(len(next(iter(expected.values()))), bool)
    for name, value in expected.items():
        other = said.get(name)
        if other is None or (other.shape, other.dtype) != (value.shape, value.dtype):
            there = "nothing" if other is None else f"{other.dtype}{list(other.shape)}"
            wrong.append(f"{name}: {there} in place of {value.dtype}{list(value.shape)}")
        else:
            others |= [_is_other(*pair) for pair in zip(value, other, strict=True)]
    if np.mean(others) > _OTHERS:
        wrong.append(f"{np.count_nonzero(others)} of {len(others)} examples are answered otherwise")
    if wrong:
        raise CheckFailed(
            f"the exported model answers otherwise than the one in this process: {'; '.join(wrong)}",
            where="precision",
            fix="nothing was exported; leave precision away, and report this with the task's code",
        )


def _is_other(one: Any, other: Any) -> bool:
    """Whether two answers to an example differ by more than rounding; also where they are no numbers."""
    a, b = np.asarray(one), np.asarray(other)
    if a.dtype.kind != "f":
        return not np.array_equal(a, b)
    return bool(a.size) and not np.max(np.abs(a - b)) <= _SAME * max(1.0, np.max(np.abs(a)))
