"""Tiny jobs that keep a copy in a store."""

from __future__ import annotations

from support.fault_rows import tiny_job
from support.s3_server import BUCKET

ENDLESS = ("train.until=100000000st", "train.log_every=1s", "eval.every=100000000st", "checkpoint.every=1s")


def job(*more: str, run_dir: str, store: str | None = f"s3://{BUCKET}/runs", pause: float = 0.0, **options):
    """A tiny job; with a pause for every example where each save must have been copied before the next one is due."""
    named = ("extensions.allow=[support.dense_models.,support.slow_table.]", "run.recipe=dense", f"+data.pause={pause}")
    kept = () if store is None else (f"run.store={store}", "run.name=it")
    return tiny_job(*named, *kept, *more, run_dir=run_dir, data="support.slow_table.Slow", **options)
