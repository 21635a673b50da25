"""Processes that end when the one does that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

_STARTS = """
import os, sys
from tfscale.process.children import Child, Guard
guard = Guard()
child = Child("it", ["/bin/sh", "-c", "echo began > began; exec sleep 60"], environ=os.environ, waits=True)
if sys.argv[1] == "watched":
    guard.watch([child])
    child.go()
print(child.group, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("when", ["before", "watched"])
def test_a_kill_of_the_one_that_started_it_leaves_no_child(tmp_path, when):
    with subprocess.Popen(
        [sys.executable, "-c", _STARTS, when], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        group = int(process.stdout.readline())
        until = time.monotonic() + 20
        while when == "watched" and not (tmp_path / "began").exists() and time.monotonic() < until:
            time.sleep(0.01)
        os.killpg(group, 0)  # it is there
        process.send_signal(signal.SIGKILL)
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        os.killpg(group, signal.SIGKILL)
        pytest.fail("it is still there")
    assert (tmp_path / "began").exists() == (when == "watched")
