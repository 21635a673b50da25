"""Kind slurm: a batch script with one process a node.

Workers alone are one step of srun, which tells each of them the others. With other roles each process is a step of its
own that is told the cluster by TFSCALE_CLUSTER.
"""

from __future__ import annotations

import shlex

from tfscale.cluster.addresses import ROLES
from tfscale.k8s.spec import Job, JobSpec

_HEAD = """\
#!/bin/bash
{directives}

set -u
requeue() {{
    # Codes of 128 or more: a peer was lost, or Slurm took the nodes away. The same command resumes.
    if [ "$1" -ge 128 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {max_restarts} ]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$1"
}}
"""
_WORKERS = """\
srun --kill-on-bad-exit=0 {options}{command}
requeue $?
"""
_ROLES = """\
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export TFSCALE_CLUSTER="{cluster}"
start() {{
    TFSCALE_ROLE=$1 TFSCALE_INDEX=$2 srun --nodes=1 --ntasks=1 --nodelist="${{hosts[$3]}}" --exact \\
        {options}{command} &
    processes+=($!)
}}
processes=()
{starts}
code=0
for process in "${{processes[@]}}"; do
    wait "$process" || {{ ended=$?; [ "$ended" -gt "$code" ] && code=$ended; }}
done
requeue "$code"
"""


def script(job: Job) -> str:
    """The batch script of one job."""
    spec, roles = job.spec, job.spec.roles
    command = shlex.join(["tfscale", "train", *job.overrides])
    options = f"--container-image={shlex.quote(spec.image)} " if spec.image else ""
    env = spec.env | ({"MLFLOW_TRACKING_URI": spec.mlflow_uri} if spec.mlflow_uri else {})
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())
    head = _HEAD.format(directives="\n".join(_directives(job)), max_restarts=spec.max_restarts) + exports
    if list(roles) == ["worker"]:
        return head + _WORKERS.format(options=options, command=command)
    places = [(role, index) for role, count in roles.items() for index in range(count)]
    starts = "\n".join(f"start {role} {index} {host}" for host, (role, index) in enumerate(places))
    return head + _ROLES.format(cluster=_cluster(spec, places), options=options, command=command, starts=starts)


def _directives(job: Job) -> list[str]:
    spec = job.spec
    options = {
        "job-name": spec.name,
        "nodes": sum(spec.roles.values()),
        "ntasks-per-node": 1,
        "cpus-per-task": spec.cpus,
        "mem": _megabytes(spec.memory) if spec.memory else None,
        "gpus-per-node": spec.gpus or None,
        "time": spec.time_limit,
        "partition": spec.queue,
        "output": f"{spec.name}-%j.log",
        "open-mode": "append",
        "signal": f"TERM@{job.grace_period}",  # before the time limit, so that a save is done by then
    }
    given = [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    return [*given, "#SBATCH --requeue"]


def _megabytes(quantity: str) -> str:
    """Kubernetes' quantity as Slurm counts, in MiB."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    unit = next((unit for unit in units if quantity.endswith(unit)), "")
    return f"{int(float(quantity.removesuffix(unit)) * units.get(unit, 1) / 2**20)}M"


def _cluster(spec: JobSpec, places: list[tuple[str, int]]) -> str:
    hosts = {
        role: ",".join(f"${{hosts[{host}]}}:{spec.port}" for host, (other, _) in enumerate(places) if other == role)
        for role in ROLES
        if role != "evaluator"
    }
    return " ".join(f"{role}={found}" for role, found in hosts.items() if found)
