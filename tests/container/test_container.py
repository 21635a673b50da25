"""The container, run for real as pods run it: locked up, told by a launcher, and found by name on a network of its own.

`.ci/image` builds the image; without podman and the image they skip.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.controllers import Pod, laid_out, pods
from support.fault_rows import fingerprint, steps_of

from tfscale.k8s.manifests import Job, JobSpec, render
from tfscale.k8s.printed import text_of_script
from tfscale.k8s.script import Script

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]
IMAGE = os.environ.get("CONTAINER_IMAGE", "localhost/tfscale")
USER = 65532
KINDS = ("tfjob", "job", "runtime")
# As k8s/pod.py locks pods up; the anonymous volume belongs to the image's user, as an emptyDir does by fsGroup.
LOCKED_UP = (
    "--read-only", "--tmpfs=/tmp", "--volume=/work/data", "--cap-drop=all", "--security-opt=no-new-privileges",
    "--unsetenv=HOME",
)  # fmt: skip
# Data that need no preparation: what it writes, the first test shows.
SMALL = (
    *(
        "+recipe=resnet",
        "task.width=4",
        "tracker=none",
        "export.at_end=false",
        "eval.every=10st",
        "train.log_every=1st",
    ),
    *("data=synthetic", "data.image_size=16", "data.channels=1", "data.num_classes=10", "data.train_examples=640"),
    *("data.test_examples=64", "train.until=10st", "run.name=together"),
)
STEPS = 10


def podman(*words: str, within: float = 120) -> subprocess.CompletedProcess:
    return subprocess.run(["podman", *words], capture_output=True, text=True, timeout=within, check=False)


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    if shutil.which("podman") is None or podman("image", "exists", IMAGE).returncode:
        pytest.skip(f"no podman, or no image {IMAGE}")


def runs_in(folder: Path) -> Path:
    """A folder that the image's user writes, as a volume claim is."""
    runs = folder / "runs"
    runs.mkdir()
    os.chown(runs, USER, USER)
    return runs


@pytest.fixture
def runs(tmp_path) -> Path:
    return runs_in(tmp_path)


class Pods:
    """The two pods of a job, on a network on which they find each other by name. Use it as a context: at its end all of
    it is removed."""

    def __init__(self, pods: list[Pod], runs: Path, *volumes: str):
        self.pods, self.runs, self.volumes, self.names = pods, runs, volumes, list[str]()
        self.network = f"tfscale-{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> Pods:
        assert podman("network", "create", self.network).returncode == 0
        return self

    def __exit__(self, *_: object) -> None:
        podman("rm", "--force", "--time=0", "--volumes", *self.names)
        podman("network", "rm", "--force", self.network)

    @property
    def run_dir(self) -> Path:
        return self.runs / "resnet" / "together"

    def start(self, index: int, **more_environ: str) -> str:
        """Starts a container of this pod, and returns its name."""
        pod, name = self.pods[index], f"{self.network}-{len(self.names)}"
        self.names.append(name)
        told = [f"--env={key}={value}" for key, value in {**pod.environ, **more_environ}.items()]
        place = [f"--network={self.network}", f"--network-alias={pod.host}", f"--volume={self.runs}:/work/runs"]
        place += [f"--volume={volume}" for volume in self.volumes]
        done = podman("run", "--detach", f"--name={name}", *place, *LOCKED_UP, *told, IMAGE, *pod.args)
        assert done.returncode == 0, done.stderr
        return name


def codes(names: Sequence[str], *, within: float = 300) -> list[int]:
    return [int(podman("wait", name, within=within).stdout) for name in names]


def said(name: str) -> str:
    done = podman("logs", name)
    return done.stdout + done.stderr


def seen(name: str, text: str, *, within: float = 240) -> None:
    """Waits until a container has said something."""
    until = time.monotonic() + within
    while text not in said(name):
        assert time.monotonic() < until, said(name)
        assert podman("inspect", "--format={{.State.Running}}", name).stdout.strip() == "true", said(name)
        time.sleep(0.5)


def two_pods(kind: str, *overrides: str) -> list[Pod]:
    spec = JobSpec(kind=kind, name="digits", image=IMAGE, workers=2, run_claim="runs")
    if kind != "runtime":
        return pods(render(Job(spec, ("train", *overrides))))
    train_job = {
        "kind": "TrainJob",
        "metadata": {"name": "digits"},
        "spec": {"runtimeRef": {"name": "tfscale"}, "trainer": {"numNodes": 2, "args": ["train", *overrides]}},
    }
    return pods([*render(Job(spec, ("train",))), train_job])


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


def test_nothing_is_compiled_at_a_start():
    """An image keeps whole seconds of a file's time: bytecode that goes by it may be stale, and can't be written anew."""
    program = (
        "import importlib.util, pathlib, sys; found = {name: importlib.util.find_spec(name) for name in sys.argv[1:]}\n"
        "print(*(f'{name}:{pathlib.Path(one.cached).read_bytes()[4]}' for name, one in found.items()))"
    )
    names = ("tensorflow", "keras", "numpy", "hydra", "tfscale", "tfscale.cli")
    done = podman("run", "--rm", "--network=none", "--entrypoint=/opt/tfscale/bin/python", IMAGE, "-c", program, *names)
    assert done.returncode == 0, done.stderr
    assert dict(one.split(":") for one in done.stdout.split()) == {
        name: "3" if name.startswith("tfscale") else "1"
        for name in names  # hashes of the source, checked or not
    }


