"""The error of a run as an error of its data, with the example that it is about.

Owns what a run may have been reading when it failed. How examples are found is data/culprit.py's.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tfscale.errors import IOFailure, TfscaleError

if TYPE_CHECKING:
    from tfscale.assembly.parts import Parts
    from tfscale.data.culprit import Reading
    from tfscale.recovery.roll_back import Recovery


def as_data_error(parts: Parts | None, recovery: Recovery | None, error: Exception) -> TfscaleError | None:
    """DataCorrupt or DataMissing, naming the example where it can be found, or IOFailure where the data are out of
    reach; None for an error from elsewhere."""
    from tfscale.data.culprit import as_data_fault, culprit

    fault = as_data_fault(error)
    if fault is not None and not isinstance(fault, IOFailure) and parts is not None and recovery is not None:
        with contextlib.suppress(Exception):  # the fault itself is to be raised, whatever the search finds
            fault.where = culprit(parts.config.data, parts.task, _readings(parts, recovery), parts.plan) or fault.where
    return fault


def _readings(parts: Parts, recovery: Recovery) -> list[Reading]:
    """The steps that were read ahead of the state's, and the split that is evaluated."""
    from tfscale.data.culprit import Reading

    config, plan = parts.config, parts.plan
    first, *_ = recovery.data_steps(parts.state.step)
    ahead = plan.steps_per_loop + plan.prefetch + 2
    readings = [Reading("train", parts.shard(), True, config.train.seed, start_step=first, steps=ahead)]
    if config.data.num_examples(config.eval.split):
        shard, steps = parts.evaluation_shard()
        readings.append(Reading(config.eval.split, shard, False, steps=steps))
    return readings
