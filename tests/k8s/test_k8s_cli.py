"""The command `tfscale k8s`: what it prints, what it refuses, and what it doesn't need."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.controllers import nested, pods

from tfscale.errors import SecurityRefused, TfscaleError, UsageError
from tfscale.k8s.__main__ import main
from tfscale.k8s.printed import text_of

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


_KUBECTL = """#!/bin/sh
# Notes what it is asked and told, and ends with the next code that lies ready.
echo "$@" >> "$0.log"
(cat; echo ---) >> "$0.in.$1.$2"
[ "$1" = get ] && echo "uid-of-$3"
code=$(head -n 1 "$0.codes"); sed -i 1d "$0.codes"
code=${code:-0}
[ "$code" = 0 ] || echo "${code#* }" >&2
exit "${code%% *}"
"""


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """Stands for kubectl; the folder of what it was asked. `codes` holds a line for each call, "0" or a code and what is
    told with it."""
    program = tmp_path / "kubectl"
    program.write_text(_KUBECTL)
    program.chmod(0o755)
    (tmp_path / "kubectl.codes").write_text("")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def asked(folder: Path) -> list[str]:
    return (folder / "kubectl.log").read_text().splitlines()


def applied(folder: Path, how: str = "-f") -> list[dict]:
    return [each for each in yaml.safe_load_all((folder / f"kubectl.in.apply.{how}").read_text()) if each]


def kinds(found: list[dict]) -> list[str]:
    return [each["kind"] for each in found]


def test_apply_tries_on_the_server_first_and_gives_the_job_what_stands_around_it(kubectl):
    command = [*GIVEN, "job=job", *JOB, "job.namespace=ml", "job.evaluator=true", "--apply"]
    assert main(command) == 0
    *tried, first, second, service, policy = asked(kubectl)
    assert tried == ["apply --dry-run=server -f -", "apply -f -"]
    assert [first, second] == [
        f"get Job.v1.batch resnet-{role} -n ml -o jsonpath={{.metadata.uid}}" for role in ("worker", "evaluator")
    ]
    assert service.startswith("patch Service resnet -n ml --type=merge -p ")
    assert policy.startswith("patch NetworkPolicy.v1.networking.k8s.io resnet -n ml --type=merge -p ")
    for patch in (service, policy):
        owners = json.loads(patch.partition("-p ")[2])["metadata"]["ownerReferences"]
        assert [(o["apiVersion"], o["kind"], o["name"]) for o in owners] == [
            ("batch/v1", "Job", "resnet-worker"),
            ("batch/v1", "Job", "resnet-evaluator"),
        ]
        assert [o["uid"] for o in owners] == ["uid-of-resnet-worker", "uid-of-resnet-evaluator"]
    assert applied(kubectl) == documents(*command[:-1])


def test_what_the_server_refuses_is_not_applied_in_part(kubectl):
    (kubectl / "kubectl.codes").write_text("1 no\n")
    assert main([*GIVEN, "job=job", *JOB, "--apply"]) == 1
    assert asked(kubectl) == ["apply --dry-run=server -f -"]


def test_a_train_job_is_applied_once_trainer_has_seen_its_runtime(kubectl, monkeypatch, capfd):
    """Its webhook refuses a TrainJob whose runtime was made a moment ago; a dry run makes none."""
    monkeypatch.setattr("tfscale.k8s.apply.time.sleep", lambda seconds: None)
    refused = "1 denied the request: spec.runtimeRef: the TrainingRuntime is not found"
    (kubectl / "kubectl.codes").write_text(f"0\n0\n{refused}\n{refused}\n")
    assert main([*GIVEN, "job=trainjob", *JOB, "--apply"]) == 0
    assert kinds(applied(kubectl, "--dry-run=server")) == ["NetworkPolicy", "TrainingRuntime"]
    assert [line.partition(" ")[0] for line in asked(kubectl)] == ["apply"] * 5 + ["get", "patch", "patch"]
    assert kinds(applied(kubectl)) == ["NetworkPolicy", "TrainingRuntime", *3 * ["TrainJob"]]
    (kubectl / "kubectl.codes").write_text("0\n0\n1 denied: exceeded quota\n")
    assert main([*GIVEN, "job=trainjob", *JOB, "--apply"]) == 1
    assert "exceeded quota" in capfd.readouterr().err


def test_what_may_not_be_given_to_the_job_is_named(kubectl, capfd):
    (kubectl / "kubectl.codes").write_text("0\n0\n0\n1 forbidden\n")
    assert main([*GIVEN, "job=job", *JOB, "--apply"]) == 0
    assert "Service resnet could not be given to its job" in capfd.readouterr().err


def test_without_kubectl_nothing_is_applied(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*GIVEN, "job=job", *JOB, "--apply"]) == 64
    assert "kubectl is not installed" in capfd.readouterr().err


def test_own_groups_travel_to_the_pods_and_mean_the_same_there(tmp_path):
    """In a ConfigMap, whose keys can't be paths; what describes jobs stays here."""
    from tfscale.composition.hydra_compose import compose

    mine = tmp_path / "mine"
    for name, text in {
        "recipe/my own.yaml": "# @package _global_\ndefaults:\n  - /recipe/resnet\n  - override /data: mnist\n"
        "train: {until: 7ep, global_batch: 128}\nrun: {recipe: own}\n",
        "recipe/my_own.yaml": "# @package _global_\ntrain: {until: 9ep}\n",
        "job/gold.yaml": "kind: jobset\nimage: here/tfscale:2\nrun_claim: runs\n",
        "notes.txt": "not for pods",
    }.items():
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(text)
    words = ["+recipe=resnet", "+recipe@_global_=my_own"]
    for kind in ("job=tfjob", "job=trainjob", "job=jobset", "job=job", "job=gold"):
        found = list(yaml.safe_load_all(text_of([*words, kind, *JOB], config_dir=str(mine))))
        [held] = [each for each in found if each["kind"] == "ConfigMap"]
        assert len(held["data"]) == 2 and all(re.fullmatch(r"[-._a-zA-Z0-9]+", key) for key in held["data"])
        for template in nested(found, "template"):
            if "containers" not in template.get("spec", {}):
                continue
            [volume] = [each for each in template["spec"]["volumes"] if each["name"] == "config"]
            assert volume["configMap"]["name"] == held["metadata"]["name"]
            [mount] = [m for m in template["spec"]["containers"][0]["volumeMounts"] if m["name"] == "config"]
            there = tmp_path / kind.replace("=", "-")
            for item in volume["configMap"]["items"]:
                (there / item["path"]).parent.mkdir(parents=True, exist_ok=True)
                (there / item["path"]).write_text(held["data"][item["key"]])
        for pod in pods([each for each in found if each["kind"] != "ConfigMap"]):
            assert pod.args == ["train", "--config-dir", mount["mountPath"], *words]
        assert compose(words, config_dir=str(there)).yaml == compose(words, config_dir=str(mine)).yaml
    assert f"tfscale train --config-dir {mine} +recipe" in text_of([*words, "job=slurm"], config_dir=str(mine))
    assert f"tfscale k8s --config-dir {mine} +recipe" in text_of([*words, *JOB, "job=job"], config_dir=str(mine))


