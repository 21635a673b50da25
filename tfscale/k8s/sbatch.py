"""Kind slurm: a batch script with one process a node.

Workers alone are one step of srun, which tells each of them the others. With other roles each process is a step of its
own that is told the cluster by TFSCALE_CLUSTER. The script ends with the code that says what to do: one that would come
again wins over the 138 of those who lost a peer by it, which srun alone would return.
"""

from __future__ import annotations

import math
import re
import shlex

from tfscale.cluster.addresses import ROLES
from tfscale.k8s.quantities import number
from tfscale.k8s.spec import Job, JobSpec

_HEAD = """\
#!/bin/bash
{directives}

set -u
# srun returns the highest code of a step; a task that ends with a lower one than 128 leaves it in this file.
hopeless=$PWD/.tfscale-$SLURM_JOB_ID
rm -f "$hopeless"
finish() {{
    code=$1
    [ -s "$hopeless" ] && code=$(head -n 1 "$hopeless")
    rm -f "$hopeless"
    # 128 or more: a peer was lost, or Slurm took the nodes away. The same command resumes.
    if [ "$code" -ge 128 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {max_restarts} ]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}}
task='trap : TERM INT; "$@"; code=$?; [ $code -gt 0 ] && [ $code -lt 128 ] && echo $code >> "$0"; exit $code'
"""
_WORKERS = """\
srun --distribution=block --kill-on-bad-exit=0 {options}bash -c "$task" "$hopeless" \\
    {command}
finish $?
"""
_ROLES = """\
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export TFSCALE_CLUSTER="{cluster}"
start() {{
    TFSCALE_ROLE=$1 TFSCALE_INDEX=$2 srun --nodes=1 --ntasks=1 --nodelist="${{hosts[$3]}}" --exact {options}\\
        bash -c "$task" "$hopeless" {command} &
}}
training=()
others=()
{starts}
ended=0
for process in "${{training[@]}}"; do
    wait "$process" || {{ code=$?; [ "$code" -gt "$ended" ] && ended=$code; }}
done
# Servers and the evaluator end by themselves when the training is complete, and wait for it when it is not.
[ "$ended" -ne 0 ] && [ "${{#others[@]}}" -gt 0 ] && kill "${{others[@]}}" 2>/dev/null
for process in "${{others[@]}}"; do
    wait "$process" || {{ code=$?; [ "$ended" -eq 0 ] && ended=$code; }}
done
finish "$ended"
"""
_CONTAINER = '--container-image={image} --container-mounts="$PWD:$PWD" --container-workdir="$PWD" '


def script(job: Job) -> str:
    """The batch script of one job; it runs where it is submitted, where a folder of the user's own groups lies, too."""
    spec, roles = job.spec, job.spec.roles
    command = shlex.join(["tfscale", *job.arguments])
    options = _CONTAINER.format(image=shlex.quote(_enroot(spec.image))) if spec.image else ""
    env = spec.env | ({"MLFLOW_TRACKING_URI": spec.mlflow_uri} if spec.mlflow_uri else {})
    exports = [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    if spec.cpus:
        exports.append("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # which srun before 23.11 doesn't inherit")
    head = _HEAD.format(directives="\n".join(_directives(job)), max_restarts=spec.max_restarts)
    head += "".join(f"{line}\n" for line in exports)
    if list(roles) == ["worker"]:
        return head + _WORKERS.format(options=options, command=command)
    places = [(role, index) for role, count in roles.items() for index in range(count)]
    starts = "\n".join(
        f"start {role} {index} {host}; {'training' if role in ('chief', 'worker') else 'others'}+=($!)"
        for host, (role, index) in enumerate(places)
    )
    return head + _ROLES.format(cluster=_cluster(spec, places), options=options, command=command, starts=starts)


def _enroot(image: str) -> str:
    """An image's name as pyxis reads it: REGISTRY#IMAGE."""
    registry, slash, rest = image.partition("/")
    return f"{registry}#{rest}" if slash and re.search(r"[.:]|^localhost$", registry) else image


def _directives(job: Job) -> list[str]:
    spec = job.spec
    options = {
        "job-name": spec.name,
        "nodes": sum(spec.roles.values()),
        "ntasks-per-node": 1,
        "cpus-per-task": math.ceil(number(spec.cpus)) if spec.cpus else None,
        "mem": f"{int(number(spec.memory) / 2**20)}M" if spec.memory else None,
        "gpus-per-node": spec.gpus or None,
        "time": spec.time_limit,
        "partition": spec.queue,
        "output": f"{spec.name}-%j.log",
        "open-mode": "append",
        "signal": f"TERM@{job.grace_period}",  # before the time limit, so that a save is done by then
    }
    given = [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    return [*given, "#SBATCH --requeue"]


def _cluster(spec: JobSpec, places: list[tuple[str, int]]) -> str:
    hosts = {
        role: ",".join(f"${{hosts[{host}]}}:{spec.port}" for host, (other, _) in enumerate(places) if other == role)
        for role in ROLES
        if role != "evaluator"
    }
    return " ".join(f"{role}={found}" for role, found in hosts.items() if found)
