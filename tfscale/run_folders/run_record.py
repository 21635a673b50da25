"""RunRecord: what a run folder says of its run, to whoever looks at many of them.

Owns the words for the state of a run. Never writes, and never fails for what is in the folder: what can't be read makes
the run "damaged", and `detail` says why.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfscale.config.duration import Duration
from tfscale.errors import RETRYABLE, Interrupted, TfscaleError, first_line
from tfscale.files import dumps, numbers, open_plain, parse_json, read_plain, refuse_bombs
from tfscale.run_dir.attempts import Attempts
from tfscale.run_dir.evaluated import NOTE, best_in
from tfscale.run_dir.experiment import flatten
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.lease import is_at_work
from tfscale.run_dir.manifest import MANIFEST, number, steps

CONFIG, ATTEMPTS, RESULT = "config.yaml", "attempts.jsonl", "result.json"
SCRIPT = "script.json"  # in the folder of a script, which holds one run for each of its fits
STATES = ("training", "complete", "stopped", "failed", "damaged", "other")
_FROM_OUTSIDE = (*RETRYABLE, Interrupted.exit_code)
_MOST_CONFIG = 2**20  # bytes of config.yaml
_TAIL = 2**16  # bytes of metrics.jsonl that are looked at


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        path: of its folder; `name` is the same below the root.
        state: one of STATES; "stopped" goes on with the same command, "other" is a folder without a log of attempts.
        detail: how it ended or what is wrong, for people.
        total: steps of the whole training, None where that isn't known; `about`: reckoned from rounded epochs.
        best: step, value, metric, mode and split of the best checkpoint; None where nothing was evaluated.
        wrote: when it last wrote, in seconds since the epoch.
        bytes: that its files take on the disk.
        config: of config.yaml, flat; empty where that can't be read.
        result: of result.json.
    """

    path: Path
    name: str
    recipe: str = ""
    state: str = "other"
    detail: str = ""
    step: int = 0
    total: int | None = None
    about: bool = False
    best: Mapping[str, Any] | None = None
    wrote: float = 0.0
    bytes: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {
            "name": self.name,
            "path": str(self.path),
            "recipe": self.recipe,
            "state": self.state,
            "detail": self.detail,
            "step": self.step,
            "total_steps": self.total,
            "total_is_reckoned": self.about,
            "best": self.best,
            "wrote": self.wrote,
            "bytes": self.bytes,
        }


def is_run_folder(path: Path) -> bool:
    """Whether a run has made this folder, by the names in it. A lock is no sign: scripts and workflows have one."""
    there = {name for name in (ATTEMPTS, CONFIG, RESULT, "checkpoints") if _lies(path / name)}
    return ATTEMPTS in there or (CONFIG in there and len(there) > 1)


def in_use(path: Path, *, now: Callable[[], float] = time.time) -> bool:
    """Whether a process trains in this folder, or runs the script that it belongs to.

    Raises:
        OSError, SecurityRefused: its lock can't be read.
    """
    return is_at_work(path, now=now) or (_lies(path.parent / SCRIPT) and is_at_work(path.parent, now=now))


def read_record(path: Path, name: str, *, now: Callable[[], float] = time.time) -> RunRecord:
    """Reads what there is."""
    return _Reading(path, now).record(name)


