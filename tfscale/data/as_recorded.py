"""A run that began with another way to read pictures (`Source.reading`) goes on with it.

Owns finding out how the run in a folder began, and setting a configuration to that. Refuses to know what the ways are.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable
from typing import Any

from tfscale.config.schema import RunConfig
from tfscale.data.source import READING, Source
from tfscale.errors import TfscaleError
from tfscale.run_dir.folder import RunDir

_log = logging.getLogger(__name__)

SPEC, _KEY, _FIRST = "spec.json", "reading", 1  # the first way had no name


def spec_of(source: Any) -> dict[str, Any]:
    """What a run writes down of its data, for `recorded_reading` and for tasks: the source's spec and its reading."""
    return {**source.spec(), _KEY: getattr(source, "reading", READING)}


def recorded_reading(run_dir: RunDir) -> int | None:
    """How the run in a folder reads pictures; None where no run has begun there."""
    spec = run_dir.read_json(SPEC)
    begun = spec is not None or run_dir.checkpoints.is_dir() or (run_dir.path / "result.json").is_file()
    return int((spec or {}).get(_KEY, _FIRST)) if begun else None


def go_on_as_recorded(config: RunConfig, locate: Callable[[RunConfig], RunDir]) -> None:
    """Lets a run that is there already read its data as it began, under the name that it had then."""
    former = config.data.former()
    found = None
    if config.resume.mode != "auto":
        return
    for data in (config.data, former):
        if data is not None and found is None:
            with contextlib.suppress(TfscaleError, OSError):  # what is wrong with the data is reported by their check
                other = copy.copy(config)
                other.data = data
                found = recorded_reading(locate(other))
    if found is None or found == config.data.reading:
        return
    config.data = read_as(config.data, config.task, found)
    if former is not None:
        _log.info(
            "this run began before pictures were known by their content and turned as EXIF\n"
            "  says: it goes on as it began (resume.mode=never or another run.name starts anew)"
        )


def read_as(source: Source, task: Any, reading: int, *, only_task: bool = False) -> Source:
    """The source that reads like this, for a task that is set to decode like this.

    Args:
        only_task: whether the source is another than the one that was trained on, and is read as any is now.
    """
    if reading != source.reading and not only_task:
        source = source.former() or source
        source.reading = reading
    if hasattr(task, _KEY):
        task.reading = reading
    return source
