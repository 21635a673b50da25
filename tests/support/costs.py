"""Where the time of the tests goes: `pytest -p tests.support.costs` ends with a table of the forty dearest.

Seconds on the clock, CPU seconds of the test's own process and of the processes that it started and waited for, and how
many it started. Fixtures count for the test that makes them.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

_SHOWN = 40
_started = 0
_costs: dict[str, tuple[float, float, float, int]] = {}
_popen = subprocess.Popen.__init__


def _count(self, *args, **options):
    global _started
    _started += 1
    _popen(self, *args, **options)


def pytest_configure() -> None:
    subprocess.Popen.__init__ = _count


def _now() -> tuple[float, float, float, int]:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    warm = getattr(sys.modules.get("support.warm"), "spent", 0.0)  # of those that are not our own children
    return time.monotonic(), time.process_time(), children.ru_utime + children.ru_stime + warm, _started


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    item.user_properties.append(("began", _now()))
    return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    if report.when == "teardown":
        began = dict(item.user_properties)["began"]
        report.user_properties = [("costs", tuple(b - a for a, b in zip(began, _now(), strict=True)))]
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    found = dict(report.user_properties).get("costs") if report.when == "teardown" else None
    if found is not None:
        _costs[report.nodeid] = tuple(found)


def pytest_terminal_summary(terminalreporter) -> None:
    if not _costs:
        return
    line = "{:>8} {:>8} {:>8} {:>7}  {}".format
    show = terminalreporter.write_line
    show(line("clock s", "own cpu", "children", "started", "test"))
    by_cost = sorted(_costs.items(), key=lambda one: -one[1][0])
    for name, (clock, own, children, started) in by_cost[:_SHOWN]:
        show(line(f"{clock:.1f}", f"{own:.1f}", f"{children:.1f}", started, name))
    total = [sum(column) for column in zip(*_costs.values(), strict=True)]
    show(line(*(f"{one:.0f}" for one in total), f"all {len(_costs)} tests"))
