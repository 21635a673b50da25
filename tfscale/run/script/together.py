"""A script that every worker of a cluster runs, from its first line to its last.

Owns what is different from running it alone: what is refused, where others than the chief write and print, and how all
of them end. Refuses to know what they agree on.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.cluster import Cluster
from tfscale.errors import ClusterFault, TfscaleError, UsageError
from tfscale.files import kernel_lock
from tfscale.hooks.script_hooks import before_folders, guard_downloads
from tfscale.hooks.tensorflow_hooks import set_determinism
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.run.script.journal import FITS, Journal
from tfscale.run.script.keras_calls import KerasCalls
from tfscale.run.script.members import Members, joined_script
from tfscale.run.script.program import Program, execute, refused
from tfscale.run.script.refusals import cluster_settings, refuse_alone, without_fits
from tfscale.run.script.scratch import Scratch, straight


@dataclass(frozen=True)
class Script:
    """One script and how it was asked to run.

    Attributes:
        options: of the command line.
    """

    program: Program
    arguments: list[str]
    plan: ExecutionPlan
    options: argparse.Namespace
    journal: Journal

    def execute(self) -> None:
        """Raises SystemExit and KeyboardInterrupt as the script does."""
        execute(self.program, self.arguments, whole_traceback="debug.traceback=true" in self.options.override)


def run_with_others(script: Script, cluster: Cluster) -> int:
    """Runs it in this process and its peers; returns its exit code, or raises SystemExit as it does."""
    deterministic = script.options.deterministic
    try:
        settings = cluster_settings(script.options.override)
        joined = joined_script(cluster, script.plan, script.program.name, settings, seeded=not deterministic)
        with joined as members:
            set_determinism(deterministic)
            end = _run(script, members)
    except TfscaleError as error:
        return refused(error)
    script.journal.ended = True
    if end is not None:
        raise end
    return 0


def _run(script: Script, members: Members) -> SystemExit | None:
    """The end that the script gave itself where all is well."""
    calls, end = KerasCalls(script.journal, script.options.override, members), None
    calls.install()
    refuse_alone(lambda: calls.busy > 0)
    guard_downloads(_one_at_a_time)
    process = os.getpid()  # a child of the script's meets nobody
    before_folders(lambda: None if calls.busy or os.getpid() != process else members.meet("a folder of examples"))
    try:
        with _apart(script, members, resumes=members.of_chief(script.journal.resumes)):
            script.execute()
    except SystemExit as error:
        if error.code not in (None, 0):
            members.leave(_parted(error))
            raise
        end = error
    except BaseException as error:
        members.leave(_parted(error))
        raise
    if not calls.count:
        raise without_fits(script.program.name)
    return end


@contextlib.contextmanager
def _apart(script: Script, members: Members, *, resumes: bool) -> Iterator[None]:
    """What others than the chief write and print.

    Args:
        resumes: whether the chief goes on with a start that was interrupted, whose files they find again.
    """
    if members.is_chief:
        yield
        return
    place = script.journal.run_dir.path
    if script.options.prints_of_others:
        folder = Path(script.options.prints_of_others)
        folder.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        file = os.open(folder / f"worker-{members.rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, 1)
        os.close(file)
    scratch = place / "scratch" / str(members.rank)
    if not resumes:
        shutil.rmtree(scratch, ignore_errors=True)
    fits = re.escape(os.path.abspath(place) + os.sep) + FITS
    with Scratch(scratch, but=fits).led():
        yield


_downloading = threading.local()


def _one_at_a_time(download: Callable[..., Any]) -> Callable[..., Any]:
    """The second process of this host finds what the first has brought."""

    @functools.wraps(download)
    def locked(*args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as stack:
            if not getattr(_downloading, "held", False):  # one download may call another
                file = f"{tempfile.gettempdir()}/tfscale-downloads-{os.getuid()}.lock"
                held = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
                stack.callback(os.close, held)
                kernel_lock(held, wait=True)
                _downloading.held = True
                stack.callback(setattr, _downloading, "held", False)
            stack.enter_context(straight())
            return download(*args, **kwargs)

    return locked


def member_of(cluster: Cluster) -> bool:
    """Whether this process runs the script with others; raises UsageError for a role that trains nothing."""
    if cluster.role in ("ps", "evaluator"):
        raise UsageError(
            f"a script is run by training processes, and this one is {cluster.role}:{cluster.index}",
            where="cluster",
            fix="give the job workers alone",
        )
    return cluster.is_multi_worker


def _parted(error: BaseException) -> TfscaleError:
    """What the other workers hear of a script that has ended by itself and not well."""
    if isinstance(error, SystemExit):
        return getattr(error, "error", None) or ClusterFault(
            f"its script ended with exit code {error.code}", where="script", fix="see its log"
        )
    return ClusterFault(f"its script ended by {type(error).__name__}", where="script", fix="see its log")
