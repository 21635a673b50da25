"""One prediction by several processes of this machine: `tfscale predict ... predict.workers=N`.

Owns the words of a prediction, and how its processes are started. Refuses to know what they write.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from tfscale.cli import Program, choice, place, whole
from tfscale.console.messages import shown
from tfscale.errors import UsageError
from tfscale.hardware import probe
from tfscale.launch.job import run_job
from tfscale.launch.process_group import ProcessGroup
from tfscale.launch.slots import Job
from tfscale.launch.workers import error_of

_GRACE = 1.0  # seconds that the others get when one has failed: what they have written is kept


def prediction_program(name: str, about: str, *, example: str) -> Program:
    """A program that takes the words of a prediction; raises what `Program.parse` does."""
    program = Program(name, about, example=example)
    program.trained_run()
    program.word(
        "output",
        "FILE",
        "what is written: FILE.jsonl, FILE.parquet; with / behind, its parts",
        type=place,
        required=True,
    )
    program.word("input", "PATH", "data without labels, in place of the run's own", type=place)
    program.word("split", "test|train", "of the run's own data", type=choice("test", "train"), default="test")
    program.word("predict.part", "ROWS", "rows of one part, which a killed command keeps", type=whole, default=1024)
    text = "processes that share the parts: of this machine, or those that a launcher has started"
    program.word("predict.workers", "N", text, type=whole)
    return program


def launch_prediction(
    words: Sequence[str],
    workers: int,
    *,
    log_format: str = "auto",
    write: Callable[[str], None] = print,
    stream: TextIO | None = None,
) -> None:
    """Runs the same command in so many processes, each with cores and GPUs of its own.

    Args:
        words: those of the command behind `tfscale predict`; each process finds by TF_CONFIG which share is its.

    Raises:
        UsageError: there are GPUs, and fewer than workers.
        TfscaleError: of the class that belongs to the code of the first process that failed, which is named.
    """
    gpus = len(probe(environ=os.environ).gpus)
    if 0 < gpus < workers:
        text = f"{workers} workers, and this machine has {gpus} GPU{'s' if gpus > 1 else ''}: each takes one for itself"
        fix = f"use predict.workers={gpus}; with CUDA_VISIBLE_DEVICES=-1 the cores predict"
        raise UsageError(text, where="predict.workers", fix=fix)
    job = Job(workers, grace=_GRACE)
    labels = [f"{role}:{index}" for role, index in job.roles()]
    command = [sys.executable, "-m", "tfscale.predict", *words]
    with shown(log_format), ProcessGroup(command, labels, write=write, stream=stream) as group:
        outcome = run_job(job, group)
    if outcome.code:
        raise error_of(outcome, again="it goes on with the parts that are there")
