"""A recipe in two workers, killed between two checkpoints, goes on bit for bit; every recipe does so in one process in
test_recipe_runs.py."""

from __future__ import annotations

import os
import signal

import pytest
from support.fault_rows import ProcessGroup, fingerprint
from support.small_recipes import SMALL

STEPS, EVERY, KILLED = 8, 3, 5


@pytest.mark.slow
def test_killed_and_started_again_it_is_the_same_run(data_dir, tmp_path):
    workers = 2
    overrides = [
        "+recipe=resnet", *SMALL["resnet"].overrides, "train.global_batch=8", f"train.until={STEPS}st", "tracker=none",
        f"checkpoint.every={EVERY}st", "train.log_every=1st", "eval.every=4st", "train.ema=0.9", "export.at_end=false",
        "plan.deterministic=true", "run.dir=it",
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
