"""The weights themselves, evaluated beside their averages."""

from __future__ import annotations

import json

import pytest
from support.tiny_run import fit_tiny

from tfscale.errors import UsageError


def evaluations(run_dir):
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: {k: v for k, v in row.items() if "loss" in k or "accuracy" in k}
            for row in rows if row["kind"] == "test"}  # fmt: skip


def test_both_are_what_each_is_alone(tf, tmp_path):
    """Averages change nothing of a training, so that a run without them has the other figures."""
    average = {"train": {"ema": 0.9}}
    result, _, both = fit_tiny(tmp_path / "both", **average, eval={"beside_ema": True})
    averaged = evaluations(fit_tiny(tmp_path / "averaged", **average)[2])
    raw = evaluations(fit_tiny(tmp_path / "raw")[2])
    found = evaluations(both)
    assert list(found) == [10, 20, 30]
    for step, metrics in found.items():
        assert metrics == {**averaged[step], **{f"raw_{name}": value for name, value in raw[step].items()}}
        assert metrics["loss"] != metrics["raw_loss"]
    assert result.metrics == found[30]


def test_without_averages_it_is_refused(tf, tmp_path):
    with pytest.raises(UsageError, match=r"eval\.beside_ema: without train\.ema"):
        fit_tiny(tmp_path, eval={"beside_ema": True})
