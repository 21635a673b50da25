"""Jobs of stand-ins."""

from __future__ import annotations

import os
import sys

import pytest
from support.stand_ins import HEAD

from tfscale.launch.job import Outcome, run_job
from tfscale.launch.process_group import ProcessGroup
from tfscale.launch.slots import Job


@pytest.fixture
def environ(tmp_path):
    return {**os.environ, "PLACE": str(tmp_path)}


@pytest.fixture
def launched(environ):
    """Runs a job whose processes run this code; returns its outcome and all lines."""

    def run(code: str, **job) -> tuple[Outcome, list[str]]:
        lines: list[str] = []
        what = Job(**job)
        labels = [f"{role}:{index}" for role, index in what.roles()]
        with ProcessGroup([sys.executable, "-c", HEAD + code], labels, environ=environ, write=lines.append) as group:
            outcome = run_job(what, group)
        return outcome, lines

    return run
