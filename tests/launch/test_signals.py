"""What signals do to a launcher and its processes."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from support.stand_ins import driver, gone


def _hear_signals() -> None:
    """A background job starts with SIGINT ignored, nohup with SIGHUP, and Python keeps it so."""
    for one in (signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL)


@pytest.fixture
def launcher(environ, tmp_path):
    """Starts a launcher of two workers in a process of its own, and waits until both have installed their handlers."""
    started: list[subprocess.Popen] = []

    def start(code: str, **job) -> tuple[subprocess.Popen, list[int]]:
        code += "\npathlib.Path(os.environ['PLACE'], me).write_text(str(os.getpid()))\ntime.sleep(60)"
        command = driver(code, **job)
        started.append(
            subprocess.Popen(
                command,
                env=environ,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=_hear_signals,
            )
        )
        files, end = [tmp_path / "worker:0", tmp_path / "worker:1"], time.monotonic() + 20
        while not all(file.exists() and file.read_text() for file in files):
            assert time.monotonic() < end
            time.sleep(0.02)
        return started[0], [int(file.read_text()) for file in files]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


SAVES = """
def save(signum, _):
    print("saved at", signum)
    time.sleep(0.3)
    sys.exit(128 + signum)
for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(signum, save)
"""


@pytest.mark.parametrize(
    ("sent", "got"), [(signal.SIGTERM, 15), (signal.SIGINT, 2), (signal.SIGHUP, 15)], ids=lambda value: str(value)
)
def test_a_signal_is_passed_on_and_the_processes_end_in_their_own_time(launcher, sent, got):
    process, pids = launcher(SAVES, max_restarts=2, grace=0.1)
    process.send_signal(sent)
    process.send_signal(sent)  # as `timeout` does, at once: it is the same signal
    out, _ = process.communicate(timeout=15)
    assert process.returncode == 128 + got
    assert sorted(out.splitlines())[-2:] == [f"worker:{i} | saved at {got}" for i in range(2)]
    assert "restart" not in out
    assert all(gone(pid) for pid in pids)


def test_a_second_signal_kills(launcher):
    process, pids = launcher("signal.signal(signal.SIGTERM, signal.SIG_IGN)", max_restarts=2)
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.terminate()
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 137
    assert out.count("killed by the launcher") == 2
    assert all(gone(pid) for pid in pids)


def test_no_process_outlives_a_launcher_that_is_killed(launcher):
    process, pids = launcher("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    process.kill()
    assert all(gone(pid) for pid in pids)
