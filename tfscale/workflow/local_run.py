"""A workflow on this machine: each step a process, what is done is passed over, and what was broken off goes on.

Owns the order, what is tried again, and what the whole ends with. Refuses to know what a step does: it sees exit codes.

    run_here(LocalWorkflow(WorkflowRequest.of(words, own=OWN), Path("flows/digits")), refuse_bad_words)
"""

from __future__ import annotations

import contextlib
import functools
import logging
import shlex
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tfscale.console.messages import RESULT, bare
from tfscale.errors import (
    RETRYABLE,
    CheckFailed,
    TfscaleError,
    without_secrets,
)
from tfscale.files import digest_of, refuse_unwritable, write_whole
from tfscale.process.children import Child
from tfscale.process.logged_programs import Ended, LoggedPrograms
from tfscale.run_dir.lease import held_by, is_free
from tfscale.workflow.done_steps import FILE, DoneSteps, identity_of
from tfscale.workflow.installed import refuse_missing
from tfscale.workflow.step_graph import Shown, page_of, text_of
from tfscale.workflow.steps import NOT_BETTER, WATCH, Places, Step, left_out, read_by_training, train_and_deploy
from tfscale.workflow.workflow_request import WorkflowRequest

_log = logging.getLogger("tfscale.workflow")
_FIX = "choose another workflow.dir=FOLDER"
_AGAIN = "run the same command again: it goes on there"


@dataclass(frozen=True)
class LocalWorkflow:
    """A workflow in a folder.

    Attributes:
        retries: how often a step that was killed or preempted is begun again.
    """

    request: WorkflowRequest
    folder: Path
    retries: int = 3
    _identities: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @functools.cached_property
    def places(self) -> Places:
        """Data and runs lie below names that follow from the words and files that made them, so that a step that is
        begun again finds its own, and another one never finds them."""
        request, folder = self.request, self.folder
        data = digest_of([request.source, self.identity(request.source), request.importing]) if request.source else ""
        run = digest_of([request.train, data, *map(self.identity, read_by_training(request))])[:10]
        return Places(
            run=str(folder / "runs" / run),
            data=str(folder / "data" / data[:10]),
            report=str(folder / "reports" / f"{run}.html"),
            versions=str(folder / "served" / request.name),
        )

    @functools.cached_property
    def steps(self) -> list[Step]:
        return train_and_deploy(self.request, self.places)

    @property
    def serving(self) -> tuple[Step, Step, Step | None]:
        """The last ones: what serves, what tries it out, and what watches it, or None."""
        named = {step.name: step for step in self.steps}
        return named["serve"], named["smoke"], named.get(WATCH)

    def kept(self) -> DoneSteps:
        """What the folder says of the steps now."""
        return DoneSteps(self.folder, self.steps, self.identity)

    def identity(self, path: str) -> Any:
        """`identity_of`, as it was when it was first asked for: folders may hold a million files."""
        if path not in self._identities:
            self._identities[path] = identity_of(path)
        return self._identities[path]

    def shown(self) -> list[Shown]:
        """Every step, with where it stands now."""
        kept, busy = self.kept(), self.folder.is_dir() and not is_free(self.folder)
        found: list[Shown] = []
        for name, why in left_out(self.request).items():
            found.append(Shown(name, tuple(one.name for one in found[-1:]), "left out", why))
        for step in self.steps:
            needs = step.needs or tuple(one.name for one in found[-1:])
            found.append(Shown(step.name, needs, *_where(kept, step, busy), _command(step)))
        return found


def _command(step: Step) -> str:
    return without_secrets(f"tfscale {shlex.join(step.command)}")


def _where(kept: DoneSteps, step: Step, busy: bool) -> tuple[str, str]:
    """Its state and a note."""
    why, before = kept.why(step), kept.standing(step.name)
    if not why and before is not None:
        return "done", f"{before.when.replace('T', ' ')}, {before.seconds:.0f} s"
    if before is None or why not in ("was broken off", "was refused", f"ended with {before.code}"):
        return "to do", why
    if before.state == "running":
        return ("running", f"since {before.when.replace('T', ' ')}") if busy else ("broken off", "goes on there")
    return before.state, before.line


