"""Blame: the error of a session said as an error of its data, with the example that it is about.

Owns what a session may have been reading when it failed. How examples are found is data/blame.py's.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from tfscale.errors import TfscaleError

if TYPE_CHECKING:
    from tfscale.data.culprit import Reading
    from tfscale.run.session import Session


def blamed(session: Session, error: Exception) -> TfscaleError | None:
    """DataCorrupt or DataMissing, naming the example where it can be found; None for an error from elsewhere."""
    from tfscale.data.culprit import as_data_fault, culprit

    fault = as_data_fault(error)
    if fault is not None and hasattr(session, "recovery"):
        with contextlib.suppress(Exception):  # the fault itself is to be told, whatever the search meets
            fault.where = culprit(session.config.data, session.task, _readings(session)) or fault.where
    return fault


def _readings(session: Session) -> list[Reading]:
    """The steps that were read ahead of the state's, and the split that is evaluated."""
    from tfscale.data.culprit import Reading

    config, plan = session.config, session.plan
    first, *_ = session.recovery.data_steps(session.state.step)
    ahead = plan.steps_per_loop + plan.prefetch + 2
    readings = [Reading("train", session.shard, True, config.train.seed, start_step=first, steps=ahead)]
    if config.data.num_examples(config.eval.split):
        shard = session._shard(config.eval.global_batch or config.train.global_batch)
        steps = math.ceil(config.data.count_steps(config.eval.split, shard.global_batch))
        readings.append(Reading(config.eval.split, shard, False, steps=steps))
    return readings
