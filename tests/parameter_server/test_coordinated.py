"""Asynchronous training with real servers on 127.0.0.1: a run that is told to stop, and loses a server after its end.

test_parameter_server.py has one that loses a worker and gets it back."""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.peers import free_ports

TESTS = Path(__file__).parents[1]
DEADLINE, STEPS = 200.0, 400  # at least

pytestmark = pytest.mark.slow  # five processes of TensorFlow


class Job:
    """Two workers, two servers and a chief that trains until SIGUSR1. All that still runs at its end is killed."""

    def __init__(self, folder: Path):
        addresses = [f"127.0.0.1:{port}" for port in free_ports(5)]
        self.cluster = {"chief": addresses[:1], "worker": addresses[1:3], "ps": addresses[3:]}
        self.folder, self.processes = folder, []
        self.servers = {(role, i): self.serve(role, i) for role in ("worker", "ps") for i in range(2)}
        self.chief = self.start("train", str(folder), str(10**6), log="chief")
        self.lines: list[str] = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.chief.stdout))
        self._reader.start()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdin.close()
        self._reader.join()
        self.chief.stdout.close()

    def start(self, what: str, first: str, second: str, *, log: str) -> subprocess.Popen:
        with (self.folder / f"{log}.txt").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "support.embedding_task", what, json.dumps(self.cluster), first, second],
                env={**os.environ, "PYTHONPATH": str(TESTS)},
                stdin=subprocess.PIPE,  # a server ends when this process does
                stdout=subprocess.PIPE if what == "train" else subprocess.DEVNULL,
                stderr=err,
                text=True,
            )
        self.processes.append(process)
        return process

    def serve(self, role: str, index: int) -> subprocess.Popen:
        return self.start("serve", role, str(index), log=f"{role}{index}")

    def wait_for(self, what, deadline: float = DEADLINE) -> None:
        give_up = time.monotonic() + deadline
        while not what():
            assert time.monotonic() < give_up and self.chief.poll() is None, self.log("chief")[-3000:]
            time.sleep(0.02)

    def wait_for_step(self, step: int) -> None:
        self.wait_for(lambda: any(int(line.split()[1]) >= step for line in list(self.lines)))

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.txt").read_text()

    def facts(self) -> dict:
        """What the chief wrote when its training had ended; it evaluates on and on after that."""
        self.wait_for((self.folder / "facts.json").exists)
        return json.loads((self.folder / "facts.json").read_text())


def check(facts: dict) -> None:
    assert facts["step"] == facts["iterations"] >= facts["log"][-1]["step"]
    assert facts["log"][-1]["loss"] < 0.6 * facts["log"][0]["loss"]
    assert facts["after"]["accuracy"] > 0.9 > facts["before"]["accuracy"]
    assert facts["traces"] == {"train": 1, "eval": 1}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    with Job(tmp_path_factory.mktemp("job")) as job:
        job.wait_for_step(STEPS)
        job.chief.send_signal(signal.SIGUSR1)
        facts = job.facts()
        job.servers["ps", 1].kill()
        killed = time.monotonic()
        facts["exit"] = job.chief.wait(DEADLINE), time.monotonic() - killed
        yield job, facts


def test_it_learns_and_both_workers_work(ended):
    job, facts = ended
    check(facts)
    assert STEPS <= facts["step"] < 10**6
    assert all("a step" in job.log(f"worker{i}") for i in range(2))
    assert facts["examples_per_second"] > 0
    assert [row["step"] for row in facts["log"]] == list(range(25, facts["step"] + 1, 25))  # asked to stop in between


def test_every_step_is_done_once(ended):
    job, facts = ended
    lines = [line for i in range(2) for line in job.log(f"worker{i}").splitlines() if line.startswith("a step:")]
    seen = collections.Counter(int(index) for line in lines for index in line.split("[")[1].rstrip("]").split())
    assert len(lines) == facts["step"]
    epochs, rest = divmod(facts["step"] * 32, 4000)
    assert collections.Counter(seen.values()) == collections.Counter({epochs: 4000 - rest, epochs + 1: rest})


def test_the_table_lies_on_both_servers(ended):
    devices = ended[1]["devices"]
    tables = [device for name, device in devices.items() if "/part_" in name and name.startswith("model/")]
    assert len(tables) == 4
    assert {device.split("/device")[0] for device in tables} == {f"/job:ps/replica:0/task:{i}" for i in range(2)}
    assert all("/job:ps/" in device for device in devices.values())


def test_a_checkpoint_brings_all_back(ended):
    facts = ended[1]
    assert facts["changed"] == []
    assert facts["restored"] == facts["after"]


def test_a_checkpoint_needs_no_servers(tf, ended):
    import keras
    from support.embedding_task import BATCH, TEST, Embedded, Rule, plan_of

    from tfscale.checkpoint import Checkpointer
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset
    from tfscale.engine.evaluation import Evaluator
    from tfscale.state.train_state import TrainState

    job, facts = ended
    task, plan = Embedded(), plan_of(1)
    state = TrainState.create(task, keras.optimizers.Adam(0.02))
    assert Checkpointer(job.folder / "checkpoints").restore(state) == facts["step"]
    batches = build_dataset(Rule(), task, Portion("test", Shard(BATCH), training=False), plan)
    alone = Evaluator(task, state, tf.distribute.get_strategy(), plan).evaluate(batches, -(-TEST // BATCH))
    assert alone == pytest.approx(facts["after"], rel=1e-6)


def test_a_killed_server_ends_the_run_and_is_named(ended):
    job, facts = ended
    code, seconds = facts["exit"]
    assert code != 0
    assert seconds < 20
    assert "ClusterFault: parameter server 1 was lost" in job.log("chief")
