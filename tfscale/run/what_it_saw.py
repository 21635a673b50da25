"""What the model saw: the part of a result that is about the data.

Owns which data, which splits and which steps are counted. How, is data/seen.py's.
"""

from __future__ import annotations

import logging
from typing import Any

from tfscale.assembly.parts import Parts
from tfscale.data.keras_source import KerasSource
from tfscale.errors import TfscaleError, first_line
from tfscale.recovery.roll_back import data_address
from tfscale.run.tracked import about_data

_log = logging.getLogger(__name__)


def what_it_saw(parts: Parts) -> dict[str, Any]:
    """`Result.data` of a run that has ended; whatever goes wrong is reported and ends nothing: the run is over."""
    about: dict[str, Any] = {}
    try:
        about.update(about_data(parts.config, parts.run_dir))
        about.update(_counted(parts))
    except Exception as error:
        kind = "" if isinstance(error, TfscaleError) else f"{type(error).__name__}: "
        _log.warning(f"what the model saw of the data can't be counted: {kind}{first_line(error)}")
    return about


def _counted(parts: Parts) -> dict[str, Any]:
    from tfscale.data.order import Portion, Shard
    from tfscale.data.seen import held, shown, why_uncounted

    config, source, step = parts.config, parts.config.data.resolved(), parts.state.step
    if isinstance(source, KerasSource):
        return {}  # read as Keras does, by what people gave
    there = [split for split in ("train", "test") if source.by_index and source.num_examples(split)]
    splits = {split: held(source, split) for split in there}
    if parts.asynchronous or not source.by_index:
        # an order of their own, or none: as many steps as there were, of which a lost worker may have repeated some
        batches = 0 if source.whole_epochs else step * config.train.global_batch
        return {"splits": splits, **({"seen": {"examples": batches}} if batches else {})}
    steps, skipped = data_address(parts.state.memory, step)
    portion = Portion("train", Shard(config.train.global_batch), True, config.train.seed, skip=skipped)
    seen = shown(source, portion, steps=steps)
    if source.class_names() and "labels" not in seen:
        _log.info(f"the labels that the model saw aren't counted: {why_uncounted(source, 'train')}")
    return {"splits": splits, "seen": seen}
