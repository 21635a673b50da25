"""Asynchronous training as users start it: real processes, a table over two servers, a worker killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfscale.config.schema import PlanConfig, Precision, Strategy
from tfscale.errors import ClusterConfigError, UsageError

COMMAND = ["extensions.allow=[support.embedding_task.]", "+task._target_=support.embedding_task.Embedded"]
COMMAND += ["+data._target_=support.embedding_task.Rule", "train.until=4000st", "train.global_batch=32", "tracker=none"]
COMMAND += ["optimizer.name=adam", "optimizer.learning_rate=0.02", "run.dir=it", "train.log_every=1s"]


@pytest.fixture
def launched(tmp_path):
    """Starts a job of a chief, two workers and two servers; kills it at the end."""
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tfscale.launch",
                "--workers",
                "2",
                "--ps",
                "2",
                "--max-restarts",
                "2",
                "--",
                *COMMAND,
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    yield process, tmp_path
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_worker_does_not_end_the_job_and_the_result_is_as_good(launched):
    process, folder = launched
    _wait_for(lambda: process.poll() is not None or len(_rows(folder)) >= 2, folder)
    os.kill(_pid_of("worker", 1, process.pid), signal.SIGKILL)
    assert process.wait(timeout=240) == 0, (folder / "log").read_text()[-4000:]
    result = json.loads((folder / "it" / "result.json").read_text())
    assert result["status"] == "complete" and result["step"] == 4000
    assert result["metrics"]["accuracy"] > 0.95
    log = (folder / "log").read_text()
    after = log[log.index("worker:1 ended with 137") :]
    alone, came_again, _ = after.partition("worker:1 | a step:")
    assert came_again  # and worked on
    assert alone.count("worker:0 | a step:") > 50  # the other had gone on without it


def _rows(folder: Path) -> list[str]:
    file = folder / "it" / "metrics.jsonl"
    return file.read_text().splitlines() if file.exists() else []


def _wait_for(condition, folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, (folder / "log").read_text()[-4000:]
        time.sleep(0.2)


def _pid_of(role: str, index: int, launcher: int) -> int:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environ = (entry / "environ").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        task = next((json.loads(line[10:])["task"] for line in environ if line.startswith(b"TF_CONFIG=")), None)
        if parent == launcher and task == {"type": role, "index": index}:
            return int(entry.name)
    raise AssertionError(f"no {role}:{index}")


CLUSTER = {"chief": ("a:1",), "worker": ("a:2", "a:3"), "ps": ("a:4",)}


def planned(cluster, **forced):
    from support.tiny_run import HARDWARE

    from tfscale.cluster import Cluster
    from tfscale.plan.execution_plan import make_plan
    from tfscale.plan.request import PlanRequest

    place = Cluster("TF_CONFIG", cluster, "worker", 0)
    return make_plan(HARDWARE, place, PlanRequest(32, forced=PlanConfig(**forced)))


def test_servers_in_the_cluster_choose_the_strategy():
    plan = planned(CLUSTER)
    assert (plan.strategy, plan.num_workers, plan.num_replicas, plan.replica_batch) == ("parameter_server", 2, 1, 32)
    assert not plan.deterministic and "order" in plan.reasons["deterministic"]
    assert plan.inter_op_threads >= 2


@pytest.mark.parametrize(
    ("cluster", "forced", "error", "said"),
    [
        (CLUSTER, {"strategy": Strategy.multi_worker}, ClusterConfigError, "strategy=parameter_server"),
        ({"worker": ("a:2", "a:3")}, {"strategy": Strategy.parameter_server}, ClusterConfigError, "no chief, no ps"),
        (CLUSTER, {"deterministic": True}, UsageError, "plan.deterministic=false"),
        (CLUSTER, {"xla": True}, UsageError, "plan.xla"),
        (CLUSTER, {"precision": Precision.mixed_float16}, UsageError, "float32"),
        ({"worker": ("a:2",)}, {"strategy": Strategy.multi_worker}, UsageError, "tfscale launch"),
        ({"worker": ("a:2", "a:3")}, {"strategy": Strategy.mirrored}, UsageError, "2 separate models"),
    ],
)
def test_what_does_not_go_together_is_refused(cluster, forced, error, said):
    with pytest.raises(error) as caught:
        planned(cluster, **forced)
    assert said in str(caught.value)