def run_here(flow: LocalWorkflow, refuse_bad_words: Callable[[Sequence[Step]], None]) -> None:
    """Does what is to be done.

    Args:
        refuse_bad_words: is asked about all steps before the first one runs, and raises what is wrong with their words.

    Raises:
        CheckFailed: the model isn't better than the present one; or a step's own check.
        OutputError: the folder can't be written, or another workflow is at work there.
        Preempted, Interrupted: a signal ended it; the same command goes on.
        TfscaleError: of the step that failed, with its exit code.
    """
    refuse_unwritable(flow.folder / FILE, where="workflow.dir", fix=_FIX)
    kept = flow.kept()
    to_do = [step for step in flow.steps if kept.why(step)]
    refuse_missing(filter(None, flow.serving) if flow.request.keep_serving and not to_do else to_do)
    if to_do:
        refuse_bad_words(flow.steps)
    with LoggedPrograms(flow.folder / "logs", where="workflow.dir") as processes:
        try:
            with held_by("workflow", flow.folder):
                walk = _Walk(flow, processes)
                server = walk.walk()
        finally:
            shown = flow.shown()
            _log.log(RESULT, text_of(shown), extra=bare("workflow", steps=_states(shown)))
            with contextlib.suppress(OSError):  # a full disk must not hide the cause
                _write_page(flow, shown)
        if server is not None:  # others may work in the folder meanwhile
            walk.stay(server)


def _write_page(flow: LocalWorkflow, shown: Sequence[Shown]) -> None:
    page = page_of(f"{flow.request.name}: train_and_deploy", shown)
    write_whole(flow.folder / "workflow.html", page.encode())


def _states(steps: Sequence[Shown]) -> dict[str, str]:
    return {step.name: step.state for step in steps}


