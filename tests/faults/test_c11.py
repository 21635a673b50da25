"""C11: a run folder has one writer, on this machine and on all that share the folder."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from support.fault_rows import steps_of

row = pytest.mark.fault(
    "C11",
    injected="a second run on the folder of a first; its holder killed; leases of another machine, expired and renewed",
    expected="73 locked since ...; a dead holder and an expired lease are taken over",
)
# Holds a folder as a run does, until its standard input ends.
CLAIM = """
import sys
from tfscale.cli import guard
from tfscale.console.messages import shown
from tfscale.run_dir.folder import RunDir
def hold(_):
    with shown("auto"), RunDir(sys.argv[1]).claimed(lease=2.0, renew=0.4) as claim:
        print("ours", flush=True)
        sys.stdin.read()
        return 0 if claim.held() else 1
sys.exit(guard(hold))
"""


def record(folder, **change) -> dict:
    """As another machine leaves it: its boot id is not ours, and the kernel knows nothing of it."""
    now = {"token": "theirs", "host": "node-7", "boot_id": "another", "pid": 1, "since": "2026-01-02 03:04:05"}
    return {**now, "renewed": time.time(), "flock": None, **change}


def write(folder, **change) -> None:
    (folder / ".lock.new").write_text(json.dumps(record(folder, **change)))
    (folder / ".lock.new").replace(folder / ".lock")


@pytest.fixture
def claim(tmp_path):
    """Starts a process that claims the folder: claim() -> Popen. All are killed after the test."""
    with contextlib.ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            process = subprocess.Popen([sys.executable, "-c", CLAIM, str(tmp_path)], text=True, **pipes)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@row
def test_a_second_run_is_refused_and_a_killed_one_is_followed_at_once(group, tiny, got):
    first = group(tiny(steps=100_000))
    first.wait_step(12)
    second = group(tiny(steps=100_000))
    assert second.codes(within=20) == [73]
    assert "locked since" in second.error(0)
    assert f"process {first.pid(0)}" in second.error(0)
    assert not (first.run_dir / "exit.json").exists()
    first.signal(0, signal.SIGKILL)
    assert first.codes() == [137]
    at = steps_of(first.run_dir)[-1]
    third = group(tiny(steps=at + 20))
    assert third.codes() == [0]
    assert f"resuming at step {at} " in third.text(0)
    assert "waiting for" not in third.text(0)
    assert steps_of(first.run_dir)[-1] == at + 20
    got("73 locked since ...; after SIGKILL the next resumed at once")


@row
def test_leases_of_another_machine(tmp_path, claim, got):
    write(tmp_path, renewed=time.time() - 3600)
    expired = claim()
    assert expired.stdout.readline().endswith("taken over once it is silent for 2 s\n")  # its clock may be wrong
    assert expired.stdout.readline() == "ours\n"
    expired.stdin.close()
    assert expired.wait(10) == 0

    write(tmp_path)
    began = time.monotonic()
    silent = claim()
    assert silent.stdout.readline()[9:].startswith("waiting for")
    assert silent.stdout.readline() == "ours\n"
    took = time.monotonic() - began
    assert 2 < took < 8
    silent.stdin.close()
    assert silent.wait(10) == 0

    over = threading.Event()

    def renew() -> None:
        while not over.wait(0.3):
            write(tmp_path)

    write(tmp_path)
    threading.Thread(target=renew).start()
    try:
        refused = claim()
        told = refused.communicate(timeout=30)[1]
        assert "E-0073" in told
        assert "locked since 2026-01-02 03:04:05 by host node-7" in told
        assert refused.returncode == 73
    finally:
        over.set()
    got(f"expired: taken over; a silent one of 2 s after {took:.1f} s; a renewed one 73")


@row
def test_a_stopped_holder_that_goes_on_no_longer_holds_the_folder(tmp_path, claim, got):
    stopped = claim()
    assert stopped.stdout.readline() == "ours\n"
    stopped.send_signal(signal.SIGSTOP)
    time.sleep(0.8)  # renewals are missing
    following = claim()
    assert following.stdout.readline()[9:].startswith("waiting for")
    assert following.stdout.readline() == "ours\n"
    stopped.send_signal(signal.SIGCONT)
    stopped.stdin.close()
    assert stopped.wait(10) == 1  # held() is False
    following.stdin.close()
    assert following.wait(10) == 0
    assert not (tmp_path / ".lock").exists()
    got("a stopped one finds that it is no longer the holder")
