"""One file of Keras's tests in a process of its own: owns how it is started, ended and read; refuses to judge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.keras_suite.adapter import REPORT, THROUGH
from tests.keras_suite.sources import ROOT

_EACH = 60.0  # seconds for one test, and for a file besides
_START = 120.0


@dataclass(frozen=True)
class Outcome:
    """How a test ended: whether it passed, how often it called `fit`, and one line of why it didn't pass."""

    passed: bool
    fits: int = 0
    reason: str = ""


def run_file(
    path: Path,
    scratch: Path,
    *,
    through: bool,
    tests: Sequence[str] | None = None,
) -> dict[str, Outcome]:
    """Runs the file's tests, or those named, and gives what came of each, by its name within the file.

    A test that ends the process, or hangs in it, has failed; the others go on in a new one.

    Raises:
        RuntimeError: not one test was begun, such as where the file can't be imported.
    """
    outcomes: dict[str, Outcome] = {}
    left = None if tests is None else list(tests)
    while left is None or left:
        folder = Path(tempfile.mkdtemp(dir=scratch))
        ended = _process(path, folder, through=through, tests=left, done=list(outcomes))
        new, at_work = _read(folder / "report")
        if not new and at_work is None and not outcomes:
            raise RuntimeError(f"no test of {path} ran, it {ended}:\n{(folder / 'output').read_text()[-3000:]}")
        outcomes |= new
        if at_work is not None:
            outcomes[at_work] = Outcome(False, reason=f"the process {ended} in it")
        elif left is None or not new:
            outcomes |= {test: Outcome(False, reason=f"the process {ended} before it") for test in left or ()}
            break
        if left is not None:
            left = [test for test in left if test not in outcomes]
    return outcomes


def _process(path: Path, folder: Path, *, through: bool, tests: list[str] | None, done: list[str]) -> str:
    """How it ended, in words."""
    chosen = [str(path)] if tests is None else [f"{path}::{test}" for test in tests]
    left_out = [part for test in done for part in ("--deselect", f"{path.name}::{test}")]
    environ = {**os.environ, REPORT: str(folder / "report"), THROUGH: "1" if through else "0"}
    environ |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
    environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.keras_suite.adapter", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(path.parent), "-c", os.devnull, "--import-mode", "importlib"]
    command += ["--timeout", str(_EACH), "--timeout-method", "signal", "-W", "ignore", *left_out, *chosen]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return _in_words(process, folder)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _in_words(process: subprocess.Popen[bytes], folder: Path) -> str:
    """Waits as long as some test ends in time."""
    seen = -1
    while True:
        try:
            code = process.wait(timeout=_EACH + _START)
            return f"ended with {code}"
        except subprocess.TimeoutExpired:
            report = folder / "report"
            size = report.stat().st_size if report.exists() else 0
            if size == seen or not size:
                return f"was killed after {_EACH + _START:.0f} s"
            seen = size


def _read(report: Path) -> tuple[dict[str, Outcome], str | None]:
    """The outcomes, and the test that was at work when the process ended."""
    outcomes: dict[str, Outcome] = {}
    at_work = None
    for line in report.read_text().splitlines() if report.exists() else ():
        record = json.loads(line)
        test = record["test"].partition("::")[2]
        if record["phase"] == "begun":
            at_work = test
        else:
            outcomes[test] = Outcome(record["outcome"] == "passed", record["fits"], record["reason"])
            at_work = None if at_work == test else at_work
    return outcomes, at_work
