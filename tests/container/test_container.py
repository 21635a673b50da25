"""The container, run for real as pods run it: locked up, told by a launcher, and found by name on a network of its own.

`.ci/image` builds the image; without podman and the image they skip.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_controllers import Pod, pods
from tests_faults import fingerprint

from tfscale.k8s.manifests import Job, JobSpec, render

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]
IMAGE = os.environ.get("TFSCALE_IMAGE", "localhost/tfscale")
USER = 65532
# As k8s/pod.py locks pods up; the anonymous volume belongs to the image's user, as an emptyDir does by fsGroup.
LOCKED_UP = (
    "--read-only", "--tmpfs=/tmp", "--volume=/work/data", "--cap-drop=all", "--security-opt=no-new-privileges",
    "--unsetenv=HOME",
)  # fmt: skip
SMALL = (
    "+recipe=resnet",
    "task.width=4",
    "tracker=none",
    "export.at_end=false",
    "eval.every=20st",
    "train.log_every=1st",
)


def podman(*words: str, within: float = 120) -> subprocess.CompletedProcess:
    return subprocess.run(["podman", *words], capture_output=True, text=True, timeout=within, check=False)


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    if shutil.which("podman") is None or podman("image", "exists", IMAGE).returncode:
        pytest.skip(f"no podman, or no image {IMAGE}")


@pytest.fixture
def runs(tmp_path) -> Path:
    """A folder that the image's user writes, as a volume claim is."""
    folder = tmp_path / "runs"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


@pytest.fixture
def started(runs) -> Iterator:
    """Starts a pod's container on a network on which pods find each other by name; removes all of it afterwards."""
    network, names = f"tfscale-{uuid.uuid4().hex[:8]}", []
    assert podman("network", "create", network).returncode == 0

    def start(pod: Pod) -> str:
        name = f"{network}-{len(names)}"
        names.append(name)
        told = [f"--env={key}={value}" for key, value in pod.environ.items()]
        place = [f"--network={network}", f"--network-alias={pod.host}", f"--name={name}", f"--volume={runs}:/work/runs"]
        done = podman("run", "--detach", *place, *LOCKED_UP, *told, IMAGE, *pod.args)
        assert done.returncode == 0, done.stderr
        return name

    yield start
    podman("rm", "--force", "--time=0", "--volumes", *names)
    podman("network", "rm", "--force", network)


def code(name: str, *, within: float = 300) -> int:
    return int(podman("wait", name, within=within).stdout)


def said(name: str) -> str:
    done = podman("logs", name)
    return done.stdout + done.stderr


def seen(name: str, text: str, *, within: float = 240) -> None:
    """Waits until a container has said something."""
    until = time.monotonic() + within
    while text not in said(name):
        assert time.monotonic() < until, said(name)
        time.sleep(1)


def two_pods(kind: str, *overrides: str) -> list[Pod]:
    spec = JobSpec(kind=kind, name="digits", image=IMAGE, workers=2, run_claim="runs")
    if kind != "runtime":
        return pods(render(Job(spec, overrides)))
    train_job = {
        "kind": "TrainJob",
        "metadata": {"name": "digits"},
        "spec": {"runtimeRef": {"name": "tfscale"}, "trainer": {"numNodes": 2, "args": ["train", *overrides]}},
    }
    return pods([*render(Job(spec, ())), train_job])


def test_it_trains_without_network_rights_home_or_a_writable_root(runs):
    place = ["--rm", "--network=none", f"--volume={runs}:/work/runs"]
    words = ("train", "+recipe=resnet", "task.width=4", "train.until=20st")
    done = podman("run", *place, *LOCKED_UP, IMAGE, *words, within=600)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (result,) = (json.loads(file.read_text()) for file in runs.glob("resnet/*/result.json"))
    assert (result["status"], result["step"]) == ("complete", 20)
    assert all(file.stat().st_uid == USER for file in runs.rglob("*"))
    assert list(runs.glob("resnet/*/export/saved_model/saved_model.pb"))


def test_its_limits_are_in_the_plan(runs):
    place = ("--rm", f"--volume={runs}:/work/runs")  # a dry run too fails where the run's folder can't be written
    words = ("train", "+recipe=resnet", "plan.dry_run=true")
    done = podman("run", *place, "--cpus=1", "--memory=4g", *LOCKED_UP, IMAGE, *words)
    assert done.returncode == 0, done.stderr
    told = re.sub(r"[│\s]+", " ", done.stdout)  # the plan folds what is wider than 80 columns
    assert re.search(r"accelerator cpu 1 core of [^,]+, 4\.0 GiB", told), told


@pytest.fixture(scope="module")
def outcomes() -> dict:
    return {}


@pytest.mark.parametrize("kind", ["tfjob", "job", "runtime"])
def test_two_containers_train_together_by_name(kind, started, runs, outcomes):
    """As TFJob, Indexed Jobs and a TrainJob's torch policy tell them. The second is 20 s late, and a name until then unknown."""
    first, second = two_pods(kind, *SMALL, "train.until=20st", "run.name=together")
    names = [started(first)]
    time.sleep(20)
    assert podman("inspect", "--format={{.State.Running}}", names[0]).stdout.strip() == "true"
    names.append(started(second))
    codes = [code(name) for name in names]
    assert codes == [0, 0], [said(name) for name in names]
    assert "waits for worker:1" in said(names[0])
    outcomes[kind] = fingerprint(runs / "resnet" / "together")
    assert outcomes[kind].step == 20
    plan = json.loads((runs / "resnet" / "together" / "plan.json").read_text())
    assert plan["num_workers"] == 2
    assert len(set(map(str, outcomes.values()))) == 1  # whoever told them, the same bits


def test_sigterm_to_one_ends_both_and_the_same_command_resumes(started, runs):
    """Row E10 of the matrix of faults."""
    both = two_pods("job", *SMALL, "train.until=5000st", "run.name=stopped")
    names = [started(pod) for pod in both]
    seen(names[0], "step 8/")
    podman("kill", "--signal=TERM", names[1])
    assert [code(name, within=60) for name in names] == [143, 143], [said(name) for name in names]
    committed = sorted((runs / "resnet" / "stopped" / "checkpoints").glob("*"))
    assert committed
    again = [started(pod) for pod in both]
    seen(again[0], "resuming at step ")
    step = int(said(again[0]).split("resuming at step ")[1].split()[0])
    assert step >= 8
    seen(again[0], f"step {step + 2}/")
    podman("kill", "--signal=TERM", again[0])
    assert [code(name, within=60) for name in again] == [143, 143], [said(name) for name in again]
