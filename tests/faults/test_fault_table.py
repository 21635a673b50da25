"""The table of the fault tests tells what failed, what is missing and what was never run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.fault_rows import NOT_BUILT, ROWS, Row, table

ROOT = Path(__file__).parents[2]


def test_the_rows_are_those_of_the_matrix():
    assert len(ROWS) == len(set(ROWS)) == 77
    assert set(NOT_BUILT) < set(ROWS)


def test_a_failure_shows_and_the_missing_are_counted():
    rows = {
        "A1": Row("no JSON", "78", ["78 in 1 s", "78 in 1 s"], passed=True, seconds=1.25),
        "A2": Row("a | b", "78", ["assert 0"], passed=True, failed=True),
        "D6": Row("a huge header", "refused", skipped=["no Pillow here"]),
    }
    lines = list(table(rows))
    assert "| A1 | no JSON | 78 | 78 in 1 s | 1.2 |" in lines
    assert r"| A2 | a \| b | 78 | FAILED assert 0 | 0.0 |" in lines
    assert not any(line.startswith("| D6") for line in lines)
    assert any(line.startswith("Not built: D6 no Pillow here") for line in lines)
    assert lines[-1] == "1 of 77 rows pass, 1 fail, 75 not built"


def test_pytest_prints_it_and_writes_it(tmp_path):
    """A test that passes, one that fails before it has told anything, and one that fails after."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "faults" / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "mark = lambda row: pytest.mark.fault(row, injected='i', expected='e')\n"
        "@mark('A1')\ndef test_a(got): got('well')\n"
        "@mark('A1')\ndef test_b(): pass\n"
        "@pytest.fixture\ndef broken(): raise OSError('no such thing')\n"
        "@mark('A2')\ndef test_c(broken): pass\n"
        "@mark('A3')\ndef test_d(got):\n    got('138')\n    assert 138 == 143\n"
    )
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT / 'tests'}\nmarkers = fault: of the matrix\n")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "fault", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    told = (tmp_path / "build" / "faults.md").read_text()
    assert told in ended.stdout
    assert "| A1 | i | e | well |" in told
    assert "| A2 | i | e | FAILED no such thing |" in told
    assert "| A3 | i | e | FAILED assert 138 == 143; 138 |" in told
    assert "1 of 77 rows pass, 2 fail, 74 not built" in told
