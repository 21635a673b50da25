"""Runs whose folder is on a machine that may be gone after a restart: what they find in their store."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from support.fault_rows import ProcessGroup, fingerprint, steps_of
from support.s3_server import BUCKET, S3
from support.stored_runs import ENDLESS, job

RUN = "runs/dense/it"
PAUSE = 0.01  # seconds: a save is copied before the next one is due


@pytest.fixture
def s3(monkeypatch):
    server = S3().start()
    server.empty()
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


@pytest.fixture
def group(tmp_path, tmp_path_factory):
    """Starts workers in the folder tmp_path; each keeps its own run folder, as on a machine of its own."""
    groups: list[ProcessGroup] = []

    def start(overrides: list[str], workers: int = 1, **options) -> ProcessGroup:
        groups.append(ProcessGroup(overrides, workers, cwd=tmp_path, logs=tmp_path_factory.mktemp("group"), **options))
        return groups[-1].__enter__()

    yield start
    for each in groups:
        each.__exit__()


def there(server: S3) -> list[int]:
    """The steps of the complete checkpoints in the store."""
    keys = [key.split("/") for key in server.keys(f"{RUN}/checkpoints")]
    return sorted(int(key[4].removeprefix("step-")) for key in keys if key[5] == "manifest.json")


def data_of(step: int) -> str:
    return f"{RUN}/checkpoints/step-{step:09d}/state.data-00000-of-00001"


def test_a_run_goes_on_bit_for_bit_in_an_empty_folder(s3, group, tmp_path):
    """Killed while it copies step 30, with step 20 damaged in the store: it goes on from step 10."""
    whole = group(job(run_dir="whole", store=None))
    assert whole.codes() == [0]

    killed = group(job(run_dir="first", pause=PAUSE), faults={0: "store.before_manifest:step=30:kill"})
    assert killed.codes() == [128 + signal.SIGKILL]
    assert there(s3) == [10, 20] and data_of(30) in s3.keys(RUN)
    s3.flip(data_of(20))

    again = group(job(run_dir="second"))
    assert again.codes() == [0], again.tails()
    assert "step-000000020 is damaged" in again.text(0) and "resuming at step 10 of 40" in again.text(0)
    assert fingerprint(tmp_path / "second") == fingerprint(tmp_path / "whole")
    assert max(there(s3)) == 40

    third = group(job(run_dir="third"))  # its folder is empty, too
    assert third.codes(within=30) == [0]
    assert "already complete at step 40" in third.text(0)
    assert not (tmp_path / "third" / "checkpoints").exists() and max(third.seconds) < 10

    s3.client.delete_object(Bucket=BUCKET, Key=f"{RUN}/result.json")  # as if the store had been away at the end
    assert group(job(run_dir="second")).codes(within=30) == [0]
    assert json.loads(s3.read(f"{RUN}/result.json"))["step"] == 40

    anew = group(job("resume.mode=never", run_dir="fourth", steps=10))
    assert anew.codes() == [0], anew.tails()
    assert "resuming" not in anew.text(0)
    assert there(s3) == [10] and f"{RUN}/previous-001/result.json" in s3.keys(RUN)


def test_a_run_is_looked_at_where_only_its_store_is(s3, group, cli, tmp_path):
    trained = group(job(run_dir="first", steps=20))
    assert trained.codes() == [0], trained.tails()
    asked = (
        f"run.dir=s3://{BUCKET}/{RUN}",
        "checkpoint=last",
        "extensions.allow=[support.dense_models.,support.slow_table.]",
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = {"PYTHONPATH": str(Path(__file__).parents[1])}
    ended = cli(*asked, environ=found, program=("-m", "tfscale.evaluate"), cwd=elsewhere)
    assert ended.code == 0, ended.err
    (file,) = elsewhere.glob("runs/stored/*/dense/it/evaluation-*.json")
    told, result = json.loads(file.read_text()), json.loads((tmp_path / "first" / "result.json").read_text())
    assert told["step"] == 20
    assert told["metrics"]["loss"] == pytest.approx(result["metrics"]["loss"], rel=1e-6)
    assert [path.name for path in (file.parent / "checkpoints").iterdir()] == ["step-000000020"]
    absent = cli(f"run.dir=s3://{BUCKET}/runs/dense/absent", "output=x.jsonl", program=("-m", "tfscale.predict"))
    assert (absent.code, "no run at s3://" in absent.err) == (66, True), absent.err


def test_a_store_that_is_away_for_a_while(s3, group, tmp_path):
    run = group(job(*ENDLESS, "checkpoint.max_failed_saves=100", run_dir="it"))
    run.wait(lambda: there(s3))
    s3.stop()
    run.wait_for(0, "could not be written")
    s3.start()
    newest = max(there(s3), default=0)
    run.wait(lambda: max(there(s3)) > newest)
    run.signal(0, signal.SIGTERM)
    assert run.codes(within=20) == [143], run.tails()
    assert there(s3) == steps_of(tmp_path / "it")[-2:]
    assert "is committed" in run.error(0)
    assert json.loads(s3.read(f"{RUN}/exit.json"))["exit_code"] == 143
    assert json.loads(s3.read(f"{RUN}/attempts.jsonl").splitlines()[-1])["code"] == 143


def test_a_store_that_stays_away(s3, group, tmp_path):
    run = group(job(*ENDLESS, "checkpoint.max_failed_saves=2", run_dir="it"))
    run.wait(lambda: there(s3))
    s3.stop()
    assert run.codes(within=90) == [74]
    assert f"s3://{BUCKET}/{RUN}" in run.error(0), run.tails()
    assert steps_of(tmp_path / "it")


def test_workers_with_folders_of_their_own_resume_at_one_step(s3, group, tmp_path):
    own = {0: ["run.dir=chief-1"], 1: ["run.dir=other-1"]}
    killed = group(job(run_dir="x", pause=PAUSE), 2, each=own, faults={0: "train.loop:step=35:kill"})
    assert killed.codes()[0] == 128 + signal.SIGKILL
    newest = max(steps_of(tmp_path / "chief-1"))  # where the kill came before its copy, it isn't in the store at all
    assert newest >= 20 and not (tmp_path / "other-1" / "checkpoints").exists()
    # The chief's machine is the same, with a checkpoint that was never copied; the other one is new.
    for key in s3.keys(f"{RUN}/checkpoints/step-{newest:09d}"):
        s3.client.delete_object(Bucket=BUCKET, Key=key)
    again = group(job(run_dir="x"), 2, each={0: own[0], 1: ["run.dir=other-2"]})
    assert again.codes() == [0, 0], again.tails()
    assert f"resuming at step {newest} of 40" in again.text(0)
    assert (tmp_path / "other-2" / "checkpoints" / f"step-{newest:09d}").exists()
    whole = group(job(run_dir="whole", store=None), 2)
    assert whole.codes() == [0, 0]
    assert fingerprint(tmp_path / "chief-1") == fingerprint(tmp_path / "whole")


# -- before data and TensorFlow


@pytest.mark.parametrize(
    ("store", "code", "told"),
    [
        ("s3://absent/runs", 73, "s3://absent/runs/dense/it"),
        ("s4://bucket/runs", 64, "unknown protocol 's4'"),
        ("s3://bucket/../x", 77, "'..'"),
    ],
)
def test_a_store_that_can_not_be_is_refused_at_the_start(s3, cli, tmp_path, store, code, told):
    ended = cli(*job(run_dir="it", store=store), environ=_environ())
    assert ended.code == code, ended.err
    assert told in ended.err.splitlines()[-1] and len(ended.err.splitlines()) == 1
    assert "training examples" not in ended.out and not (tmp_path / "it").exists()


def test_a_store_that_is_down_at_the_start(s3, cli, tmp_path):
    s3.stop()
    ended = cli(*job(run_dir="it"), environ=_environ())
    assert ended.code == 74 and f"s3://{BUCKET}/{RUN}" in ended.err.splitlines()[-1]
    assert ended.seconds < 20 and not (tmp_path / "it").exists()


def _environ() -> dict[str, str]:
    from support.dense_models import environ

    return environ()
