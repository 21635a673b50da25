"""Every manifest against the real schemas, strictly: unknown fields are refused, as an API server does with --validate=strict."""

from __future__ import annotations

import copy
import itertools

import pytest
from support.controllers import nested

from tfscale.errors import UsageError
from tfscale.k8s.manifests import Job, JobSpec, render
from tfscale.k8s.quantities import is_quantity, number

KINDS = ("tfjob", "trainjob", "jobset", "job", "runtime")
DEVICES = {
    "cpu": {"cpus": "8", "memory": "32Gi"},
    "gpu": {"gpus": 8, "gpu_product": "NVIDIA-H100-80GB-HBM3", "cpus": "500m"},
    "tpu": {"tpu": "v5e", "tpu_topology": "2x4"},
}
ALL_OPTIONS = {
    "namespace": "ml",
    "node_selector": {"pool": "big"},
    "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
    "data_claim": "photos",
    "mlflow_uri": "http://mlflow:5000",
    "env": {"TF_CPP_MIN_LOG_LEVEL": "1"},
    "secrets": ["store"],
    "config_maps": ["site"],
    "service_account": "trainer",
    "pull_secrets": ["registry"],
    "priority_class": "high",
    "queue": "gold",
    "ttl": 3600,
}


def manifests(kind: str, **options):
    spec = JobSpec(**{"kind": kind, "name": "digits", "image": "registry/tfscale:1", "run_claim": "runs", **options})
    return render(Job(spec, ("train", "+recipe=resnet", "train.until=5ep")))


@pytest.mark.parametrize("kind", KINDS)
def test_every_manifest_is_valid(kind, validate):
    count = 0
    for device, evaluator, ps, more in itertools.product(
        DEVICES, (False, True), (0, 2), ({}, ALL_OPTIONS, {**ALL_OPTIONS, "volcano": True})
    ):
        workers = {"workers": 1 if device == "tpu" else 4}
        options = {**DEVICES[device], **workers, "evaluator": evaluator, "ps": ps, **more}
        if not ps and kind != "runtime":
            options |= {"data_workers": 3, "data_cpus": "16"}
        if kind == "trainjob":
            options.pop("ttl", None)
        if device == "tpu" and ps:
            with pytest.raises(UsageError, match="without parameter servers"):
                manifests(kind, **options)
            continue
        for manifest in manifests(kind, **options):
            assert validate(manifest) == [], (manifest["kind"], options)
            count += 1
    assert count >= 30


def test_a_broken_manifest_is_not_valid(validate):
    for kind in KINDS:
        for manifest in manifests(kind, workers=2):
            assert validate({**manifest, "spec": {**manifest["spec"], "replica": 2}})
    job = next(m for m in manifests("job") if m["kind"] == "Job")
    broken = copy.deepcopy(job)
    broken["spec"]["template"]["spec"]["containers"][0]["arguments"] = []
    assert validate(broken) and not validate(job)


def test_the_restricted_standard_is_kept():
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    for kind in KINDS:
        for pod in templates(manifests(kind, evaluator=True)):
            assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is False
            for container in pod["containers"]:
                security = container["securityContext"]
                assert security["allowPrivilegeEscalation"] is False and security["capabilities"] == {"drop": ["ALL"]}
                assert security["readOnlyRootFilesystem"] and not security["privileged"]


def test_only_the_jobs_own_pods_reach_its_pods():
    for kind in ("tfjob", "trainjob", "jobset", "job"):
        found = manifests(kind, ps=1, evaluator=True)
        policy = next(m for m in found if m["kind"] == "NetworkPolicy")["spec"]
        assert policy["policyTypes"] == ["Ingress"]
        assert policy["ingress"] == [{"from": [{"podSelector": policy["podSelector"]}]}]
        chosen = policy["podSelector"]["matchLabels"].items()
        everyone = [
            t["metadata"]["labels"] for m in found for t in nested(m, "template") if "containers" in t.get("spec", {})
        ]
        assert len(everyone) == 4 and all(chosen <= labels.items() for labels in everyone)


