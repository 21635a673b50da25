"""Which steps of a workflow are done: a file in its folder, against what the steps are now.

Owns workflow.json, the identity of people's files, and why a step is to be done. Refuses to run one.

    kept = DoneSteps(Path("flows/digits"), steps)
    kept.why(step)                 # "" where it is done, else the reason
    kept.began(step)
    kept.ended(step, "done", seconds=12.5, line="exported to: ...")
"""

from __future__ import annotations

import datetime
import glob
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.errors import without_secrets
from tfscale.files import digest_of, dumps, read_json, replacing
from tfscale.workflow.steps import Step

FILE = "workflow.json"


@dataclass(frozen=True)
class Standing:
    """Where a step stands, as it was when it last began or ended.

    Attributes:
        state: "running", "done", "refused" or "failed".
        command, reads, needs: what it was: its words, the identity of what it read, the digest of each step before.
        leaves: files that were there once it was done.
        when: it began or ended, in ISO 8601.
        line: its last one.
        code: its exit code.
    """

    state: str
    command: list[str]
    reads: dict[str, Any]
    needs: dict[str, str]
    leaves: list[str]
    when: str
    seconds: float = 0.0
    line: str = ""
    code: int = 0

    @property
    def digest(self) -> str:
        return digest_of([self.command, self.reads, self.needs])


class DoneSteps:
    """What is known of the steps of one folder; each change is on the disk when a method returns."""

    def __init__(
        self,
        folder: Path,
        steps: Sequence[Step],
        identity: Callable[[str], Any] | None = None,
        *,
        wall: Callable[[], float] = time.time,
    ):
        self._file, self._steps, self._wall = folder / FILE, {step.name: step for step in steps}, wall
        self._identity = identity or identity_of
        found = read_json(self._file)
        known = found.get("steps", {}) if isinstance(found, dict) else {}
        self._known: dict[str, Standing] = {}
        for name, fields in known.items():
            try:
                self._known[name] = Standing(**fields)
            except TypeError:  # of another version: it is done anew
                continue

    def standing(self, name: str) -> Standing | None:
        return self._known.get(name)

    def why(self, step: Step) -> str:
        """ "" where it is done; else why it is to be done, for people."""
        before = self._known.get(step.name)
        if before is None:
            return "not done yet"
        now = self._now(step)
        if before.digest != now.digest:
            return _difference(before, now)
        if before.state != "done":
            return {"running": "was broken off", "refused": "was refused"}.get(
                before.state, f"ended with {before.code}"
            )
        return next((f"{file} is gone" for file in before.leaves if not os.path.exists(file)), "")

    def began(self, step: Step) -> None:
        self._put(step, "running", [], {})

    def ended(self, step: Step, state: str, *, seconds: float, line: str, code: int = 0) -> None:
        """Args: state: "done", "refused" or "failed"; code: its exit code; line: its last one."""
        leaves = sorted(file for pattern in step.leaves for file in glob.glob(pattern)) if state == "done" else []
        self._put(step, state, leaves, {"seconds": round(seconds, 1), "line": line, "code": code})

    def _put(self, step: Step, state: str, leaves: list[str], more: dict[str, Any]) -> None:
        when = datetime.datetime.fromtimestamp(self._wall()).isoformat(timespec="seconds")
        now = self._now(step)
        self._known[step.name] = Standing(state, now.command, now.reads, now.needs, leaves, when, **more)
        about = {"steps": {name: vars(one) for name, one in self._known.items()}}
        with replacing(self._file, durable=True) as temporary:
            temporary.write_text(dumps(about, indent=1) + "\n", encoding="utf-8")

    def _now(self, step: Step) -> Standing:
        reads = {path: self._identity(path) for path in step.reads}
        needs = {name: self._now(self._steps[name]).digest for name in step.needs}
        return Standing("", list(map(without_secrets, step.command)), reads, needs, [], "")


def identity_of(path: str) -> Any:
    """Another one where the file, the files below the folder, or those of the pattern have changed, by their sizes and
    times; of a URL its text: nobody looks behind it."""
    if "://" in path:
        return path
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return digest_of(sorted([os.path.relpath(file, path), *_stat(file)] for file in _below(path)))
    if os.path.exists(path):
        return _stat(path)
    return digest_of([[file, *_stat(file)] for file in sorted(glob.glob(path, recursive=True))])


def _below(folder: str) -> list[str]:
    return [os.path.join(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names]


def _stat(file: str) -> list[int]:
    try:
        found = os.stat(file)
    except OSError:  # a link to nothing
        return []
    return [found.st_size, found.st_mtime_ns]


def _difference(before: Standing, now: Standing) -> str:
    added = [word for word in now.command if word not in before.command]
    gone = [word for word in before.command if word not in now.command]
    changed = [path for path, identity in now.reads.items() if before.reads.get(path, identity) != identity]
    anew = [name for name, digest in now.needs.items() if before.needs.get(name) != digest]
    # The folders of data and runs are named after what they hold, so that they change with what is named before them.
    told = [f"{word} is new" for word in added[:2]] + [f"without {word}" for word in gone[: 2 - len(added[:2])]]
    if changed:
        return f"{changed[0]} has changed"
    if anew and set(map(_key, added)) <= {"run.dir", "dir", "data.dir"}:
        return f"{' and '.join(anew)} is another"
    return ", ".join(told) or "its words come in another order"


def _key(word: str) -> str:
    return word.partition("=")[0]
