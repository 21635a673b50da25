"""Workers on unequal machines: what each would decide by itself is the chief's, and so is the state."""

from __future__ import annotations

import json

import pytest
from support.fault_rows import ProcessGroup, fingerprint, tiny_job, training_rows

# Cores, memory and loops of two machines; without plan.steps_per_loop the clock shortens the loops.
CHIEF = ["plan.steps_per_loop=4", "plan.intra_op_threads=2", "plan.input_threads=2", "plan.prefetch=3"]
OTHER = ["plan.intra_op_threads=1", "plan.input_ram_bytes=0", "plan.inter_op_threads=2", "plan.prefetch=1"]


@pytest.fixture
def group(tmp_path, tmp_path_factory):
    groups: list[ProcessGroup] = []

    def start(overrides, **options) -> ProcessGroup:
        groups.append(ProcessGroup(overrides, 2, cwd=tmp_path, logs=tmp_path_factory.mktemp("group"), **options))
        return groups[-1].__enter__()

    yield start
    for each in groups:
        each.__exit__()


def job(run_dir: str, *more: str) -> list[str]:
    """Record 0 is NaN and comes in step 13, so that training returns to step 10; of saves none is skipped."""
    often = ("train.max_rollbacks=1", "eval.every=10st", "+data.test_examples=95", "cluster.start_timeout=60")
    return [*tiny_job(*often, *more, steps=30, every=10, run_dir=run_dir, data="support.faulty_tables.Poisoned")]


def evaluations(run_dir) -> list[tuple]:
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], row["loss"], row["accuracy"]) for row in rows if row["kind"] == "test"]


@pytest.mark.timeout(240)
def test_unequal_machines_train_evaluate_roll_back_and_resume_as_equal_ones_do(group, tmp_path):
    """Each has a folder of its own, so that only the chief has checkpoints; worker 1 has those of an older attempt."""
    equal = group(job("equal"))
    assert equal.codes(within=100) == [0, 0], equal.tails()
    own = {0: [*CHIEF, "run.dir=chief"], 1: [*OTHER, "run.dir=other"]}
    killed = group(job("chief"), each=own, faults={1: "train.loop:step=24:kill"})
    assert killed.codes(within=100) == [138, 137], killed.tails()
    assert "back to step 10" in killed.text(0) and "worker 1 had another state" in killed.text(0)
    stale = tmp_path / "other" / "checkpoints"
    stale.mkdir(parents=True)
    (tmp_path / "chief" / "checkpoints" / "step-000000010").rename(stale / "step-000000010")
    again = group(job("chief"), each=own)
    assert again.codes(within=100) == [0, 0], again.tails()
    assert "resuming at step 20 of 30" in again.text(0)
    assert fingerprint(tmp_path / "chief") == fingerprint(tmp_path / "equal")
    assert evaluations(tmp_path / "chief") == evaluations(tmp_path / "equal")
    assert [row["step"] for row in training_rows(tmp_path / "chief")] == list(range(1, 31))


@pytest.mark.timeout(120)
def test_workers_with_unequal_data_end_before_the_first_step(group, tmp_path):
    """One with less data would make fewer steps and leave the others waiting."""
    job = tiny_job(data="support.faulty_tables.Partial", steps=20)
    ended = group([*job, "train.until=4ep"], each={1: ["+data.test_examples=20", "run.dir=other"]})
    assert ended.codes(within=60) == [65, 65], ended.tails()
    told = "worker 1 has other data than the chief, which has 50 training and 25 test examples"
    assert told in ended.error(0) and f"{told}; 50 training and 20 test examples here" in ended.error(1)
    assert not (tmp_path / "it" / "metrics.jsonl").exists()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_workers_measure_together_and_train_what_the_chief_has_chosen(group, tmp_path):
    """Their trials come to the record that is NaN, too, and leave nothing of it."""
    measured = group(job("measured", "plan.calibrate=auto"), each={0: CHIEF, 1: OTHER})
    assert measured.codes(within=200) == [0, 0], measured.tails()
    assert "calibration: measured in" in measured.text(0)
    chosen = json.loads((tmp_path / "measured" / "calibration.json").read_text())["plan"]
    assert sorted(chosen) == ["bytes_per_pack", "fused_kernels", "xla"]  # the job is deterministic
    forced = group(job("forced", *(f"plan.{name}={str(value).lower()}" for name, value in chosen.items())))
    assert forced.codes(within=100) == [0, 0], forced.tails()
    assert fingerprint(tmp_path / "measured") == fingerprint(tmp_path / "forced")
    assert evaluations(tmp_path / "measured") == evaluations(tmp_path / "forced")
