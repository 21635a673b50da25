"""The promise of the README: the main job reaches its accuracy, and the same command again says so."""

from __future__ import annotations

import json

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_main_job_reaches_985_on_held_out_digits(door, tmp_path):
    ended = door("+recipe=resnet", deadline=1600)
    assert ended.code == 0, ended.err
    (result,) = (json.loads(p.read_text()) for p in tmp_path.glob("runs/resnet/*/result.json"))
    assert result["status"] == "complete"
    assert result["metrics"]["accuracy"] >= 0.985
    again = door("+recipe=resnet", deadline=30)
    assert (again.code, "already complete" in again.out) == (0, True)
