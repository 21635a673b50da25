"""Every recipe, killed between two checkpoints, goes on bit for bit: one in one process, one in two workers."""

from __future__ import annotations

import os
import signal

import pytest
from support.fault_rows import ProcessGroup, fingerprint
from support.tables import import_table

from tfscale.cli import groups

STEPS, EVERY, KILLED = 8, 3, 5
SMALL = {
    "resnet": ["task.width=4"],
    "resnet50_imagenet": ["data=synthetic", "data.train_examples=40", "data.test_examples=5", "data.image_size=40",
                          "task.image_size=32", "task.width=4", "task.depth=18", "train.global_batch=4", "data.num_classes=10",
                          "task.num_classes=10"],
    "tabular": ["data.name=kept", "train.global_batch=8"],
    "text": [],  # the order of its rows is that of all data
    "gpt": ["task.width=16", "task.layers=1", "data.length=17", "train.global_batch=8", "eval.global_batch=4096"],
    "gpt2_124m": [],  # as text
}  # fmt: skip


def test_every_recipe_is_here():
    assert set(SMALL) == set(groups()["recipe"])


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "workers"), [("resnet", 2), ("resnet50_imagenet", 1), ("tabular", 2), ("gpt", 1)])
def test_killed_and_started_again_it_is_the_same_run(tf, recipe, workers, data_dir, tmp_path):
    if recipe == "tabular":
        table = {
            "x": [i / 7 for i in range(90)],
            "of": ["abcde"[i % 5] for i in range(90)],
            "label": [i % 2 for i in range(90)],
        }
        import_table(data_dir, {"train": table, "test": table}, {"x": "number"}, name="kept")
    overrides = [
        f"+recipe={recipe}", *SMALL[recipe], f"train.until={STEPS}st", f"checkpoint.every={EVERY}st", "tracker=none",
        "train.log_every=1st", "eval.every=4st", "train.ema=0.9", "export.at_end=false", "plan.deterministic=true",
        "run.dir=it",
    ]  # fmt: skip
    kinds = {"more_environ": {"TFSCALE_DATA_DIR": str(data_dir)}}

    def run(name, faults=None):
        cwd = tmp_path / name
        cwd.mkdir(exist_ok=True)
        logs = tmp_path / "logs" / f"{name}-{len(os.listdir(cwd))}"
        with ProcessGroup(overrides, workers, cwd=cwd, logs=logs, faults=faults, **kinds) as group:
            codes = group.codes(within=280)
            return codes, cwd / "it", group.text(0)

    codes, whole, _ = run("whole")
    assert codes == [0] * workers
    codes, broken, _ = run("broken", faults={workers - 1: f"train.loop:step={KILLED}:kill"})
    assert codes[-1] == 128 + signal.SIGKILL and set(codes[:-1]) <= {138}
    codes, _, said = run("broken")
    assert codes == [0] * workers
    assert f"resuming at step {EVERY}" in said or "resuming at step 4" in said  # the best one is saved at step 4
    assert fingerprint(broken) == fingerprint(whole)
    assert fingerprint(whole).step == STEPS and set(fingerprint(whole).losses) == set(range(1, STEPS + 1))