class _Reading:
    """Of one folder; `problems` are what can't be read there."""

    def __init__(self, path: Path, now: Callable[[], float]):
        self.path, self.now = path, now
        self.problems: list[str] = []
        self.wrote, self.bytes = 0.0, 0

    def record(self, name: str) -> RunRecord:
        with self._noted("the folder"):
            self.wrote, self.bytes = _written(self.path)
        with self._noted("the folder"):
            RunDir(self.path).refuse_links()
        held = False
        with self._noted("its lock"):
            held = in_use(self.path, now=self.now)
        result, config, lines = self._json(RESULT), self._config(), self._attempts()
        best, there = self._best(result), self._checkpoints()
        state, detail = self._state(held, lines, result, number(there[0]) if there else None)
        step = next((line["step"] for line in reversed(lines) if "step" in line), 0) or _whole(result.get("step"))
        total, about = self._total(config, result)
        recipe = str(config.get("run.recipe") or self.path.parent.name)
        shown = (recipe, state, detail, step, total, about, best, self.wrote, self.bytes)
        return RunRecord(self.path, name, *shown, config=config, result=result)

    def _state(
        self, held: bool, lines: list[dict[str, Any]], result: Mapping[str, Any], durable: int | None
    ) -> tuple[str, str]:
        if held:
            return "training", ""
        if self.problems:
            return "damaged", "; ".join(dict.fromkeys(self.problems))
        finished = result.get("status") in ("complete", "stopped")
        if not lines:
            ended = self._json("exit.json")
            if ended and not finished:
                return "failed", f"code {ended.get('exit_code')}: {ended.get('what')}"
            return ("complete", "") if finished else ("other", "it has no log of attempts")
        last = [line for line in lines if line["attempt"] == lines[-1]["attempt"]]
        end = next((line for line in reversed(last) if line["kind"] == "ended"), None)
        if end is not None and end["code"] == 0:
            if finished:
                return "complete", str(result.get("stop_reason") or "")
            return "damaged", f"it ended well, and what it came to, {RESULT}, is missing"
        again = f"goes on at step {durable}" if durable is not None else "begins again at step 0"
        if end is None:
            return "stopped", f"killed; {again}"
        if end["code"] in _FROM_OUTSIDE:
            return "stopped", f"code {end['code']}; {again}"
        return "failed", f"code {end['code']}: {end.get('what')}"

    @contextlib.contextmanager
    def _noted(self, what: str) -> Any:
        try:
            yield
        except TfscaleError as error:
            self.problems.append(error.what)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            self.problems.append(f"{what} can't be read: {getattr(error, 'strerror', None) or first_line(error)}")

    def _content(self, name: str, most: int) -> bytes | None:
        with self._noted(name), contextlib.suppress(FileNotFoundError):
            return read_plain(self.path / name, most=most)
        return None

    def _json(self, name: str, *, most: int = 32 * 2**20) -> dict[str, Any]:
        """{} where there is no such file, or it says nothing: that is a problem then."""
        content = self._content(name, most)
        if content is None:
            return {}
        with self._noted(name):
            value = numbers(parse_json(content, where=name))
            if isinstance(value, dict):
                return value
            raise ValueError("it is no JSON object")
        return {}

    def _config(self) -> dict[str, Any]:
        content = self._content(CONFIG, _MOST_CONFIG)
        if content is None:
            return {}
        with self._noted(CONFIG):
            return flatten(_yaml_mapping(content, str(self.path / CONFIG)))
        return {}

    def _checkpoints(self) -> list[str]:
        """None where the folder may be a link, which would be followed."""
        return steps(self.path / "checkpoints") if not self.problems else []

    def _attempts(self) -> list[dict[str, Any]]:
        with self._noted(ATTEMPTS):
            return Attempts(RunDir(self.path).for_reading()).lines()
        return []

    def _best(self, result: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What an evaluator beside the training found, what the run ended with, or what the newest checkpoint knows."""
        told = [self._json(NOTE), result] if _lies(self.path / NOTE) else [result]
        if (
            found := next((best for one in told if (best := best_in(dict(one)))), None)
        ) is None and "status" not in result:
            for name in self._checkpoints()[:1]:
                manifest = self._json(f"checkpoints/{name}/{MANIFEST}")
                memory = manifest.get("memory")
                if not manifest:
                    self.problems.append(f"checkpoint {name} has no manifest")
                found = best_in(memory) if isinstance(memory, dict) else None
        return found

    def _total(self, config: Mapping[str, Any], result: Mapping[str, Any]) -> tuple[int | None, bool]:
        """Steps of the whole training, and whether they were reckoned from epochs that are rounded."""
        try:
            length = Duration.parse(config.get("train.until") or "")
            if length.unit != "ep":
                return length.steps(steps_per_epoch=1), False
            per_epoch = result.get("steps_per_epoch")
            if isinstance(per_epoch, int | float) and per_epoch > 0:
                return length.steps(steps_per_epoch=per_epoch), False
        except (TfscaleError, TypeError, ValueError, ArithmeticError):
            return None, False
        with contextlib.suppress(TfscaleError, OSError, ValueError, KeyError, TypeError, ArithmeticError):
            row = _last_row(self.path / "metrics.jsonl")
            return round(length.value * row["step"] / row["epoch"]), True
        return None, False


def _lies(path: Path) -> bool:
    return os.path.lexists(path)


def _whole(value: Any) -> int:
    return value if type(value) is int else 0


def _last_row(file: Path) -> Any:
    """Of metrics.jsonl, the last whole line."""
    with open_plain(file) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _TAIL))
        return parse_json(stream.read(_TAIL).rpartition(b"\n")[0].rpartition(b"\n")[2], where=file.name)


def _yaml_mapping(content: bytes, where: str) -> dict[str, Any]:
    """Raises ValueError where it is none, and SecurityRefused for what grows while it is read."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built
    text = content.decode()
    try:
        refuse_bombs(yaml.parse(text, Loader=loader), where)
        value = yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(first_line(error)) from None
    if not isinstance(value, dict | None):  # a run of a RunConfig that Python made has an empty one
        raise ValueError("it is no mapping")
    known: dict[str, Any] = json.loads(dumps(value or {}, default=str))  # YAML also has dates, sets and bytes
    return known


def _written(path: Path) -> tuple[float, int]:
    """When something in the folder last changed, and the bytes that it takes; raises OSError."""
    newest, total, folders = 0.0, 0, [path]
    seen: set[tuple[int, int]] = set()
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # a run at work tidies up meanwhile
                    found = entry.stat(follow_symlinks=False)
                    if (found.st_dev, found.st_ino) in seen:
                        continue  # one file of two names
                    seen.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * 512
                    if stat.S_ISDIR(found.st_mode):
                        folders.append(Path(entry.path))
                    elif not entry.name.startswith(".lock"):  # looking at a folder may touch these
                        newest = max(newest, found.st_mtime)
    return newest or path.stat().st_mtime, total
