"""What the controllers of each launcher make of a manifest: the pods, the environment of each, and its name.

Written from what pods print under the real controllers: kube-apiserver 1.36, JobSet 0.12, Kubeflow Trainer 2.3 and the training operator 1.9.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Pod:
    """One pod: the name by which others reach it, its role, and what its container is told."""

    host: str
    role: str
    environ: dict[str, str]
    args: list[str]


def nested(node: Any, key: str) -> Iterator[Any]:
    """All values under this key, at any depth."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from nested(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from nested(value, key)


def laid_out(manifests: list[dict[str, Any]], root: Path) -> None:
    """What the kubelet makes of a ConfigMap: files that are links into a folder that is a link."""
    [held] = [each for each in manifests if each["kind"] == "ConfigMap"]
    [volume, *_] = [each for each in nested(manifests, "volumes") for each in each if each["name"] == "script"]
    assert volume["configMap"]["name"] == held["metadata"]["name"]
    (root / "..data").symlink_to("..2026_11_28")
    for item in volume["configMap"]["items"]:
        file = root / "..2026_11_28" / item["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(held["data"][item["key"]])
        top = item["path"].partition("/")[0]
        if not (root / top).is_symlink():
            (root / top).symlink_to(f"..data/{top}")


def pods(manifests: list[dict[str, Any]]) -> list[Pod]:
    """All pods that come of these manifests."""
    by_kind = {m["kind"]: m for m in manifests}
    if "TFJob" in by_kind:
        return list(_tfjob(by_kind["TFJob"]))
    if "JobSet" in by_kind:
        return list(_jobset(by_kind["JobSet"]["metadata"]["name"], by_kind["JobSet"]["spec"]))
    if "TrainJob" in by_kind:
        runtime = next(m for kind, m in by_kind.items() if kind.endswith("TrainingRuntime"))
        return list(_train_job(by_kind["TrainJob"], runtime))
    service = next(m for m in manifests if m["kind"] == "Service" and m["spec"].get("clusterIP") == "None")
    assert service["spec"]["publishNotReadyAddresses"]
    return [pod for m in manifests if m["kind"] == "Job" for pod in _job(m["metadata"]["name"], m["spec"], service)]


def serving(manifests: list[dict[str, Any]], found: list[Pod]) -> tuple[list[Pod], list[str]]:
    """(the pods that make batches for others, the names under which their dispatcher is reached)."""
    pods = [pod for pod in found if pod.role in ("dispatcher", "data")]
    names = [pod.host for pod in pods if pod.role == "dispatcher"]
    for each in manifests:
        if each["kind"] == "Deployment":
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()
            host = each["metadata"]["name"]
            pods += [_pod(host, each["spec"]["template"], {}) for _ in range(each["spec"]["replicas"])]
            names += [
                m["metadata"]["name"]
                for m in manifests
                if m["kind"] == "Service"
                and m["spec"]["selector"].items() <= labels.items()
                and "clusterIP" not in m["spec"]
            ]
    return pods, names


def _container(template: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    assert template["spec"]["enableServiceLinks"] is False
    containers = template["spec"]["containers"]
    return next(c for c in containers if name is None or c["name"] == name)


def _pod(host: str, template: dict[str, Any], told: dict[str, str], name: str | None = None) -> Pod:
    container = _container(template, name)
    own = {e["name"]: e.get("value", "10.1.2.3") for e in container.get("env", [])}  # else the pod's address
    role = template["metadata"]["labels"]["app.kubernetes.io/component"]
    return Pod(host, role, {"KUBERNETES_SERVICE_HOST": "10.96.0.1", **told, **own}, container["args"])


def _job(name: str, spec: dict[str, Any], service: dict[str, Any]) -> Iterator[Pod]:
    assert spec["completionMode"] == "Indexed"
    template = spec["template"]
    domain = template["spec"]["subdomain"]
    assert domain == service["metadata"]["name"]  # else the names don't resolve
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    for index in range(spec["completions"]):
        yield _pod(f"{name}-{index}.{domain}", template, {"JOB_COMPLETION_INDEX": str(index)})


def _jobset(name: str, spec: dict[str, Any], container: str | None = None) -> Iterator[Pod]:
    domain = spec["network"].get("subdomain", name)
    assert spec["network"]["enableDNSHostnames"]
    for replicated in spec["replicatedJobs"]:
        job = replicated["template"]["spec"]
        for number in range(replicated["replicas"]):
            for index in range(job["completions"]):
                host = f"{name}-{replicated['name']}-{number}-{index}.{domain}"
                told = {"JOB_COMPLETION_INDEX": str(index), **job.get("told", {}).get(index, {})}
                yield _pod(host, job["template"], told, job.get("container"))


def _train_job(train_job: dict[str, Any], runtime: dict[str, Any]) -> Iterator[Pod]:
    """Trainer writes the TrainJob's trainer into the container "node" of the job whose step is trainer."""
    name, trainer = train_job["metadata"]["name"], train_job["spec"]["trainer"]
    assert train_job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    policy = runtime["spec"]["mlPolicy"]
    spec = json.loads(json.dumps(runtime["spec"]["template"]["spec"]))
    nodes = trainer.get("numNodes", policy["numNodes"])
    for replicated in spec["replicatedJobs"]:
        step = replicated["template"].get("metadata", {}).get("labels", {})
        if step.get("trainer.kubeflow.org/trainjob-ancestor-step") != "trainer":
            continue
        job = replicated["template"]["spec"]
        job |= {"completions": nodes, "parallelism": nodes, "container": "node"}
        container = _container(job["template"], "node")
        container |= {key: trainer[key] for key in ("image", "args") if key in trainer}
        container["env"] = [*container.get("env", []), *trainer.get("env", [])]
        if "torch" in policy:
            job["told"] = {
                index: {
                    "PET_NNODES": str(nodes),
                    "PET_NPROC_PER_NODE": "1",
                    "PET_NODE_RANK": str(index),
                    "PET_MASTER_ADDR": f"{name}-node-0-0.{name}",
                    "PET_MASTER_PORT": "29500",
                }
                for index in range(nodes)
            }
    yield from _jobset(name, spec)


def _tfjob(job: dict[str, Any]) -> Iterator[Pod]:
    name, namespace = job["metadata"]["name"], job["metadata"].get("namespace", "default")
    replicas = {kind.lower(): replica for kind, replica in job["spec"]["tfReplicaSpecs"].items()}
    cluster = {}
    for kind, replica in replicas.items():
        ports = _container(replica["template"], "tensorflow")["ports"]
        port = next((p["containerPort"] for p in ports if p["name"] == "tfjob-port"), 2222)
        cluster[kind] = [f"{name}-{kind}-{i}.{namespace}.svc:{port}" for i in range(replica["replicas"])]
    alone = sum(replica["replicas"] for replica in replicas.values()) == 1
    for kind, replica in replicas.items():
        for index in range(replica["replicas"]):
            config = {"cluster": cluster, "task": {"type": kind, "index": index}, "environment": "cloud"}
            told = {} if alone else {"TF_CONFIG": json.dumps(config)}
            yield _pod(cluster[kind][index].partition(":")[0], replica["template"], told, "tensorflow")


_SRUN = """#!/bin/bash
# A step of srun: starts the command once for each node, and returns the highest code, as srun does.
nodelist=$SLURM_JOB_NODELIST; distribution=
while [[ $1 == --* ]]; do
    case $1 in --nodelist=*) nodelist=${1#*=};; --distribution=*) distribution=${1#*=};; esac
    echo "$1" >> "$SLURM_TEST_OUT/options"
    shift
done
IFS=, read -ra hosts <<< "$nodelist"
n=${#hosts[@]}
highest=0
trap 'for task in $(jobs -p); do kill "$task" $(pgrep -P "$task"); done' TERM  # a step's processes all hear it
for ((i = 0; i < n; i++)); do
    SLURM_STEP_NODELIST=$nodelist SLURM_STEP_TASKS_PER_NODE="1(x$n)" SLURM_STEP_NUM_TASKS=$n SLURM_PROCID=$i \\
    SLURM_STEP_ID=0 SLURM_DISTRIBUTION=${distribution:-cyclic} SLURMD_NODENAME=${hosts[i]} "$@" &
    tasks[i]=$!
done
for task in "${tasks[@]}"; do
    while kill -0 "$task" 2>/dev/null; do wait "$task"; code=$?; done
    wait "$task"; code=$?
    (( code > highest )) && highest=$code
done
exit $highest
"""
_TFSCALE = """#!/bin/bash
# Writes what it is told, and ends with the code that the test wants of this node, or waits for a signal.
env -0 > "$SLURM_TEST_OUT/$SLURMD_NODENAME"
printf '%s\\n' tfscale "$@" > "$SLURM_TEST_OUT/$SLURMD_NODENAME.args"
name=SLURM_TEST_CODE_$SLURMD_NODENAME
code=${!name:-${SLURM_TEST_CODE:-0}}
if [ "$code" = wait ]; then trap 'exit 143' TERM; sleep 30 & wait; fi
exit "$code"
"""
_SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then tr , '\\n' <<< "$3"; else echo "$@" >> "$SLURM_TEST_OUT/scontrol"; fi
"""


def slurm(script: str, folder: Path, **environ: str) -> tuple[list[Pod], int, str]:
    """Runs a batch script with stand-ins for Slurm's programs and tfscale: the processes, its code, what was asked."""
    folder.mkdir(parents=True)
    out = folder / "out"
    out.mkdir()
    for name, text in (("srun", _SRUN), ("scontrol", _SCONTROL), ("tfscale", _TFSCALE), ("job.sh", script)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    nodes = next(int(line.split("=")[1]) for line in script.splitlines() if line.startswith("#SBATCH --nodes="))
    hosts = [f"node{i}" for i in range(nodes)]
    told = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": ",".join(hosts), "SLURM_TEST_OUT": str(out), **environ}
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(folder / "job.sh")], env={"PATH": path, **told}, cwd=folder, timeout=60, check=False
    )
    found = []
    for host in hosts:
        if (out / host).exists():
            lines = (out / host).read_text().split("\0")
            env = dict(line.split("=", 1) for line in lines if "=" in line)
            args = (out / f"{host}.args").read_text().splitlines()
            found.append(Pod(host, env.get("TFSCALE_ROLE", "worker"), env, args))
    asked = (out / "scontrol").read_text() if (out / "scontrol").exists() else ""
    return found, done.returncode, asked