def test_restarts_follow_our_exit_codes_and_the_count_of_pods():
    jobs = {
        m["metadata"]["name"]: m["spec"]
        for m in manifests("job", workers=4, ps=2, max_restarts=5)
        if m["kind"] == "Job"
    }
    assert sorted(jobs) == ["digits-chief", "digits-ps", "digits-worker"]
    assert {(spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) for spec in jobs.values()} == {(5, 0)}
    fail, ignore, stopped = jobs["digits-worker"]["podFailurePolicy"]["rules"]
    codes = fail["onExitCodes"]["values"]
    assert {64, 65, 66, 70, 73, 74, 76, 77, 78, 81} <= set(codes) and not {0, 130, 137, 138, 143} & set(codes)
    assert ignore["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert stopped["action"] == "Ignore" and stopped["onExitCodes"]["values"] == [143]
    [jobset] = [m for m in manifests("jobset", max_restarts=5) if m["kind"] == "JobSet"]
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 5
    [tfjob] = [m for m in manifests("tfjob", workers=4, max_restarts=5) if m["kind"] == "TFJob"]
    assert tfjob["spec"]["runPolicy"]["backoffLimit"] == 20
    assert tfjob["spec"]["tfReplicaSpecs"]["Worker"]["restartPolicy"] == "ExitCode"


def test_pods_are_given_time_for_a_save():
    job = Job(JobSpec(kind="job", name="digits", image="i", run_claim="runs"), (), grace=119.5)
    for pod in templates(render(job)):
        assert pod["terminationGracePeriodSeconds"] == 125


def test_servers_get_no_gpu_and_an_evaluator_one():
    found = {t["metadata"]["labels"]["app.kubernetes.io/component"]: t["spec"]["containers"][0]["resources"]
             for m in manifests("jobset", gpus=8, ps=1, evaluator=True, memory="9Gi") for t in nested(m, "template")
             if "containers" in t.get("spec", {})}  # fmt: skip
    gpus = {role: each["limits"].get("nvidia.com/gpu") for role, each in found.items()}
    assert gpus == {"chief": 8, "worker": 8, "ps": None, "evaluator": 1}
    assert all(each["limits"] == each["requests"] for each in found.values())


@pytest.mark.parametrize(
    ("text", "value"),
    [("2097152Ki", 2**31), ("2Gi", 2**31), ("500m", 0.5), ("1k", 1000), ("1e3", 1000), ("1E", 1e18), (".5Mi", 2**19),
     ("1Ei", 2**60), ("2.", 2), ("3E-2", 0.03)],
)  # fmt: skip
def test_quantities_are_those_of_kubernetes(text, value):
    assert is_quantity(text) and number(text) == value


@pytest.mark.parametrize("text", ["2097152ki", "1K", "1mi", "1 Gi", "Gi", "1GiB", "", ".", "-1", "1e", "nan"])
def test_what_the_api_server_refuses_is_no_quantity(text):
    assert not is_quantity(text)
    with pytest.raises(ValueError):
        number(text)


def test_memory_in_thousandths_of_a_byte_is_refused():
    with pytest.raises(UsageError, match=r"512m is 0.512 bytes.*512Mi"):
        manifests("job", memory="512m")
    assert manifests("job", memory="2097152Ki", cpus="500m")


def test_data_workers_end_with_the_job_and_have_what_reading_needs():
    for kind in ("jobset", "trainjob"):
        found = manifests(
            kind, workers=2, evaluator=True, gpus=8, data_workers=3, data_memory="9Gi", data_claim="photos"
        )
        [jobs], [policy] = nested(found, "replicatedJobs"), nested(found, "successPolicy")
        serve = {job["name"]: job["template"]["spec"] for job in jobs if job["name"] in ("dispatcher", "data")}
        trains = {job["name"] for job in jobs} - set(serve)
        assert policy == {"operator": "All", "targetReplicatedJobs": sorted(trains, reverse=True)} and len(trains) == 2
        assert [spec["completions"] for spec in serve.values()] == [1, 3]
        for spec in serve.values():
            pod = spec["template"]["spec"]
            assert pod["restartPolicy"] == "OnFailure" and spec["backoffLimit"] > 10**6
            assert {volume["name"] for volume in pod["volumes"]} == {"tmp", "shared-memory", "data"}
            limits = pod["containers"][0]["resources"]["limits"]
            assert "nvidia.com/gpu" not in limits and "nodeSelector" not in pod
        assert serve["data"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"memory": "9Gi"}
    assert not list(nested(manifests("jobset"), "successPolicy"))
    for options, why in (
        ({"kind": "runtime"}, "one job's"),
        ({"kind": "slurm"}, "starts none"),
        ({"kind": "jobset", "ps": 1}, "reads for itself"),
        ({"kind": "jobset", "exclusive_topology": "zone"}, "would each take"),
    ):
        with pytest.raises(UsageError, match=why):
            manifests(data_workers=1, **options)
    with pytest.raises(UsageError, match=r"job.data_cpus: there are no data workers"):
        manifests("job", data_cpus="8")


def test_gangs():
    group = next(m for m in manifests("job", workers=4, ps=2, volcano=True, queue="gold") if m["kind"] == "PodGroup")
    assert group["spec"] == {"minMember": 7, "queue": "gold"}
    for kind in ("job", "jobset"):
        for m in manifests(kind, workers=4, volcano=True):
            for t in nested(m, "template"):
                if "containers" in t.get("spec", {}):
                    assert t["spec"]["schedulerName"] == "volcano"
                    assert t["metadata"]["annotations"]["scheduling.k8s.io/group-name"] == "digits"
    [runtime] = [m for m in manifests("trainjob", volcano=True, queue="gold") if m["kind"] == "TrainingRuntime"]
    assert runtime["spec"]["template"]["metadata"]["annotations"] == {"scheduling.volcano.sh/queue-name": "gold"}


def templates(found) -> list[dict]:
    pods = [t["spec"] for m in found for t in nested(m, "template") if "containers" in t.get("spec", {})]
    assert pods
    return pods