def test_its_limits_are_in_the_plan(runs):
    place = ("--rm", f"--volume={runs}:/work/runs")  # a dry run too fails where the run's folder can't be written
    words = ("train", "+recipe=resnet", "plan.dry_run=true")
    done = podman("run", *place, "--cpus=1", "--memory=4g", *LOCKED_UP, IMAGE, *words)
    assert done.returncode == 0, done.stderr
    told = re.sub(r"[│\s]+", " ", done.stdout)  # the plan folds what is wider than 80 columns
    assert re.search(r"accelerator cpu 1 core of [^,]+, 4\.0 GiB", told), told


# -- two containers, three launchers, at once


@dataclass(frozen=True)
class Done:
    """What came of a job: of its two containers, and of those that were told to stop before them."""

    run_dir: Path
    codes: list[int]
    texts: list[str]
    stopped: list[int]
    committed: list[int]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Iterator[dict[str, Done]]:
    """As TFJob, Indexed Jobs and a TrainJob's torch policy tell them, all at once. Each second container starts when the
    first waits for it, and is a name until then unknown. The chief of the Indexed Job gets SIGTERM; then the same again."""
    with contextlib.ExitStack() as stack:
        jobs = {
            kind: stack.enter_context(Pods(two_pods(kind, *SMALL), runs_in(tmp_path_factory.mktemp(kind))))
            for kind in KINDS
        }
        slowly = {"job": {"TFSCALE_FAULT": "train.loop:sleep1"}}
        names = {kind: [job.start(0, **slowly.get(kind, {}))] for kind, job in jobs.items()}
        for kind, job in jobs.items():
            seen(names[kind][0], "waiting for worker:1")
            names[kind].append(job.start(1))
        seen(names["job"][0], "step 4/")
        podman("kill", "--signal=TERM", names["job"][0])
        stopped, first = codes(names["job"], within=60), [said(name) for name in names["job"]]
        committed = steps_of(jobs["job"].run_dir)
        names["job"] = [jobs["job"].start(index) for index in (0, 1)]
        found = {}
        for kind, job in jobs.items():
            ended, texts = codes(names[kind]), [said(name) for name in names[kind]]
            stops = (stopped, committed) if kind == "job" else ([], [])
            found[kind] = Done(job.run_dir, ended, [*texts, *(first if kind == "job" else [])], *stops)
        yield found


@pytest.mark.parametrize("kind", KINDS)
def test_two_containers_train_together_by_name(done, kind):
    """The Indexed Job comes to the others' bits although it was stopped in the middle."""
    job = done[kind]
    assert job.codes == [0, 0], job.texts
    assert json.loads((job.run_dir / "plan.json").read_text())["num_workers"] == 2
    assert fingerprint(job.run_dir) == fingerprint(done[KINDS[0]].run_dir)  # whoever told them, the same bits
    assert fingerprint(job.run_dir).step == STEPS


def test_sigterm_to_one_ends_both_and_the_same_command_resumes(done):
    """Row E10 of the matrix of faults."""
    job = done["job"]
    assert job.stopped == [143, 143], job.texts
    step = int(job.texts[0].split("resuming at step ")[1].split()[0])
    assert 4 <= step < STEPS and job.committed[-1] == step


# -- a script

SCRIPT = """
import sys
import keras
import numpy as np
import shapes
import tfscale
keras.utils.set_random_seed(1)
x = np.random.normal(size=(32, 4)).astype("float32")
model = shapes.made()
model.fit(x, x.sum(1), batch_size=8, epochs=int(sys.argv[1]), verbose=0,
          callbacks=[keras.callbacks.ModelCheckpoint("best.keras", monitor="loss", save_best_only=True)])
again = keras.models.load_model("best.keras")
print("final:", tfscale.is_chief(), again.evaluate(x, x.sum(1), verbose=0))
"""
SHAPES = """
import keras
def made():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model
"""


def test_a_script_trains_in_two_containers_with_what_it_imports(tmp_path, runs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {"train.py": SCRIPT, "shapes.py": SHAPES}.items():
        (tmp_path / name).write_text(text)
    job = ["job=job", f"job.image={IMAGE}", "job.workers=2", "job.run_claim=runs"]
    found = list(yaml.safe_load_all(text_of_script(Script(("train.py",), ("3",)), job)))
    (tmp_path / "scripts").mkdir()
    laid_out(found, tmp_path / "scripts")
    two = pods([each for each in found if each["kind"] != "ConfigMap"])
    with Pods(two, runs, f"{tmp_path / 'scripts'}:/scripts:ro") as started:
        names = [started.start(0), started.start(1)]
        ended = codes(names)
        texts = [said(name) for name in names]
    assert ended == [0, 0], texts
    first, second = ([line for line in text.splitlines() if line.startswith("final:")] for text in texts)
    assert first[0].split(None, 2)[1:] == ["True", second[0].split(None, 2)[2]], texts
    assert (runs / "train" / "best.keras").stat().st_uid == USER
