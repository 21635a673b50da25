"""A process killed at any moment of a save: only whole checkpoints are seen, and the next start cleans up.

One process imports TensorFlow and forks for every moment, before TensorFlow has begun any threads.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from support import warm

PROGRAM = """
import json, os, resource, signal, sys
import keras, tensorflow

def save(folder, fault, limit):
    "Steps 1, 2 and 3, of which two are kept; killed at the fault, or when a file of step 3 grows beyond the limit."
    if fault:
        os.environ["TFSCALE_FAULT"] = f"{fault}:step=3:kill"
    from tfscale.state.train_state import TrainState
    from tfscale.checkpoint import Checkpointer
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])  # its data are shorter than their index
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    state = TrainState(model, optimizer)
    checkpointer = Checkpointer(folder, keep=2)
    for state.step in (1, 2, 3):
        if limit and state.step == 3:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        checkpointer.save(state, required=True)

ended = {}
for name, job in json.loads(sys.argv[1]).items():
    child = os.fork()
    if not child:
        save(**job)
        os._exit(0)
    ended[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """{moment: (how the process ended, its folder)}."""
    from tfscale.checkpoint.entries import POINTS

    root = tmp_path_factory.mktemp("killed")
    jobs = {point: {"fault": point, "limit": 0} for point in POINTS}
    jobs |= {f"{limit} bytes": {"fault": "", "limit": limit} for limit in (1, 30, 200, 500, 1000)}
    jobs["never"] = {"fault": "", "limit": 0}
    jobs = {name: {"folder": str(root / name), **job} for name, job in jobs.items()}
    done = warm.run(
        [sys.executable, "-c", PROGRAM, json.dumps(jobs)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ended = json.loads(done.stdout.splitlines()[-1])
    return {name: (ended[name], root / name) for name in jobs}


def left(folder: Path) -> list[str]:
    """What was being written, by the files that are there."""
    return sorted(file.name.partition(".tempstate")[0] for file in folder.glob(".writing*/*"))


def check(folder: Path, steps: list[int]) -> None:
    """Only these are seen, all of them are whole, and whatever else lies there is cleaned away."""
    from tfscale.checkpoint import Checkpointer
    from tfscale.checkpoint.entries import read_manifest

    checkpointer = Checkpointer(folder)
    assert [entry.step for entry in checkpointer.entries()] == steps
    for entry in checkpointer.entries():
        assert read_manifest(entry.path)["step"] == entry.step
    checkpointer.clean()
    assert sorted(path.name for path in folder.iterdir()) == [f"step-{step:09d}" for step in steps]


def test_at_every_named_point(tf, killed):
    from tfscale.checkpoint.entries import POINTS

    for point in POINTS:
        code, folder = killed[point]
        assert code == -signal.SIGKILL, point
        pruning = POINTS.index(point) >= POINTS.index("ckpt.before_prune")
        if point == "ckpt.mid_prune":
            (doomed,) = folder.glob(".removing*")
            assert 0 < len(list(doomed.iterdir())) < 3  # some of it is gone, some is left
        elif point in ("ckpt.mid_data", "ckpt.before_manifest"):
            assert left(folder) == ["state.data-00000-of-00001", "state.index"]
        check(folder, [1, 2] if not pruning else [1, 2, 3] if point == "ckpt.before_prune" else [2, 3])


def test_in_the_middle_of_every_file(tf, killed):
    """The kernel kills it when a file reaches a size: the data, their index, the manifest."""
    torn = set()
    for name in [name for name in killed if name.endswith("bytes")]:
        code, folder = killed[name]
        assert code == -signal.SIGXFSZ, name
        files = left(folder)
        torn.add(files[-1] if "manifest.json" not in files else "manifest.json")
        check(folder, [1, 2])
    assert torn == {"state.data-00000-of-00001", "state.index", "manifest.json"}


def test_never(tf, killed):
    code, folder = killed["never"]
    assert code == 0
    check(folder, [2, 3])


def test_all_points_are_in_the_constant():
    from tfscale.checkpoint.entries import POINTS

    package = Path(__file__).parents[2] / "tfscale" / "checkpoint"
    text = "".join(file.read_text() for file in package.glob("*.py"))
    marked = [part.split('"')[1] for part in text.split("faults.point(")[1:]]
    assert sorted(marked) == sorted(POINTS)
    assert all(os.path.basename(point) == point and point.startswith("ckpt.") for point in marked)
