"""`tfscale launch --data-workers`: a training whose data workers and trainer are killed learns what one alone does."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from tfscale.errors import UsageError
from tfscale.launch.slots import Job, slots_of
from tfscale.launch.workers import launch_workers


def test_data_workers_are_in_nobodys_tf_config():
    from tfscale.cluster import Cluster
    from tfscale.hardware import probe

    for workers in (1, 2):
        with slots_of(Job(workers, evaluator=True, data_workers=2), probe(), environ={}) as slots:
            pass
        by_role = {role: [slot for slot in slots if slot.role == role] for role in ("worker", "dispatcher", "data")}
        assert [len(found) for found in by_role.values()] == [workers, 1, 2]
        [port] = [word for word in by_role["dispatcher"][0].command if word.startswith("port=")]
        address = f"127.0.0.1:{port.partition('=')[2]}"
        for slot in by_role["worker"]:
            assert Cluster.resolve(slot.environ).num_workers == workers
            assert slot.environ["TFSCALE_DATA_SERVICE"] == address
        for slot in by_role["data"]:
            assert f"dispatcher={address}" in slot.command and "TF_CONFIG" not in slot.environ
    with pytest.raises(UsageError, match="each worker reads for itself"):
        Job(2, ps=1, data_workers=1)
    with pytest.raises(UsageError, match="--data-workers -1 is less than 0"):
        Job(2, data_workers=-1)


def _children_that_run(*words: str) -> list[int]:
    """Processes that this one started, by what their command line holds."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            line = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if parent == os.getpid() and all(word in line for word in words):
            found.append(int(folder.name))
    return sorted(found)


@pytest.fixture
def pictures(tmp_path):
    from PIL import Image

    random = np.random.RandomState(0)
    for split, count in (("train", 24), ("test", 4)):
        for name in "ab":
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(random.randint(0, 255, (24, 24, 3), np.uint8)).save(folder / f"{i}.jpg")
    return tmp_path / "pictures"


@pytest.mark.slow
@pytest.mark.cold  # whom it kills is found by command lines
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_killed_data_workers_and_a_killed_trainer_change_no_number(pictures, tmp_path):
    overrides = [
        "+recipe=resnet",
        "task.depth=8",
        "task.width=4",
        "task.augment=photos",
        "data=image_folder",
        f"data.path={pictures}",
        "train.global_batch=8",
        "train.until=60st",
        "train.log_every=1st",
        "eval.every=60st",
        "checkpoint.every=10st",
        "checkpoint.keep=20",
        "plan.steps_per_loop=1",
        "tracker=none",
        "export.at_end=false",
    ]

    def trained(name: str, **more) -> tuple[list[float], float]:
        folder = tmp_path / name
        result = launch_workers([*overrides, f"run.dir={folder}"], 1, **more)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        losses = {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}
        return [losses[step] for step in sorted(losses)], result.metrics["loss"]

    said: list[str] = []
    killed: dict[str, int] = {}

    def write(line: str) -> None:
        said.append(line)
        for what, step, words in (
            ("data worker", " step 8/", ("tfscale.data_service", "dispatcher=")),
            ("dispatcher", " step 24/", ("tfscale.data_service", "port=")),
            ("trainer", " step 42/", ("tfscale.train",)),
        ):
            if step in line and what not in killed:
                killed[what] = _children_that_run(*words)[0]
                os.kill(killed[what], signal.SIGKILL)

    served = trained("served", data_workers=2, max_restarts=1, write=write)
    text = "\n".join(said)
    assert len(killed) == 3, text
    assert "data:" in text and "it is started again (1 of 10)" in text
    assert re.search("resuming at step [1-4]0 of", text), text  # that of step 40 may still be on its way
    assert not _children_that_run("tfscale.data_service")
    alone = trained("alone", write=lambda line: None)
    assert len(alone[0]) == 60 and served == alone, text
