"""The time to the first step: where a window ends, and what is said of a command that never comes to it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import startup
from benchmarks.side_by_side import ROOT, ContestantFailed
from benchmarks.startup import DONE, KERAS, Start, measured

SAYS_SO = f"""
import os, sys, time
open("pid", "w").write(str(os.getpid()))
print("building"), time.sleep(0.2)
sys.stderr.write("a warning\\n")
print('{DONE}{{"parameters": 7}}', flush=True)
time.sleep(60)
"""


def start(folder, text, name="ours"):
    (folder / "said.py").write_text(text)
    return Start(name, ("said.py",), DONE, folder, {"how": "so"})


def test_a_window_ends_with_the_first_step_and_so_does_the_process(tmp_path):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    one = start(tmp_path, SAYS_SO)
    steps, wall, _ = one.window(0.0)
    assert steps == 1
    assert 0.2 <= wall < 30
    assert one.facts == {"how": "so", "parameters": 7}
    assert not (tmp_path / "runs" / "first").exists(), "a run of before would be resumed"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_start_ends_with_a_suite_that_is_killed(tmp_path):
    text = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    start(tmp_path, text)
    code = "import sys; from pathlib import Path; from benchmarks.startup import Start; "
    code += "Start('ours', ('said.py',), 'never', Path(sys.argv[1]), {}).window(0.0)"
    suite = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    until = time.monotonic() + 60
    while not ((pid := tmp_path / "pid").exists() and pid.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    suite.kill()
    suite.wait()
    while _runs(pid.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    assert time.monotonic() < until


def _runs(pid):
    """Whether there is such a process, and not only what is left of it until somebody asks."""
    try:
        return "\nState:\tZ" not in Path("/proc", pid, "status").read_text()
    except OSError:
        return False


def test_what_ends_or_hangs_before_its_first_step_has_failed(tmp_path, monkeypatch):
    with pytest.raises(ContestantFailed, match=r"(?s)ours ended before its first step was done:.*no such model"):
        start(tmp_path, "raise SystemExit('no such model')").window(0.0)
    monkeypatch.setattr(startup, "START_SECONDS", 0.5)
    with pytest.raises(ContestantFailed, match="didn't come to its first step"):
        start(tmp_path, "import time; time.sleep(60)").window(0.0)


def test_every_block_starts_each_of_them_once(tmp_path):
    text = f"open('starts', 'a').write('x'); print('{DONE}{{}}')"
    starts = []
    for name in ("ours", "ours again", KERAS):
        folder = tmp_path / name
        folder.mkdir()
        starts.append(start(folder, text, name))
    found = measured("script", starts, blocks=3, seed=0, say=lambda text: None)
    assert [(folder / "starts").read_text() for folder in (one.folder for one in starts)] == ["xxx"] * 3
    assert {name: len(values) for name, values in found.seconds.items()} == {one.name: 3 for one in starts}
    assert found.question.unit == "s"
