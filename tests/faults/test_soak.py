"""Killed at random moments again and again, a job comes to the same weights."""

from __future__ import annotations

import pytest
from tests_dense import environ
from tests_faults import fingerprint

from benchmarks.soak import schedule, soak

SEED, HITS = 10, 5


@pytest.mark.timeout(600)
@pytest.mark.fault(
    "B10",
    injected="five signals at random moments to random workers, restarted by tfscale launch (20 of them: make soak)",
    expected="completes with the bits of the undisturbed run; restarts are counted",
)
def test_a_job_that_is_killed_again_and_again(tiny, tmp_path, got):
    hits, slowly = schedule(HITS, 1.5, SEED, 2), {"TFSCALE_FAULT": "train.loop:sleep0.05"}
    overrides, runs = [part for part in tiny(steps=200) if not part.startswith("run.dir=")], []
    for name, some, more in (("clean", (), {}), ("hurt", hits, slowly)):
        log = tmp_path / f"{name}.txt"
        run = soak(overrides, tmp_path / name, some, log=log, environ={**environ(), **more}, deadline=400)
        assert run.code == 0, log.read_text()[-4000:]
        runs.append(run)
    clean, hurt = runs
    got(f"seed {SEED}: {hurt.hits} signals, {hurt.restarts} restarts, the same bits at step 200")
    assert fingerprint(tmp_path / "hurt") == fingerprint(tmp_path / "clean")
    assert len(clean.losses) == 200 and clean.weights == hurt.weights
    assert hurt.hits == hurt.restarts == HITS
    assert 0 < hurt.goodput["restarts"] <= HITS  # those that a signal ended before they were noted stand in no book
