"""The matrix of faults: the marker `fault`, what its tests record, and the table of the rows at the end.

    @pytest.mark.fault("C4", injected="newest data file removed", expected="falls back, says so")
    def test_...(tiny, group, got):
        ...
        got("138 in 3.1 s")

Several tests may share a row; it has passed when all of them have.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.data_files import Garden, jpeg, put, reshard
from support.dense_models import environ
from support.fault_rows import (
    LIGHT,
    NOT_BUILT,
    ROWS,
    Fingerprint,
    ProcessGroup,
    Row,
    exit_code_in,
    fingerprint,
    result_of,
    table,
    tiny_job,
    training_rows,
)

_ROWS: pytest.StashKey[_Rows] = pytest.StashKey()
_IMPORT_SECONDS = 5.0
_GOT: pytest.StashKey[list[str]] = pytest.StashKey()


@pytest.fixture
def got(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes down what really happened, for this test's row."""
    return request.node.stash.setdefault(_GOT, []).append


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., list[str]]:
    """Overrides of a tiny real job: tiny(*more, steps=40, every=10, run_dir="it", task=..., data=...)."""
    return tiny_job


@pytest.fixture
def group(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    """Starts real workers: group(overrides, workers, faults={1: "..."}) -> ProcessGroup. All are killed after the test."""
    groups: list[ProcessGroup] = []

    def start(overrides: list[str], workers: int = 1, *, cwd: Path = tmp_path, **options) -> ProcessGroup:
        groups.append(ProcessGroup(overrides, workers, cwd=cwd, logs=tmp_path_factory.mktemp("group"), **options))
        return groups[-1].__enter__()

    yield start
    for each in groups:
        each.__exit__()


@pytest.fixture
def trained(group):
    """trained(job, workers=1): (the run, its result.json, its entries of training in metrics.jsonl)."""

    def train(job: list[str], workers: int = 1):
        run = group(job, workers)
        assert run.codes(within=120) == [0] * workers, run.tails()
        return run, result_of(run.run_dir), training_rows(run.run_dir)

    return train


@pytest.fixture
def in_time() -> Callable[..., bool]:
    """in_time(ended, seconds): whether a program of `cli` ended by then, on a machine that imports TensorFlow in five
    seconds; one that takes longer just now has so much longer."""

    def check(ended, within: float) -> bool:
        if ended.seconds < within:
            return True
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, capture_output=True, timeout=150)
        return ended.seconds < within * (time.monotonic() - began) / _IMPORT_SECONDS

    return check


@pytest.fixture
def one_line(cli, got, in_time):
    """one_line(code, job): the job ends soon, with this code and one line of an error, which is returned.

    Args:
        within: seconds.
        tell: before what is told of the row.
        more_environ, options: of the program, as `cli` takes them.
    """

    def check(code, job, *, within=10.0, tell="", more_environ=None, program=LIGHT, **options):
        told = {**environ(), **(more_environ or {})}
        ended = cli(*job, environ=told, program=program, deadline=60, **options)
        got(f"{tell}{ended.code} in {ended.seconds:.1f} s")
        assert ended.code == code, ended.out[-2000:] + ended.err
        (line,) = ended.err.splitlines()
        assert line.startswith(f"tfscale: error[E-{code:04d}] "), line
        assert in_time(ended, within), ended.seconds
        return line

    return check


@pytest.fixture
def refused(one_line, tmp_path):
    """refused(job, code, *said): the job ends soon, with this code and one line that says all of this; the line.

    Args:
        left: whether the run folder was made before; then it holds the same as exit.json, and nothing was trained.
        options: of `one_line`.
    """

    def check(job, code, *said, left=False, **options):
        line = one_line(code, job, **options)
        assert [part for part in said if part not in line] == [], line
        if left:
            assert exit_code_in(tmp_path / "it") == code
            assert not list(tmp_path.glob("it/checkpoints/*")) and not (tmp_path / "it" / "metrics.jsonl").exists()
        else:
            assert list(tmp_path.iterdir()) == []
        return line

    return check


@pytest.fixture(scope="session")
def garden_once(made_once) -> Path:
    def make(folder: Path) -> None:
        Garden(dir=str(folder)).prepare()
        reshard(folder / "garden" / "1.0.0", 4)

    return made_once("garden", make)


@pytest.fixture
def garden(garden_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.dir of a data set that TFDS has packed, its train split in four shards of ten pictures."""
    return Path(shutil.copytree(garden_once, tmp_path_factory.mktemp("data") / "dir"))


@pytest.fixture
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with eight pictures of 100 x 100."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for i in range(8):
        put(folder / "ab"[i % 2] / f"{i}.jpg", jpeg(colour=(30 * i, 255 - 30 * i, 100)))
    return folder


def _whole(workers: int, folder: Path) -> None:
    with ProcessGroup(tiny_job(), workers, cwd=folder, logs=folder / "logs") as group:
        assert group.codes(within=120) == [0] * workers, group.tails()


@pytest.fixture(scope="session")
def alone_dir(made_once) -> Path:
    """The run folder of tiny() in one process that nothing happens to. All tests share it."""
    return made_once("alone", lambda folder: _whole(1, folder)) / "it"


@pytest.fixture(scope="session")
def alone(alone_dir: Path) -> Fingerprint:
    """What tiny() comes to in one process that nothing happens to."""
    return fingerprint(alone_dir)


@pytest.fixture(scope="session")
def pair(made_once) -> Fingerprint:
    """What tiny() comes to in two workers that nothing happens to."""
    return fingerprint(made_once("pair", lambda folder: _whole(2, folder)) / "it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("fault"):
            assert mark.args[0] in ROWS, f"{item.nodeid}: there is no row {mark.args[0]}"
            assert mark.args[0] not in NOT_BUILT, f"{item.nodeid}: {mark.args[0]} is listed as not built"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Leaves in the report what the row's line needs: with pytest-xdist another process makes the table."""
    report = yield
    if mark := item.get_closest_marker("fault"):
        cause = str(call.excinfo.value).strip().splitlines()[:1] if call.excinfo and report.failed else []
        told = [line[:160] for line in cause] + (item.stash.get(_GOT, []) if report.when == "teardown" else [])
        report.fault = {"row": mark.args[0], **mark.kwargs, "got": told}
    return report


class _Rows:
    """Gathers the reports of all processes."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        fault = getattr(report, "fault", None)
        if fault is None:
            return
        row = self.rows.setdefault(fault["row"], Row(fault["injected"], fault["expected"]))
        row.seconds += report.duration
        row.got += fault["got"]
        if report.failed or hasattr(report, "wasxfail"):
            row.failed = True
        elif report.skipped:
            row.skipped.append(report.longrepr[2] if isinstance(report.longrepr, tuple) else "skipped")
        elif report.when == "call":
            row.passed = True


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = rows = _Rows()
    config.pluginmanager.register(rows)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[_ROWS].rows
    if not rows:
        return
    lines = list(table(rows))
    path = config.rootpath / "build" / "faults.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    terminalreporter.section("faults")
    for line in lines:
        terminalreporter.write_line(line)
