"""The watchdog, in processes of their own since it ends them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

_PROGRAM = """
import sys, time
from pathlib import Path
from tfscale.process.watchdog import Watchdog
{before}

def told(error):
    print(f"told {{error.exit_code}}", flush=True)

watchdog = Watchdog({timeout}, stacks=Path(sys.argv[1]), on_hang=told)
print("ready", flush=True)
with watchdog.watching():
    {body}
print("well", flush=True)
"""


def run(body: str, file, *, stop: bool = False, timeout: float = 1.5, before: str = ""):
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(body=body, timeout=timeout, before=before), str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    if stop:
        process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        process.send_signal(signal.SIGCONT)
    try:
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    return process.returncode, first + out, err


def test_a_step_that_never_ends_leaves_all_stacks(tmp_path):
    code, out, err = run("watchdog.heartbeat('step 7')\n    time.sleep(15)", tmp_path / "hang.txt")
    assert code == 138
    assert out == "ready\ntold 138\n"
    assert "step 7 has not ended for 1.5 s" in err and "hang.txt" in err
    stacks = (tmp_path / "hang.txt").read_text()
    assert "Current thread" in stacks and "\nThread" in stacks


def test_beats_keep_it_quiet(tmp_path):
    code, out, _ = run(
        "for _ in range(8):\n        time.sleep(0.4)\n        watchdog.heartbeat()", tmp_path / "hang.txt"
    )
    assert (code, out) == (0, "ready\nwell\n")
    assert not (tmp_path / "hang.txt").exists()


def test_a_pause_is_no_hang(tmp_path):
    code, *_ = run("with watchdog.paused():\n        time.sleep(3)", tmp_path / "hang.txt")
    assert code == 0


def test_a_process_that_was_stopped_did_not_hang(tmp_path):
    # A stop counts as two ticks, and some more may pass before it where the machine is busy.
    code, *_ = run("time.sleep(1)", tmp_path / "hang.txt", stop=True, timeout=3)
    assert code == 0


def test_a_hang_that_holds_the_interpreters_lock_is_ended_by_another_process(tmp_path):
    held = "import ctypes, tfscale.process.watchdog as w; w._LATER = 1.0"
    body = "watchdog.heartbeat()\n    ctypes.PyDLL(None).sleep(30)"
    code, out, err = run(body, tmp_path / "hang.txt", before=held)
    assert (code, out) == (-signal.SIGUSR1, "ready\n")
    assert "error[E-0138] nothing has ended for 1.5 s" in err and "most recent call first" in err.split("E-0138")[1]


_HELD = """
import ctypes, sys
from tfscale.errors import ClusterFault
from tfscale.process.watchdog import ended_from_outside

with ended_from_outside(1.5, ClusterFault("nobody came", where="here", fix="go there")):
    ctypes.PyDLL(None).sleep(int(sys.argv[1]))  # with the interpreter's lock
print("well")
"""


def test_what_holds_the_interpreter_is_ended_from_outside():
    """A shell, a container and Kubernetes tell a process that SIGUSR1 killed as 138."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", _HELD, "30"], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (128 - 138, "")
    assert done.stderr == "tfscale: error[E-0138] nobody came | here | go there\n"
    assert time.monotonic() - began < 10


def test_what_ends_in_time_is_left_alone():
    done = subprocess.run([sys.executable, "-c", _HELD, "1"], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")
