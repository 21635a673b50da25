"""Killed at random moments again and again, a job comes to the same weights."""

from __future__ import annotations

import pytest
from support.dense_models import environ
from support.fault_rows import fingerprint

SEED, HITS = 10, 5


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.fault(
    "B10",
    injected="five signals at random moments to random workers, restarted by tfscale launch (20 of them: make soak)",
    expected="completes with the bits of the undisturbed run; restarts are counted",
)
def test_a_job_that_is_killed_again_and_again(tiny, pair, tmp_path, got):
    from benchmarks.soak import schedule, soak

    told = {**environ(), "TFSCALE_FAULT": "train.loop:sleep0.2"}
    overrides = [part for part in tiny(every=5) if not part.startswith("run.dir=")]
    hits, folder, log = schedule(HITS, 1.0, SEED, workers=2), tmp_path / "it", tmp_path / "log.txt"
    run = soak(overrides, folder, hits, log=log, environ=told, deadline=400)
    assert run.code == 0, log.read_text()[-4000:]
    got(f"seed {SEED}: {run.hits} signals, {run.restarts} restarts, the same bits at step 40")
    assert fingerprint(folder) == pair
    assert run.hits == run.restarts == HITS
    assert 0 < run.goodput["restarts"] <= HITS  # those that a signal ended before they were noted stand in no log