class _Walk:
    """One pass over the steps."""

    def __init__(self, flow: LocalWorkflow, processes: LoggedPrograms):
        self._flow, self._processes, self._kept = flow, processes, flow.kept()

    def walk(self) -> Child | None:
        """Returns the server where it is to go on."""
        for name, why in left_out(self._flow.request).items():
            _log.info(f"{name} is left out: {why}")
        last = self._flow.serving
        for step in self._flow.steps:
            if step not in last:
                self._do(step)
        return self._serve(*last)

    def _do(self, step: Step) -> None:
        why = self._kept.why(step)
        if not why:
            _log.info(f"{step.name}: done before")
            return
        for left in range(self._flow.retries, -1, -1):
            self._began(step, why)
            ended = self._processes.run(step.name, step.command)
            if ended.code == 0:
                self._done(step, ended)
                return
            self._refuse_stopped(step)
            if step.may_refuse and ended.code == NOT_BETTER:
                self._ended(step, "refused", ended)
                raise self._refusal(step, ended)
            why = self._tried(step, ended, left)

    def _refusal(self, step: Step, ended: Ended) -> CheckFailed:
        name, where = self._flow.request.name, str(self._processes.log_of(step.name))
        if step.name != WATCH:
            fix = "train a better model; deploy, serve and smoke had nothing to do"
            return CheckFailed(f"{name} goes on as it is: {ended.told[0]}", where=where, fix=fix)
        for one in self._flow.steps:
            if one.name == "promote":  # it no longer holds: the same command must not serve the model again
                self._ended(one, "refused", ended)
        return CheckFailed(f"{name} didn't hold: {ended.told[0]}", where=where, fix=ended.told[1])

    def _serve(self, serve: Step, smoke: Step, watch: Step | None) -> Child | None:
        """Serves what was deployed, tries it out, watches it where that was asked for, and ends the server unless it is
        to go on."""
        keep, url = self._flow.request.keep_serving, _url(smoke)
        line = _command(serve)
        why = self._kept.why(smoke) or (watch is not None and self._kept.why(watch)) or ""
        if not why and not keep:
            _log.info(f"serve, smoke{', watch' * (watch is not None)}: done before")
            _log.log(RESULT, f"serve it: {line}")
            return None
        there = _listens(url)
        if there:
            _log.info(f"serve: a server is at {url} already, and takes a newer version by itself")
        server = self._tried_out(serve, smoke, None if there else line, why)
        held = False
        try:
            if watch is not None:  # without the server beside it: that it is gone is for the watch to see
                self._do(watch)
            held = True
        finally:
            if server is not None and not (keep and held) and self._processes.ended(server) is None:
                self._processes.stop(server)
        if server is not None and keep:
            return server
        if server is not None:
            _log.log(RESULT, f"serve it: {line}")
        return None

    def _tried_out(self, serve: Step, smoke: Step, line: str | None, why: str) -> Child | None:
        """The server, after it has answered right; None where it is somebody else's.

        Args:
            line: the command that starts it, None where it is there already.
        """
        for left in range(self._flow.retries, -1, -1):
            server = None
            if line is not None:
                self._began(serve, why or "is to stay")
                server = self._processes.start(serve.name, serve.command, shows=False)
            self._began(smoke, why or "the server is new")
            ended, gone = self._processes.run(smoke.name, smoke.command, beside=server), None
            if ended.code == 0:
                self._kept.ended(serve, "done", seconds=0.0, line="")
                self._done(smoke, ended)
                return server
            self._refuse_stopped(smoke)
            if server is not None:
                gone = self._processes.ended(server)
                if gone is None:
                    self._processes.stop(server)
            why = self._tried(serve if gone else smoke, gone or ended, left)
        raise AssertionError  # the last try raises

    def stay(self, server: Child) -> None:
        """Waits for the end of the server, which a signal brings; raises what it ended with otherwise."""
        serve, smoke, _ = self._flow.serving
        _log.log(RESULT, f"serves at {_url(smoke)} until Ctrl-C or SIGTERM")
        while (ended := self._processes.ended(server)) is None:
            self._processes.pump()
        if ended.code or self._processes.signum is None:
            raise self._failure(serve, ended)

    def _began(self, step: Step, why: str) -> None:
        self._refuse_stopped(step)
        _log.info(f"{step.name}: {why}; {_command(step)}")
        self._kept.began(step)
        _write_page(self._flow, self._flow.shown())

    def _done(self, step: Step, ended: Ended) -> None:
        self._ended(step, "done", ended)
        _log.log(RESULT, f"{step.name} ✓ {ended.seconds:.0f} s: {ended.line}")
        self._refuse_stopped(step)

    def _ended(self, step: Step, state: str, ended: Ended) -> None:
        self._kept.ended(step, state, seconds=ended.seconds, line=ended.line, code=ended.code)
        _write_page(self._flow, self._flow.shown())

    def _tried(self, step: Step, ended: Ended, left: int) -> str:
        """Why it is begun again; raises what it ended with where that is of no use."""
        if ended.code not in RETRYABLE or not left:
            self._ended(step, "failed", ended)
            raise self._failure(step, ended)
        _log.warning(f"{step.name} ended with {ended.code}: {ended.told[0]}; {left} more tries")
        return f"ended with {ended.code}"

    def _refuse_stopped(self, step: Step) -> None:
        self._processes.refuse_stopped(f" at the step {step.name}", fix=_AGAIN)

    def _failure(self, step: Step, ended: Ended) -> TfscaleError:
        what, fix = ended.told
        return ended.kind(
            f"the step {step.name} ended with {ended.code}: {what}",
            where=str(self._processes.log_of(step.name)),
            fix=fix or _AGAIN,
        )


def _url(smoke: Step) -> str:
    return smoke.command[1].partition("=")[2]


def _listens(url: str) -> bool:
    """Whether somebody takes connections there."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    with contextlib.suppress(OSError), socket.create_connection((parts.hostname or "", port), timeout=2):
        return True
    return False
