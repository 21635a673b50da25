"""Attempts: the log of a run's attempts, attempts.jsonl in the run folder.

Owns its lines, and refuses an attempt where those before it failed alike. Refuses to know what a second of training is
worth: goodput.py reads that out of the lines.

    attempts = Attempts(run_dir, began=began)
    attempts.start()
    attempts.refuse_without_progress()
    attempts.begin(step)                           # restored: training goes on from here
    attempts.note(step, committed, clock.seconds)  # at every report, evaluation and save
    attempts.ended(0)

Every line is a JSON object with kind, attempt (its number), wall (the time of day) and elapsed (seconds since the
attempt's process began, which no change of the clock disturbs). A kill can tear the last line, and readers skip it.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfscale.errors import (
    KILLED,
    CheckpointUnusable,
    ClusterFault,
    InternalError,
    Interrupted,
    IOFailure,
    Preempted,
    without_secrets,
)
from tfscale.files import dumps, open_plain, parse_json, read_plain
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.manifest import steps

NAME = "attempts.jsonl"
_PATIENCE = 3  # attempts
_ENDED_FROM_OUTSIDE = (Interrupted.exit_code, KILLED, Preempted.exit_code)
_NOT_RETRIED = (64, 66, 73, 76, 77, 78)  # a person has to mend these first
_LOST = re.compile(r"peer \S+ (was lost|is silent|has ended)|the workers lost each other")
# Seconds between two notes: at most one in a hundred of the attempt's own, so that the log of a month is short
_OFTEN, _SELDOM = 0.5, 0.01


class Attempts:
    """The attempt log of one run, open for the attempt that begins now. A folder for reading takes no lines.

    Args:
        began: when this attempt's process began, by `now`.
    """

    def __init__(
        self,
        run_dir: RunDir,
        *,
        began: float | None = None,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ):
        self._run_dir, self._wall, self._now = run_dir, wall, now
        self._began = now() if began is None else began
        with contextlib.suppress(IOFailure):  # a full disk: they are left out again next time
            run_dir.sift(NAME, lambda line: bool(_checked(line)))
        self._earlier = self.lines() if run_dir.writes else []
        self.number = 1 + max((line["attempt"] for line in self._earlier), default=0)
        self._step = self._committed = 0
        self._seconds: Mapping[str, float] = {}
        self._noted = -_OFTEN  # when, in seconds of this attempt
        self._torn = self._ends_torn()
        self._lock = threading.Lock()  # the watchdog may end the attempt while the loop notes
        self._over = False

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines of all attempts, oldest first; raises SecurityRefused for what is none of ours."""
        file = self._run_dir.path / NAME
        found = []
        with contextlib.suppress(OSError):
            for line in read_plain(file).splitlines():
                with contextlib.suppress(KeyError, TypeError, ValueError):  # torn by a kill or a full disk
                    found.append(_checked(parse_json(line, where=str(file))))
        return found

    @property
    def durable(self) -> int:
        """The newest step that was durable in an earlier attempt, 0 where none was."""
        steps = [line["step"] for line in self._earlier if line["kind"] == "begin"]
        return max([*steps, *(line["committed"] for line in self._earlier if line["kind"] == "note")], default=0)

    def refuse_without_checkpoints(self) -> None:
        """Raises CheckpointUnusable where a step was durable once and no checkpoint is left: training from zero would
        drop what is known of all others."""
        if self.durable and not steps(self._run_dir.checkpoints):
            raise CheckpointUnusable(
                f"there is no checkpoint any more, and step {self.durable} was durable; training would begin at zero",
                where=str(self._run_dir.checkpoints),
                fix="put the checkpoints back, or begin anew with resume.mode=never, which moves the rest aside",
            )

    def start(self) -> None:
        """Says that an attempt has begun."""
        self._write("start")

    def last_end(self) -> str:
        """How the attempt before this one ended, for people; "" where it ended well or there was none."""
        if not self._earlier:
            return ""
        number = self._earlier[-1]["attempt"]
        lines = [line for line in self._earlier if line["attempt"] == number]
        step = max((line.get("step", 0) for line in lines), default=0)
        ends = [line for line in lines if line["kind"] == "ended"]
        if ends and ends[-1].get("code") == 0:
            return ""
        how = (
            f"with code {ends[-1].get('code')}: {ends[-1].get('what', '')}"
            if ends
            else "without a word: it was killed, ran out of memory, or its machine is gone"
        )
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lines[-1]["wall"]))
        return f"attempt {self.number}; the one before ended at step {step}, {when}, {how}"

    def refuse_without_progress(self) -> None:
        """Ends a run that fails again and again before its next checkpoint.

        Only attempts count that ended by an error of their own: not those that were killed, preempted or lost a peer,
        and none that a person has to mend before anybody runs it again.

        Raises:
            InternalError: three such attempts stand at the end of the log, without any progress between them. Once
                this is told the count begins anew, so that people who mended the cause can run the same command.
        """
        failures: list[dict[str, Any]] = []  # newest first
        for attempt in reversed(list(by_attempt(self._earlier))):
            if _has_progress(attempt) or any(line["kind"] == "refused" for line in attempt):
                break
            failures += _own_failure(attempt)
        if len(failures) >= _PATIENCE:
            self._write("refused")
            raise InternalError(
                f"no progress in {_PATIENCE} attempts: each failed before a new checkpoint was written, the last at "
                f"step {failures[0].get('step', 0)} with code {failures[0]['code']}: {failures[0].get('what', '')}",
                where=str(self._run_dir.path / NAME),
                fix=f"mend the cause and run the same command again: it has {_PATIENCE} more attempts",
            )

    def begin(self, step: int, seconds: Mapping[str, float] | None = None) -> None:
        """Says that training goes on from this step, which is durable; also after a return to an earlier one."""
        with self._lock:
            self._step, self._seconds = step, seconds if seconds is not None else self._seconds
            self._write("begin", step=step, **self._spent())

    def note(self, step: int, committed: int | None, seconds: Mapping[str, float], *, at_once: bool = False) -> None:
        """Says how far training is. Most calls write nothing.

        Args:
            committed: the newest durable step, None where there is none yet. A new one is always written down.
            seconds: of this attempt by what they went to, as the engine's clock has them; they are looked at again
                when the attempt ends.
            at_once: writes a line whenever the last one was written.
        """
        with self._lock:
            progress = (committed or 0) > self._committed
            self._step, self._committed, self._seconds = step, max(committed or 0, self._committed), seconds
            elapsed = self._elapsed()
            if at_once or progress or elapsed >= self._noted + max(_OFTEN, _SELDOM * elapsed):
                self._noted = elapsed
                self._write("note", step=step, committed=self._committed, **self._spent())

    def ended(self, code: int, what: str = "", *, step: int | None = None) -> None:
        """Says how this attempt ended; only the first call counts."""
        with self._lock:
            if not self._over:
                self._over = True
                step, what = self._step if step is None else step, without_secrets(what)
                self._write("ended", code=code, step=step, what=what, **self._spent())

    def _elapsed(self) -> float:
        return self._now() - self._began

    def _spent(self) -> dict[str, Any]:
        seconds = {kind: round(value, 4) for kind, value in self._seconds.items() if value}
        return {"seconds": seconds} if seconds else {}

    def _write(self, kind: str, **more: Any) -> None:
        line = {"kind": kind, "attempt": self.number, "wall": round(self._wall(), 3)}
        text = dumps({**line, "elapsed": round(self._elapsed(), 3), **more})
        try:
            self._run_dir.append(NAME, f"\n{text}" if self._torn else text)
            self._torn = False
        except IOFailure:
            self._torn = True  # a full disk: the log isn't worth the run

    def _ends_torn(self) -> bool:
        try:
            with open_plain(self._run_dir.path / NAME) as stream:
                return stream.seek(0, 2) > 0 and stream.seek(-1, 2) >= 0 and stream.read(1) != b"\n"
        except OSError:
            return False


