"""The matrix of faults: the marker `fault`, what its tests record, and the table of the rows at the end.

    @pytest.mark.fault("C4", injected="newest data file removed", expected="falls back, says so")
    def test_...(tiny, crew, got):
        ...
        got("138 in 3.1 s")

Several tests may share a row; it has passed when all of them have.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests_faults import NOT_BUILT, ROWS, Crew, Fingerprint, Row, fingerprint, table, tiny_job

_RESULTS: pytest.StashKey[dict[str, Row]] = pytest.StashKey()
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
def crew(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    """Starts real workers: crew(overrides, workers, faults={1: "..."}) -> Crew. All are killed after the test."""
    crews: list[Crew] = []

    def start(overrides: list[str], workers: int = 1, *, cwd: Path = tmp_path, **options) -> Crew:
        crews.append(Crew(overrides, workers, cwd=cwd, logs=tmp_path_factory.mktemp("crew"), **options))
        return crews[-1].__enter__()

    yield start
    for each in crews:
        each.__exit__()


def _whole(workers: int, folder: Path) -> Path:
    with Crew(tiny_job(), workers, cwd=folder, logs=folder / "logs") as crew:
        assert crew.codes(within=120) == [0] * workers, crew.tails()
    return crew.run_dir


@pytest.fixture(scope="session")
def alone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of tiny() in one process that nothing happens to."""
    return _whole(1, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="session")
def alone(alone_dir: Path) -> Fingerprint:
    """What tiny() comes to in one process that nothing happens to."""
    return fingerprint(alone_dir)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Fingerprint:
    """What tiny() comes to in two workers that nothing happens to."""
    return fingerprint(_whole(2, tmp_path_factory.mktemp("pair")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("fault"):
            assert mark.args[0] in ROWS, f"{item.nodeid}: there is no row {mark.args[0]}"
            assert mark.args[0] not in NOT_BUILT, f"{item.nodeid}: {mark.args[0]} is listed as not built"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    mark = item.get_closest_marker("fault")
    if mark is None:
        return report
    row = item.config.stash.setdefault(_RESULTS, {}).setdefault(mark.args[0], Row())
    row.injected = row.injected or mark.kwargs["injected"]
    row.expected = row.expected or mark.kwargs["expected"]
    row.seconds += report.duration
    if report.failed or hasattr(report, "wasxfail"):
        row.failed = True
        row.got.append(str(call.excinfo.value).strip().splitlines()[0][:160] if call.excinfo else "")
    elif report.skipped:
        row.skipped.append(report.longrepr[2] if isinstance(report.longrepr, tuple) else "skipped")
    elif report.when == "call":
        row.passed = True
    if report.when == "teardown":
        row.got += item.stash.get(_GOT, [])
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(_RESULTS, {})
    if not rows:
        return
    lines = list(table(rows))
    path = config.rootpath / "build" / "faults.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    terminalreporter.section("faults")
    for line in lines:
        terminalreporter.write_line(line)
