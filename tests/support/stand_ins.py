"""Small programs that stand in for the processes of a job, and a launcher of its own for them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Every stand-in begins so: it knows its place, and `once(name)` is true only the first time.
HEAD = """
import json, os, pathlib, signal, sys, time
config = json.loads(os.environ["TF_CONFIG"])
me = "{type}:{index}".format(**config["task"])
def once(name):
    path = pathlib.Path(os.environ["PLACE"], name)
    return not path.exists() and not path.write_text("")
def wait_for(name):
    while not pathlib.Path(os.environ["PLACE"], name).exists():
        time.sleep(0.01)
"""


DRIVER = """
import sys
from tfscale.launch.process_group import ProcessGroup
from tfscale.launch.job import run_job
from tfscale.launch.slots import Job
job = Job(**{job!r})
labels = [f"{{r}}:{{i}}" for r, i in job.roles()]
with ProcessGroup([sys.executable, "-c", {code!r}], labels, stream=sys.stdout, write=lambda t: print(t, flush=True)) as group:
    outcome = run_job(job, group)
sys.exit(outcome.code)
"""


def driver(code: str, **job) -> list[str]:
    """A launcher in a process of its own."""
    return [sys.executable, "-c", DRIVER.format(job=job, code=HEAD + code)]


def of(label: str, lines: Sequence[str]) -> list[str]:
    return [text for name, _, text in (line.partition(" | ") for line in lines) if name.strip() == label]


def gone(pid: int, deadline: float = 5.0) -> bool:
    """Whether no such process runs; a zombie that nobody reaps is none."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (OSError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False
