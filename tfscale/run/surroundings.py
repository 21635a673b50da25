"""Surroundings: what a session has around it. Refuses to know what a session does with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tfscale.process.stopping import Stopping
from tfscale.run_dir.attempts import Attempts
from tfscale.run_dir.lease import Claim
from tfscale.tracking.train_job import Status


@dataclass(frozen=True)
class Surroundings:
    """What a session has around it.

    Attributes:
        began: when `fit` began, by time.monotonic.
        say: receives what people should read.
        stopping: hears requests to stop.
        attempts: the book of the run's attempts.
        claim: the hold on the run folder.
        joining: a context for TensorFlow's joining the other workers.
        on_stop: called once all workers have agreed to stop.
        copy: called with a new checkpoint's folder, to copy it elsewhere.
        status: hears how far the run is.
    """

    began: float
    say: Callable[[str], None]
    stopping: Stopping
    attempts: Attempts
    claim: Claim
    joining: Callable[[], contextlib.AbstractContextManager[None]]
    on_stop: Callable[[], None]
    copy: Callable[[Path], None]
    status: Status
