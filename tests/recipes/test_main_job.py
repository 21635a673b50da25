"""The main job: it learns the digits, and the same command again says that it is done."""

from __future__ import annotations

import json

import pytest


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_epochs_of_the_main_job_reach_97_on_held_out_digits(cli, tmp_path):
    """All 24, which `make train` runs, reach 0.985 or more in three times the time."""
    ended = cli("+recipe=resnet", "train.until=8ep", deadline=800)
    assert ended.code == 0, ended.err
    (result,) = (json.loads(p.read_text()) for p in tmp_path.glob("runs/resnet/*/result.json"))
    assert result["status"] == "complete"
    assert result["metrics"]["accuracy"] >= 0.97
    again = cli("+recipe=resnet", "train.until=8ep", deadline=30)
    assert (again.code, "already complete" in again.out) == (0, True)
