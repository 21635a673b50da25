"""A script in several processes on this machine: `tfscale run --workers N script.py`.

Owns how they are started and what people see of them: the chief's output as it is, what others print in files. Refuses
to know what they run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tfscale.console.messages import shown
from tfscale.launch.job import run_job
from tfscale.launch.process_group import ProcessGroup
from tfscale.launch.slots import Job

PRINTS = "--prints-of-others"  # an option that only this launcher gives


def launch_script(words: Sequence[str], workers: int, *, max_restarts: int, where: Path) -> int:
    """Runs the same command in so many workers; returns the job's exit code.

    Args:
        words: those of the command behind `tfscale run`.
        where: a folder for what all but the chief print.
    """
    job = Job(workers, max_restarts=max_restarts)
    labels = [f"{role}:{index}" for role, index in job.roles()]
    command = [sys.executable, "-m", "tfscale.run", PRINTS, str(where), *words]
    with (
        shown("auto"),
        ProcessGroup(command, labels, write=_write, stream=sys.stdout) as group,
    ):
        group.screen.bare = labels[0]
        return run_job(job, group).code


def _write(line: str) -> None:
    print(line, flush=True)
