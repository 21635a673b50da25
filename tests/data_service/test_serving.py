"""`tfscale data serve`: what it refuses, and how it ends. tests/launch/test_data_workers.py has data workers at work."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from support.peers import free_ports

from tfscale.data_service.__main__ import main


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 64, "a dispatcher is found by its port"),
        (["port=many"], 64, "write numbers"),
        (["port=70000"], 64, "not within 0 to 65535"),
        (["prot=2222"], 64, "did you mean 'port'"),
        (["port=2222", "linger=-1"], 64, "linger=-1 is less than 0"),
        (["port=2222", "timeout=0"], 64, "timeout=0 is no time to wait"),
        (["port=2222", "log=loud"], 64, "log=auto|plain|json"),
        (["dispatcher=nowhere"], 78, "has no port"),
    ],
)
def test_what_makes_no_server_is_refused(words, code, said, capsys):
    assert main(words) == code
    assert said in capsys.readouterr().err


def test_a_data_worker_without_its_dispatcher_says_it_or_ends_when_told():
    [port] = free_ports(1)
    command = [sys.executable, "-m", "tfscale.data_service", f"dispatcher=127.0.0.1:{port}", "host=127.0.0.1"]
    gave_up = subprocess.run([*command, "timeout=0.3"], capture_output=True, text=True, timeout=60, check=False)
    assert gave_up.returncode == 138 and "does not answer for 0.3 s" in gave_up.stderr
    waiting = subprocess.Popen([*command, "log=plain"], stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)
    try:
        assert "waits for its dispatcher" in waiting.stdout.readline()
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(30) == 143
    finally:
        waiting.kill()
        waiting.communicate()
