"""job.pod: what a file adds to every pod of every kind, and what it may not."""

from __future__ import annotations

import pytest
import yaml
from support.controllers import nested

from tfscale.errors import SecurityRefused, UsageError
from tfscale.k8s.printed import text_of

KINDS = ("tfjob", "trainjob", "jobset", "job", "runtime")
JOB = ["job.image=registry/tfscale:1", "job.run_claim=runs"]
GIVEN = """
metadata:
  annotations: {team: vision, sidecar.istio.io/inject: "true"}
  labels: {cost-center: "7"}
spec:
  runtimeClassName: gvisor
  activeDeadlineSeconds: 86400
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 1
        podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {a: b}}}
  topologySpreadConstraints:
  - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {a: b}}}
  tolerations: [{key: spot, operator: Exists}]
  nodeSelector: {pool: big}
  volumes:
  - {name: keys, secret: {secretName: store-keys}}
  - {name: tmp, emptyDir: {sizeLimit: 5Gi}}
  containers:
  - volumeMounts: [{name: keys, mountPath: /etc/keys, readOnly: true}]
    env:
    - {name: DB_PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
    - {name: EXTRA, value: "1"}
  - {name: proxy, image: "proxy:1"}
"""


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "pod.yaml").write_text(text)
        return f"job.pod={tmp_path / 'pod.yaml'}"

    return write


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_in_every_pod_and_every_manifest_is_valid(kind, file, validate):
    words = [] if kind == "runtime" else ["+recipe=resnet", "job.evaluator=true", "job.node_selector.disk=ssd"]
    found = list(yaml.safe_load_all(text_of([*words, f"job={kind}", *JOB, file(GIVEN), "job.gpus=1"])))
    templates = [t for t in nested(found, "template") if "containers" in t.get("spec", {})]
    assert len(templates) == (1 if kind == "runtime" else 2)
    for template in templates:
        meta, spec = template["metadata"], template["spec"]
        assert meta["annotations"]["team"] == "vision" and meta["labels"]["cost-center"] == "7"
        assert meta["labels"]["app.kubernetes.io/name"] == "tfscale"
        assert (spec["runtimeClassName"], spec["activeDeadlineSeconds"]) == ("gvisor", 86400)
        assert [each["key"] for each in spec["tolerations"]] == ["nvidia.com/gpu", "spot"]
        assert spec["nodeSelector"] == {"pool": "big"} | ({} if kind == "runtime" else {"disk": "ssd"})
        volumes = {each["name"]: each for each in spec["volumes"]}
        assert volumes["tmp"]["emptyDir"] == {"sizeLimit": "5Gi"} and volumes["runs"]["persistentVolumeClaim"]
        training, proxy = spec["containers"]
        assert training["image"] == "registry/tfscale:1" and training["args"][0] == "train" and proxy["name"] == "proxy"
        assert {"/work/runs", "/etc/keys"} <= {each["mountPath"] for each in training["volumeMounts"]}
        assert {"EXTRA", "DB_PASSWORD"} <= {each["name"] for each in training["env"]}
    for manifest in found:
        assert validate(manifest) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "metadata and spec of a pod's template"),
        ("sepc: {}", "did you mean 'spec'"),
        ("spec: {afinity: {}}", "did you mean 'affinity'"),
        ("spec: {volumes: {name: x}}", "spec.volumes is a list"),
        ("spec: {volumes: [{emptyDir: {}}]}", "has no name"),
        ("spec: {activeDeadlineSeconds: soon}", "is a whole number"),
        ("spec: {restartPolicy: Always}", "is the job's own"),
        ("spec: {terminationGracePeriodSeconds: 1}", "cluster.grace"),
        ("spec: {containers: [{image: other}]}", "image is the job's own"),
        ("spec: {containers: [{volumeMount: []}]}", "did you mean 'volumeMounts'"),
        ("metadata: {name: x}", "metadata.name can't be added"),
        ("metadata: {labels: {a: 1}}", "in quotes"),
        ("spec: {nodeSelector: {gpu: yes}}", "in quotes"),
        ("spec: {containers: [{env: [{name: A, value: 1}]}]}", "in quotes"),
        ("metadata: {labels: {app.kubernetes.io/instance: other}}", "are the job's own"),
        ("spec: [", "can't be read"),
    ],
)
def test_what_can_not_be_merged_is_refused(file, text, told):
    with pytest.raises(UsageError) as caught:
        text_of(["+recipe=resnet", "job=job", *JOB, file(text)])
    assert told in caught.value.what and caught.value.where == "job.pod"


def test_a_secret_in_it_is_refused(file):
    text = "spec: {containers: [{env: [{name: DB_PASSWORD, value: hunter2hunter2}]}]}"
    with pytest.raises(SecurityRefused) as caught:
        text_of(["+recipe=resnet", "job=job", *JOB, file(text)])
    assert "hunter2" not in caught.value.line()


def test_an_absent_file_and_slurm(file, tmp_path):
    for word, told in ((f"job.pod={tmp_path / 'absent'}", "can't be read"), (file("spec: {}"), "Slurm has no pods")):
        with pytest.raises(UsageError, match=told):
            text_of(["+recipe=resnet", "job=slurm" if "Slurm" in told else "job=job", *JOB[:1], JOB[1], word])


def test_exclusive_topology(validate):
    key = "cloud.google.com/gke-nodepool"
    for kind in ("jobset", "trainjob"):
        words = ["+recipe=resnet", f"job={kind}", *JOB, f"job.exclusive_topology={key}"]
        found = list(yaml.safe_load_all(text_of(words)))
        assert all(validate(each) == [] for each in found)
        [of] = [m for m in found if m["kind"] in ("JobSet", "TrainingRuntime")]
        meta = of["metadata"] if kind == "jobset" else of["spec"]["template"]["metadata"]
        assert meta["annotations"] == {"alpha.jobset.sigs.k8s.io/exclusive-topology": key}
    with pytest.raises(UsageError, match="no controller of kind tfjob"):
        text_of(["+recipe=resnet", "job=tfjob", *JOB, f"job.exclusive_topology={key}"])