def _checked(line: Any) -> dict[str, Any]:
    """The line, as whoever reads it may rely on; raises KeyError, TypeError or ValueError where it is none of ours."""
    int_keys = {"begin": ("step",), "note": ("step", "committed"), "ended": ("code", "step")}.get(line["kind"], ())
    if isinstance(line["kind"], str) and all(type(line[key]) is int for key in ("attempt", *int_keys)):
        seconds = dict(line.get("seconds", {})).values()
        if all(isinstance(value, int | float) for value in (line["wall"], line["elapsed"], *seconds)):
            return line
    raise ValueError("no line of an attempt")


def by_attempt(lines: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The lines of each attempt, the oldest attempt first."""
    found: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        found.setdefault(line["attempt"], []).append(line)
    yield from found.values()


def _has_progress(attempt: list[dict[str, Any]]) -> bool:
    """Whether it wrote a checkpoint behind the step that it began with."""
    first = next((line["step"] for line in attempt if line["kind"] == "begin"), 0)
    return any(line["kind"] == "note" and line["committed"] > first for line in attempt)


def _own_failure(attempt: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The line of the error that this attempt ended by, where the job itself may be the cause; else nothing."""
    for line in attempt:
        if line["kind"] == "ended":
            code, began = line["code"], any(other["kind"] == "begin" for other in attempt)
            if code in (0, *_ENDED_FROM_OUTSIDE, *_NOT_RETRIED):
                return []
            # A peer that never came or was killed is not the job's doing; one that failed is
            lost = code == ClusterFault.exit_code and (not began or _LOST.match(str(line.get("what"))))
            return [] if lost else [line]
    return []
