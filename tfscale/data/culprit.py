"""What TensorFlow's errors say about the data, and which example one of them is about: the errors don't name it.

Owns that reading, and the search for the example, one by one from the step that failed. Refuses to know who trains.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

import tensorflow as tf

from tfscale.autograph import no_autograph
from tfscale.data.order import Portion
from tfscale.data.pipeline import finisher_of, places
from tfscale.data.source import Source
from tfscale.errors import DataCorrupt, DataMissing, IOFailure, first_line, place_of
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.task import Task

_BEYOND = re.compile(r"label value of (-?\d+) which is outside the valid range of \[(\d+, \d+)\)")
# An error of ours from Python that TensorFlow called, as it passes it on: class, what, where and fix.
_OURS = re.compile(r"(DataCorrupt|DataMissing|IOFailure): (.+?) \| (.+?) \| (.+)")
_KINDS = {kind.__name__: kind for kind in (DataCorrupt, DataMissing, IOFailure)}
_SECONDS = 30.0  # that a search may take; what is found later helps nobody more than a retry


@dataclass(frozen=True)
class Reading(Portion):
    """What this worker may have been reading when it failed: so many steps of a portion."""

    steps: int | None = 1


def as_data_fault(error: Exception) -> DataCorrupt | DataMissing | IOFailure | None:
    """What an error of TensorFlow says about the data, or None if it came from elsewhere."""
    if isinstance(error, tf.errors.OpError) and (told := _OURS.search(error.message)):
        return _KINDS[told[1]](told[2], where=told[3], fix=told[4])
    if isinstance(error, tf.errors.NotFoundError) and "ReadFile" in error.message:
        return DataMissing(f"a file is gone: {first_line(error)}", where="data", fix="put it back")
    if isinstance(error, tf.errors.InvalidArgumentError) and (label := _BEYOND.search(error.message)):
        return DataCorrupt(
            f"a label is {label[1]}, and the model has outputs for the classes {label[2]}",
            where="data",
            fix="correct the label, or give the model an output for every class; classes count from 0",
        )
    if not isinstance(error, tf.errors.OpError) or "IteratorGetNext" not in error.message:
        return None
    if place := place_of(error):  # a function of the user's, behind tf.data
        return DataCorrupt(
            f"a function that makes the data failed: {first_line(error)}",
            where=place,
            fix="correct it and start again",
        )
    if not isinstance(error, tf.errors.DataLossError | tf.errors.InvalidArgumentError):
        return None
    return DataCorrupt(
        f"an example can't be read or decoded: {first_line(error)}",
        where="data",
        fix="find and replace the damaged file; preparing the data set again checks every record",
    )


def culprit(
    source: Source, task: Task, readings: Iterable[Reading], plan: ExecutionPlan, *, seconds: float = _SECONDS
) -> str | None:
    """Where the first example comes from that can't be read or prepared now; None where all can, or time is over."""
    deadline = time.monotonic() + seconds
    for reading in readings:
        found = _search(source, task, reading, plan, deadline) if source.by_index else None
        if found is not None:
            return found
    return None


def _search(source: Source, task: Task, reading: Reading, plan: ExecutionPlan, deadline: float) -> str | None:
    steps = places(source, reading)
    raw = source.read(reading.split, steps.map(no_autograph(lambda place: place["index"])), ram_bytes=0)
    finish = finisher_of(source, task, reading, plan)
    examples = iter(tf.data.Dataset.zip((steps.unbatch(), raw)).map(finish))
    number = 0
    while time.monotonic() < deadline:
        try:
            next(examples)
        except StopIteration:
            return None
        except tf.errors.OpError:
            place = next(iter(steps.unbatch().skip(number)))["index"]
            return source.locate(reading.split, int(place))
        number += 1
    return None
