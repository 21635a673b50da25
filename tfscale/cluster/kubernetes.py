"""TFSCALE_CLUSTER: the cluster as a manifest writes it for pods that Kubernetes tells no more than their index.

An Indexed Job, a JobSet and a TrainJob of the plain policy set JOB_COMPLETION_INDEX and no count of pods, so that the
manifest must say who the peers are:

    TFSCALE_CLUSTER   worker=digits-worker-{0..3}.digits:2222 ps=digits-ps-{0..1}.digits:2222, or: local
    TFSCALE_ROLE      this pod's role; not needed where there are workers only
    TFSCALE_INDEX     this pod's index, where it is not JOB_COMPLETION_INDEX
    TFSCALE_EPHEMERAL a folder that is gone with its pod, where runs must not be kept alone

`tfscale k8s` writes these. Owns the dialect. Refuses to know the Kubernetes API, which no pod here has to reach.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tfscale.cluster.addresses import ROLES, Found, check_addresses, unknown_role
from tfscale.cluster.variables import MAX_SIZE, is_set, number, wrong

_CLUSTER, _ROLE, _INDEX, _COMPLETION = "TFSCALE_CLUSTER", "TFSCALE_ROLE", "TFSCALE_INDEX", "JOB_COMPLETION_INDEX"
EPHEMERAL = "TFSCALE_EPHEMERAL"
_RANGE = re.compile(r"\{(\d{1,6})\.\.(\d{1,6})\}")
_FIX = "correct them in the manifest (tfscale k8s writes them)"
_YAML = (
    'add {name: TFSCALE_CLUSTER, value: "worker=JOB-{0..N-1}.SERVICE:2222"} to the container\'s env, with N the'
    " completions and SERVICE the headless Service that is the pods' subdomain; or, where each pod trains alone,"
    ' {name: TFSCALE_CLUSTER, value: "local"}'
)


def find(environ: Mapping[str, str]) -> Found | None:
    """Reads TFSCALE_CLUSTER; None where there is none, or it is "local".

    Raises:
        ClusterConfigError: a variable is wrong, or this process's role or index is not told.
    """
    text = environ.get(_CLUSTER, "").strip()
    if not text or text == "local":
        return None
    cluster = _parse(text, environ)
    role = environ.get(_ROLE, "").strip() or ("worker" if list(cluster) == ["worker"] else "")
    if not role:
        what = f"this process's role is one of {', '.join(cluster)}, and not told"
        raise wrong(what, environ, _CLUSTER, _ROLE, fix=_FIX)
    if role not in ROLES:
        raise wrong(unknown_role(role), environ, _ROLE, fix=_FIX)
    alone = role == "evaluator" and role not in cluster
    if not alone and role not in cluster:
        raise wrong(f"the cluster has no {role}", environ, _ROLE, _CLUSTER, fix=_FIX)
    count = 1 if alone else len(cluster[role])
    index = _index(environ, count)
    if index >= count and not alone:
        name = _INDEX if is_set(environ, _INDEX) else _COMPLETION
        raise wrong(f"the cluster has {count} {role}, the first with index 0", environ, name, _CLUSTER, fix=_FIX)
    # TensorFlow's evaluator is no part of the training's cluster
    return {name: found for name, found in cluster.items() if name != "evaluator" or role == "evaluator"}, role, index


def refuse_index_alone(environ: Mapping[str, str]) -> None:
    """Raises ClusterConfigError where a pod knows its index and nothing else: it may be one of many."""
    if is_set(environ, _COMPLETION):
        raise wrong(
            "the index of a pod among others, but nothing tells how many they are", environ, _COMPLETION, fix=_YAML
        )


def _index(environ: Mapping[str, str], count: int) -> int:
    for name in (_INDEX, _COMPLETION):
        if is_set(environ, name):
            return number(environ, name)
    if count == 1:
        return 0
    raise wrong(f"this process is one of {count}, and its index is not told", environ, _INDEX, _COMPLETION, fix=_FIX)


def _parse(text: str, environ: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for word in text.split():
        role, equals, hosts = word.partition("=")
        if not equals or not hosts:
            raise wrong(f"{word!r} is not role=addresses", environ, _CLUSTER, fix=_YAML)
        if role not in ROLES or role in found:
            problem = f"{role} is there twice" if role in found else unknown_role(role)
            raise wrong(problem, environ, _CLUSTER, fix=_YAML)
        found[role] = tuple(_expand(hosts.split(","), environ))
    problems: list[str] = []
    check_addresses({role: dict(enumerate(hosts)) for role, hosts in found.items()}, problems)
    if len(found.get("chief", ())) > 1:
        problems.append("there can be only one chief")
    if problems:
        raise wrong("; ".join(problems[:5]), environ, _CLUSTER, fix=_YAML)
    return {role: found[role] for role in ROLES if role in found}


def _expand(hosts: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    expanded = []
    for host in hosts:
        match = _RANGE.search(host)
        if match is None:
            expanded.append(host)
            continue
        first, last = int(match[1]), int(match[2])
        if not first <= last < MAX_SIZE:
            raise wrong(f"{match[0]} is no range", environ, _CLUSTER, fix=_YAML)
        expanded += [host[: match.start()] + str(number) + host[match.end() :] for number in range(first, last + 1)]
    return expanded


def written(cluster: Mapping[str, str]) -> str:
    """TFSCALE_CLUSTER for addresses by role, each with a range such as "digits-{0..3}.digits:2222"."""
    return " ".join(f"{role}={cluster[role]}" for role in ROLES if role in cluster)
