"""Real processes of a cluster for the tests: each meets the others, and then obeys the lines that a test writes to it."""

from __future__ import annotations

import contextlib
import json
import queue
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tfscale.cluster import Cluster

_PROGRAM = """
import json, signal, socket, sys, time

options = json.loads(sys.argv[1])
if options["slow_names"]:
    socket.getaddrinfo = lambda *_, **__: time.sleep(60)

from tfscale.cluster import Cluster
from tfscale.console.messages import received
from tfscale.peers.rendezvous import meet
from tfscale.errors import Preempted, TfscaleError

def tell(**what):
    print(json.dumps(what), flush=True)

def on_sigterm(*_):
    raise Preempted("told to stop")

signal.signal(signal.SIGTERM, on_sigterm)
cluster = Cluster("test", {k: tuple(v) for k, v in options["addresses"].items()}, options["role"], options["index"])
try:
    tell(began=True)
    with received(lambda text: tell(said=text)):
        meeting = meet(cluster, options["facts"], timeout=options["timeout"])
except TfscaleError as error:
    tell(error=str(error), code=error.exit_code)
    sys.exit(error.exit_code)
tell(met=meeting.members)
meeting.watch(
    lambda event: tell(heard=event.kind, peer=event.peer, detail=event.detail, fault=str(event.fault())),
    silence=options["silence"],
)
for line in sys.stdin:
    command, _, argument = line.strip().partition(" ")
    if command == "tell":
        meeting.send(json.loads(argument))
    elif command == "fail":
        meeting.end({"exit_code": 70, "what": argument, "where": "here", "fix": "mend it"})
        sys.exit(70)
    elif command == "bind":
        own = cluster.addresses[cluster.role][cluster.index]
        socket.create_server(("", int(own.rpartition(":")[2])))
        tell(bound=True)
    elif command == "tensorflow":
        import tensorflow as tf
        server = tf.distribute.Server(
            {k: list(v) for k, v in cluster.addresses.items()}, job_name=cluster.role, task_index=cluster.index
        )
        tell(bound=True)
began = time.monotonic()
meeting.end()
tell(ended=time.monotonic() - began)
"""
ROOT = Path(__file__).parents[2]


def free_ports(count: int) -> list[int]:
    """Ports that nobody holds, below those from which the kernel takes the ports of outgoing connections."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            if port not in found:
                found.append(port)
    return found


def addresses(host: str = "127.0.0.1", **counts: int) -> dict[str, list[str]]:
    """Addresses on this machine, such as addresses(chief=1, worker=2)."""
    ports = iter(free_ports(sum(counts.values())))
    return {role: [f"{host}:{next(ports)}" for _ in range(count)] for role, count in counts.items()}


def cluster(of: dict[str, list[str]], name: str) -> Cluster:
    role, index = name.split(":")
    return Cluster("test", {key: tuple(value) for key, value in of.items()}, role, int(index))


class Peer:
    """A process of a cluster. What it tells is read by `hear`; `obey` gives it a command."""

    def __init__(
        self,
        of: dict[str, list[str]],
        name: str,
        *,
        facts: dict[str, Any] | None = None,
        timeout: float = 20,
        silence: float = 15,
        slow_names: bool = False,
    ):
        self.name = name
        role, index = name.split(":")
        options = {"addresses": of, "role": role, "index": int(index), "facts": facts or {}, "timeout": timeout}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps({**options, "silence": silence, "slow_names": slow_names})],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._printed: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._printed.put(json.loads(line))

    def hear(self, key: str, within: float = 20) -> dict[str, Any]:
        """The next thing it tells that has this key."""
        deadline = time.monotonic() + within
        while True:
            try:
                told = self._printed.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.name} told nothing of '{key}' in {within} s") from None
            if key in told:
                return told

    def has_printed(self, key: str) -> bool:
        """Whether it has told such a thing and `hear` has not taken it yet."""
        return any(key in told for told in list(self._printed.queue))

    def obey(self, command: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def code(self, within: float = 20) -> int:
        return self.process.wait(within)

    def end(self) -> float:
        """Lets it end well; the seconds that the end of its meeting took."""
        assert self.process.stdin
        self.process.stdin.close()
        seconds = self.hear("ended")["ended"]
        assert self.code() == 0
        return seconds

    def remove(self) -> None:
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            assert self.process.stdin
            self.process.stdin.close()
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()
