"""The command `tfscale k8s`: what it prints, what it refuses, and what it doesn't need."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests_controllers import pods

from tfscale.errors import SecurityRefused, TfscaleError, UsageError
from tfscale.k8s.__main__ import main, text_of

GIVEN = ["+recipe=resnet", "train.until=5ep", "train.global_batch=128"]
JOB = ["job.image=registry/tfscale:1", "job.run_claim=runs"]
HARDWARE = Path(__file__).parents[1] / "golden" / "hardware"


def documents(*overrides: str) -> list[dict]:
    return list(yaml.safe_load_all(text_of(overrides)))


def test_the_containers_arguments_are_the_overrides_that_were_given():
    for kind in ("job=tfjob", "job=trainjob", "job=jobset", "job=job"):
        found = documents(*GIVEN, kind, *JOB, "job.workers=2")
        for pod in pods(found):
            assert pod.args == ["train", *GIVEN]
        assert found[-1]["metadata"]["name"] in ("resnet", "resnet-worker")
    assert "tfscale train +recipe=resnet train.until=5ep train.global_batch=128\n" in text_of([*GIVEN, "job=slurm"])


def test_rendering_imports_no_tensorflow_and_needs_no_kubectl(tmp_path):
    """The deadline that is promised, in seconds of the processor: beside other tests the clock runs faster."""
    program = (
        "import sys\nfrom tfscale.k8s.__main__ import main\n"
        "code = main(sys.argv[1:])\nassert not {'tensorflow', 'keras'} & sys.modules.keys()\nsys.exit(code)"
    )
    best = 99.0
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", program, *GIVEN, "job=tfjob", *JOB],
            capture_output=True,
            text=True,
            env={"PATH": str(tmp_path)},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best < 1.5


def test_what_is_printed_is_one_line_about_its_making_and_yaml_without_anchors():
    text = text_of([*GIVEN, "job=job", *JOB, "job.workers=2", "job.evaluator=true"])
    assert text.splitlines()[0] == "# tfscale k8s " + " ".join(
        [*GIVEN, "job=job", *JOB, "job.workers=2", "job.evaluator=true"]
    )
    assert "&id" not in text and "*id" not in text


@pytest.mark.parametrize(
    ("overrides", "says", "fix"),
    [
        ([*GIVEN], "no kind of job", "job=tfjob"),
        ([*GIVEN, "job=tfjop"], "did you mean 'tfjob'", ""),
        ([*GIVEN, "job=tfjob", *JOB, "job.worker=2"], "did you mean 'job.workers'", ""),
        ([*GIVEN, "job=tfjob"], "no image was given", "job.image="),
        ([*GIVEN, "job=tfjob", *JOB[:1]], "lost with its pod", "job.run_claim=CLAIM"),
        ([*GIVEN, "job=tfjob", *JOB[:1], "job.workers=2"], "no volume holds it", "run.store=s3://"),
        ([*GIVEN, "job=tfjob", *JOB, "job.workers=3"], "not divisible by 3", "train.global_batch="),
        ([*GIVEN, "job=tfjob", *JOB, "job.workers=two"], "job.workers", ""),
        ([*GIVEN, "job=tfjob", *JOB, "job.tpu=v5e"], "not None", "job.tpu_topology=2x4"),
        ([*GIVEN, "job=tfjob", *JOB, "job.tpu=v5e", "job.tpu_topology=2x4", "job.workers=2"], "one host", "workers=1"),
        ([*GIVEN, "job=tfjob", *JOB, "optimizer.name=sdg"], "did you mean 'sgd'", ""),
        (["job=tfjob", *JOB], "no recipe was chosen", "+recipe=resnet"),
        ([*GIVEN, "job=tfjob", *JOB, "job.name=A_b"], "is no name", "job.name=NAME"),
    ],
)
def test_what_would_fail_there_is_refused_here(overrides, says, fix):
    with pytest.raises(UsageError) as caught:
        text_of(overrides)
    assert says in caught.value.what and fix in caught.value.fix


def test_a_store_stands_for_a_volume():
    found = documents(*GIVEN, "job=job", JOB[0], "job.workers=2", "run.store=s3://bucket/runs")
    volumes = found[-1]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "runs", "emptyDir": {}} in volumes


@pytest.mark.parametrize(
    "override",
    [
        "+tracker.token=hunter2hunter2",
        "job.env={A: b, AWS_SECRET_ACCESS_KEY: hunter2hunter2}",
        "job.env.DB_PASSWORD=hunter2hunter2",
        "job.mlflow_uri=http://me:hunter2hunter2@mlflow:5000",
    ],
)
def test_secrets_are_not_written_into_manifests(override):
    with pytest.raises(SecurityRefused) as caught:
        text_of([*GIVEN, "job=job", *JOB, override])
    assert "hunter2" not in caught.value.line() and "job.secrets" in caught.value.fix


def test_secrets_of_a_group_file_are_not_printed_either(tmp_path):
    (tmp_path / "job").mkdir()
    file = tmp_path / "job" / "mine.yaml"
    for line in ("env: {DB_PASSWORD: hunter2hunter2}", "mlflow_uri: http://me:hunter2hunter2@mlflow:5000"):
        file.write_text(f"kind: job\nimage: here/tfscale:2\nrun_claim: runs\n{line}\n")
        with pytest.raises(SecurityRefused):
            text_of([*GIVEN, "job=mine"], config_dir=str(tmp_path))


@pytest.mark.parametrize("override", ["job.env={A: b}", "job.env.A=b"])
def test_variables_and_selectors_are_given_as_any_key(override):
    found = documents(*GIVEN, "job=job", *JOB, override, "job.node_selector.pool=gpu")
    pod = found[-1]["spec"]["template"]["spec"]
    assert {"name": "A", "value": "b"} in pod["containers"][0]["env"] and pod["nodeSelector"] == {"pool": "gpu"}


def test_resources_come_from_described_hardware():
    file = f"plan.hardware={HARDWARE / 'h100x8.json'}"
    found = documents(*GIVEN, "job=job", *JOB, file)
    [container] = found[-1]["spec"]["template"]["spec"]["containers"]
    facts = json.loads((HARDWARE / "h100x8.json").read_text())
    assert container["resources"]["limits"] == {
        "nvidia.com/gpu": 8
    }  # a whole machine is more than Kubernetes gives away
    selector = found[-1]["spec"]["template"]["spec"]["nodeSelector"]
    assert selector == {"nvidia.com/gpu.product": facts["gpus"][0]["name"].replace(" ", "-")}
    assert container["args"] == ["train", *GIVEN]  # the machine there is its own description
    found = documents(*GIVEN, "job=job", *JOB, file, "job.gpus=4", "job.cpus=3")
    limits = found[-1]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (limits["nvidia.com/gpu"], limits["cpu"]) == (4, "3")
    found = documents(*GIVEN, "job=job", *JOB, f"plan.hardware={HARDWARE / 'container-2core-4gib.json'}")
    limits = found[-1]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "2", "memory": "4096Mi"}


def test_the_users_own_groups(tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "mine.yaml").write_text(
        "kind: jobset\nimage: here/tfscale:2\nrun_claim: all-runs\nqueue: gold\n"
    )
    text = text_of([*GIVEN, "job=mine"], config_dir=str(tmp_path))
    jobset = list(yaml.safe_load_all(text))[-1]
    assert jobset["kind"] == "JobSet" and jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gold"


def test_apply_tries_on_the_server_first(tmp_path, monkeypatch, capfd):
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "$@" >> "$0.log"\ncat > "$0.in"\nexit "$(cat "$0.code")"\n')
    kubectl.chmod(0o755)
    (tmp_path / "kubectl.code").write_text("0")
    command = [*GIVEN, "job=job", *JOB, "--apply"]
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert main(command) == 0
    assert (tmp_path / "kubectl.log").read_text() == "apply --dry-run=server -f -\napply -f -\n"
    assert (tmp_path / "kubectl.in").read_text() == text_of(command[:-1])
    # Trainer refuses a TrainJob whose runtime isn't there, which a dry run doesn't make
    kubectl.write_text(kubectl.read_text().replace('"$0.in"', '"$0.in.$2"'))
    assert main([*GIVEN, "job=trainjob", *JOB, "--apply"]) == 0
    kinds = [
        [each["kind"] for each in yaml.safe_load_all((tmp_path / f"kubectl.in.{how}").read_text())]
        for how in ("--dry-run=server", "-f")
    ]
    assert kinds == [["NetworkPolicy", "TrainingRuntime"], ["NetworkPolicy", "TrainingRuntime", "TrainJob"]]
    (tmp_path / "kubectl.code").write_text("1")
    (tmp_path / "kubectl.log").unlink()
    assert main(command) == 1  # what the server refuses is not applied in part
    assert (tmp_path / "kubectl.log").read_text() == "apply --dry-run=server -f -\n"
    kubectl.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(command) == 64
    assert "kubectl is not installed" in capfd.readouterr().err


def test_a_run_is_not_given_a_job():
    from tfscale.composition import compose

    with pytest.raises(TfscaleError):
        compose([*GIVEN, "job=tfjob"])