def test_own_groups_that_can_not_travel_are_refused(tmp_path):
    (tmp_path / "recipe").mkdir()
    file = tmp_path / "recipe" / "mine.yaml"
    file.write_text("# @package _global_\ndefaults: [/recipe/resnet]\n# " + 1_000_000 * "x")
    with pytest.raises(UsageError, match="a ConfigMap holds 1 MiB"):
        text_of(["+recipe=resnet", "job=job", *JOB], config_dir=str(tmp_path))
    file.write_text("# @package _global_\ntracker: {api_token: hunter2hunter2}\n")
    with pytest.raises(SecurityRefused):
        text_of(["+recipe=resnet", "job=job", *JOB], config_dir=str(tmp_path))
    file.write_text("# @package _global_\ntracker: {api_token: '${oc.env:TOKEN}'}\n")
    assert "oc.env:TOKEN" in text_of(["+recipe=resnet", "job=job", *JOB], config_dir=str(tmp_path))


def test_what_controllers_do_and_images_need_is_said(capfd):
    told = {kind: text_of([*GIVEN, f"job={kind}", *JOB]) for kind in ("tfjob", "job", "jobset", "trainjob")}
    assert "one evicted, drained or deleted pod ends a TFJob for good" in told["tfjob"]
    assert "ever later" in told["job"] and "# Note" not in told["jobset"] + told["trainjob"]
    assert "must give run.store" in text_of(["job=runtime", JOB[0]])
    assert "# Note" not in text_of(["job=runtime", *JOB])
    assert main([*GIVEN, "job=jobset", *JOB, "extensions.allow=[mypkg.]"]) == 0
    printed = capfd.readouterr()
    assert "the image must hold mypkg" in printed.out and "the image must hold mypkg" in printed.err


def test_a_run_of_the_shared_runtime_is_not_lost_with_its_pod(cli):
    """Its pods know that their folder is gone with them: without a store the run is refused, and so is its dry run."""
    [runtime] = list(yaml.safe_load_all(text_of(["job=runtime", JOB[0]])))
    [container] = [c for t in nested(runtime, "template") for c in t.get("spec", {}).get("containers", [])]
    told = {each["name"]: each["value"] for each in container["env"]}
    lost = cli(*GIVEN, "run.root=/work/runs", "plan.dry_run=true", environ=told)
    assert (lost.code, "gone with its pod" in lost.err) == (64, True), lost.err
    kept = cli(*GIVEN, "run.root=/work/runs", "plan.dry_run=true", "run.store=file:///tmp/runs", environ=told)
    assert kept.code == 0, kept.err
    [runtime] = list(yaml.safe_load_all(text_of(["job=runtime", *JOB])))
    [container] = [c for t in nested(runtime, "template") for c in t.get("spec", {}).get("containers", [])]
    assert not container["env"]


def test_a_run_is_not_given_a_job():
    from tfscale.composition.hydra_compose import compose

    with pytest.raises(TfscaleError):
        compose([*GIVEN, "job=tfjob"])
