"""The cli, run as users run it: bad input, help, the dry run, a kill and the same command again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import warm

GOLDEN = Path(__file__).parent / "golden" / "hardware"
RESNET = ("+recipe=resnet",)
# Fails the program when TensorFlow is imported: the surest proof that it wasn't needed.
NO_TENSORFLOW = warm.LIGHT + "from tfscale.train import main; sys.exit(main())"


@pytest.fixture
def light_door(cli):
    return lambda *arguments, **kind: cli(*arguments, program=("-c", NO_TENSORFLOW), deadline=20, **kind)


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "said"),
    [
        (("+recipe=resnt",), {}, 64, "did you mean 'resnet'"),
        ((*RESNET, "optimzer.learning_rate=1"), {}, 64, "did you mean 'optimizer.learning_rate'"),
        ((*RESNET, "train.global_batch=many"), {}, 64, "train.global_batch"),
        ((*RESNET, "data=tfds", "data.name=imagenet2021"), {}, 66, "did you mean 'imagenet2012'"),
        ((*RESNET, "run.dir=/proc/nothing"), {}, 73, "run.dir"),
        ((*RESNET, "run.name=../../x"), {}, 77, "run.name"),
        ((*RESNET, "task._target_=os.system"), {}, 77, "task._target_"),
        (RESNET, {"TF_CONFIG": "{not json"}, 78, "TF_CONFIG"),
        (RESNET, {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "wroker"}}'}, 78, "worker"),
        ((*RESNET, "train.global_batch=0"), {}, 64, "train.global_batch"),
        ((*RESNET, "plan.hardware=absent.json", "plan.dry_run=true"), {}, 64, "absent.json"),
        ((*RESNET, "--nonsense"), {}, 64, "--nonsense"),
    ],
)
def test_bad_input_is_one_line_with_its_code(light_door, tmp_path, arguments, environ, code, said):
    ended = light_door(*arguments, environ=environ)
    assert ended.code == code, ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    assert ended.err.startswith(f"tfscale: error[E-{code:04d}]")
    assert said in ended.err
    assert ended.out == ""
    assert list(tmp_path.iterdir()) == []
    assert ended.seconds < 10


def test_a_missing_peer_is_named_before_tensorflow_starts(light_door, data_dir, tmp_path):
    with socket.socket() as one, socket.socket() as other:
        ports = []
        for some in (one, other):
            some.bind(("127.0.0.1", 0))
            ports.append(some.getsockname()[1])
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    for index, missing in ((0, "worker:1"), (1, "worker:0")):
        tf_config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        ended = light_door(
            *RESNET, "data=synthetic", "cluster.start_timeout=1", environ={"TF_CONFIG": json.dumps(tf_config)}
        )
        assert ended.code == 138, ended.err
        assert missing in ended.err and cluster["worker"][1 - index] in ended.err
        assert ended.seconds < 10


def test_help_and_cfg_need_no_tensorflow(light_door):
    ended = light_door("--help")
    assert ended.code == 0
    assert "resnet50_imagenet" in ended.out
    assert "mlflow" in ended.out
    ended = light_door(*RESNET, "train.until=7ep", "--cfg", "job")
    assert ended.code == 0
    assert "until: 7ep" in ended.out


@pytest.mark.parametrize("hardware", [None, *sorted(path.name for path in GOLDEN.glob("*.json"))])
def test_dry_run_needs_no_tensorflow(light_door, tmp_path, hardware):
    machine = [f"plan.hardware={GOLDEN / hardware}"] if hardware else []
    ended = light_door(*RESNET, "plan.dry_run=true", *machine)
    assert ended.code == 0, ended.err
    assert "steps_per_loop" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_what_the_run_would(light_door, tmp_path):
    """Photos of which the dry run reads the headers, with what the recipe has for digits."""
    from PIL import Image

    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "p" / split / name).mkdir(parents=True)
            for i, kind in enumerate(("jpg", "png", "bmp")):
                Image.new("RGB", (40, 40 + i)).save(tmp_path / "p" / split / name / f"{i}.{kind}")
    photos = (*RESNET, "data=image_folder", "data.path=p", "train.global_batch=4", "plan.dry_run=true")
    sized = (*photos, "task.image_size=32", "task.augment=photos")
    for refused, told in (
        (photos, "task.image_size=..."),
        ((*photos, "task.image_size=32"), "task.augment=photos"),
        ((*sized, "eval.global_batch=3", "plan.strategy=mirrored", "plan.local_devices=2"), "eval.global_batch=4"),
        ((*sized, "run.dir=/proc/nothing"), "run.dir"),
    ):
        ended = light_door(*refused)
        assert ended.code in (64, 73) and told in ended.err and ended.out == "", (refused, ended)
    assert light_door(*sized).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"p"}


def test_the_program_tfscale_is_the_same_door(cli):
    ended = cli("train", *RESNET, "plan.dry_run=true", program=("-m", "tfscale"))
    assert ended.code == 0
    assert "execution plan" in ended.out
    assert cli("trian", program=("-m", "tfscale")).code == 64


# A ResNet-8 of a quarter of the width: the same code, seconds long.
SHORT = (*RESNET, "task.depth=8", "task.width=4", "train.until=40st", "train.log_every=1st", "checkpoint.every=10st", "tracker=none",
         "eval.every=20st", "plan.steps_per_loop=4", "run.name=it", "export.at_end=false")  # fmt: skip


def rows(folder: Path) -> dict[int, dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row for row in map(json.loads, lines) if row["kind"] == "train"}


def losses(folder: Path) -> dict[int, float]:
    return {step: row["loss"] for step, row in rows(folder).items()}


def test_killed_in_mid_epoch_it_goes_on_bit_for_bit(cli, tmp_path):
    """The whole run is started as people do, the others are forked: both leave the same bits."""
    whole = cli(*SHORT, "run.root=whole", cold=True)
    assert whole.code == 0, whole.err
    killed = cli(*SHORT, "run.root=killed", environ={"TFSCALE_FAULT": "train.loop:step=27:kill"})
    assert killed.code == -signal.SIGKILL
    folder = tmp_path / "killed" / "resnet" / "it"
    assert not (folder / "result.json").exists()
    again = cli(*SHORT, "run.root=killed")
    assert again.code == 0, again.err
    assert "resuming at step 20 of 40" in again.out
    expected, got = losses(tmp_path / "whole" / "resnet" / "it"), losses(folder)
    assert sorted(got) == list(range(1, 41))
    assert got == expected  # float32 numbers written in full: equality is equality of bits
    manifests = [json.loads((p / "resnet/it/checkpoints/step-000000040/manifest.json").read_text())
                 for p in (tmp_path / "whole", tmp_path / "killed")]  # fmt: skip
    assert manifests[0]["files"] == manifests[1]["files"]  # the same bytes, hence the same weights

    third = cli(*SHORT, "run.root=killed", program=("-c", NO_TENSORFLOW))
    assert third.code == 0
    assert "already complete at step 40" in third.out
    assert third.seconds < 10


def test_result_and_mlflow_hold_everything(cli, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    job = (*RESNET, "task.depth=8", "task.width=4", "eval.every=3st", "run.name=it")
    ended = cli(*job, "train.until=6st")
    assert ended.code == 0, ended.err
    folder = tmp_path / "runs" / "resnet" / "it"
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "plan.json", "metrics.jsonl", "checkpoints", "result.json", "export"} <= names
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["step"]) == ("complete", 6)
    assert result["epochs"] == pytest.approx(6 * 64 / 4000)
    assert set(result["metrics"]) == {"loss", "accuracy"}
    assert {"start_up", "compile", "train", "input_wait", "eval", "checkpoint", "export"} <= set(result["seconds"])
    assert result["examples_per_second"] > 0
    assert result["model_flops"] > 1e6
    verdict = result["verdict"]
    assert result["mfu"] is None and "less than measuring the peak would" in verdict["mfu_unknown"]
    assert f"bounded by {verdict['bound']}: " in ended.out[ended.out.index("run folder") :]

    monkeypatch.chdir(tmp_path)
    client = MlflowClient("sqlite:///runs/mlflow.db")
    run = client.get_run(result["mlflow_run_id"])
    params, metrics = run.data.params, run.data.metrics
    assert params["task.width"] == "4"
    assert params["planned.precision"] in ("float32", "mixed_bfloat16")
    assert (params["verdict.bound"], params["verdict.override"]) == (verdict["bound"], verdict["override"] or "none")
    assert metrics["test/accuracy"] == pytest.approx(result["metrics"]["accuracy"])
    artifacts = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "plan.json", "result.json", "metrics.jsonl"} <= artifacts
    assert run.info.status == "FINISHED"

    longer = cli(*job, "train.until=8st", "export.at_end=false")
    assert longer.code == 0, longer.err
    assert "resuming at step 6 of 8" in longer.out
    assert json.loads((folder / "result.json").read_text())["mlflow_run_id"] == result["mlflow_run_id"]


def test_interrupt_from_the_keyboard(cli, data_dir, tmp_path):
    process = warm.Popen(
        [sys.executable, "-m", "tfscale.train", *SHORT, "train.until=100000st"],
        cwd=tmp_path,
        env={**os.environ, "TFSCALE_DATA_DIR": str(data_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "runs" / "resnet" / "it" / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not (metrics.exists() and metrics.stat().st_size):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 130
    assert err.strip().splitlines()[-1].startswith("tfscale: error[E-0130]")
    assert json.loads((metrics.parent / "exit.json").read_text())["exit_code"] == 130
