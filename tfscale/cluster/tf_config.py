"""TF_CONFIG: TensorFlow's own description of a cluster, as people, Kubeflow's TFJob and Vertex AI write it.

Owns the dialect and its validation. TensorFlow hangs, or silently trains alone, on most of the mistakes that are
refused here. Refuses to know which roles the chosen strategy can use: that is the plan's matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tfscale.cluster.addresses import ROLES, Found, check_addresses, show, unknown_role
from tfscale.errors import ClusterConfigError

_MAX_INDEX = 99_999  # a mistyped index in the sparse dialect must not allocate a list of that length
_EXAMPLE = 'write {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


def find(environ: Mapping[str, str]) -> Found | None:
    """Reads TF_CONFIG.

    Returns:
        The addresses by role, this task's role and its index, or None where TF_CONFIG describes no cluster.

    Raises:
        ClusterConfigError: TF_CONFIG is not valid; the text names every field that is wrong.
    """
    text = environ.get("TF_CONFIG", "")
    if not text.strip():
        return None
    problems: list[str] = []
    config = _parse(text)
    raw = config.get("cluster", config.get("sparseCluster", {}))  # the key in old releases of TFJob
    if not isinstance(raw, dict):
        problems.append(f"cluster: an object is expected, not {show(raw)}")
        raw = {}
    role, index = _task(config, problems)
    cluster = {name: _entries(name, value, problems) for name, value in _roles(raw, role, problems).items()}
    cluster = {name: entries for name, entries in cluster.items() if entries}
    check_addresses(cluster, problems)
    if isinstance(raw.get("worker"), dict):
        _place_sparse_ps(cluster, role, index)
    if any(raw.values()) or role == "evaluator":
        _check_place(cluster, "task" in config, role, index, problems)
    elif index or role == "ps":
        problems.append(f"task: {role or 'index'} {index}, but cluster is empty")
    if problems:
        raise _error(problems)
    if not cluster and role != "evaluator":
        return None
    assert role is not None and index is not None  # otherwise there were problems
    return {name: _dense(cluster[name]) for name in ROLES if name in cluster}, role, index


def _parse(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        excerpt = text[max(0, error.pos - 15) : error.pos + 25]
        at = f"line {error.lineno} column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise _error([f"not JSON: {error.msg} at {at}, near {excerpt!r}"]) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise _error([f"not JSON that can be read: {error}"]) from None
    if not isinstance(config, dict):
        raise _error([f"an object is expected, not {show(config)}"])
    return config


def _task(config: dict[str, Any], problems: list[str]) -> tuple[str | None, int | None]:
    """This task's role and index; None for what is missing or wrong."""
    if "task" not in config:
        return None, None
    task = config["task"]
    if not isinstance(task, dict):
        problems.append(f"task: an object is expected, not {show(task)}")
        return None, None
    role, index = task.get("type"), task.get("index")
    if role == "master":
        role = "chief"
    if role is None:
        problems.append("task.type: missing")
    elif role not in ROLES:
        problems.append(f"task.type: {unknown_role(role)}")
        role = None
    if "index" not in task:
        problems.append("task.index: missing")
    elif isinstance(index, bool) or not isinstance(index, int):
        problems.append(f"task.index: an integer is expected, not {show(index)}")
        index = None
    elif not 0 <= index <= _MAX_INDEX:
        problems.append(f"task.index: {index} is out of range")
        index = None
    return role, index


def _roles(raw: dict[str, Any], own_role: str | None, problems: list[str]) -> dict[str, Any]:
    """The roles of "cluster" under their present names, without those that don't concern this task."""
    roles: dict[str, Any] = {}
    for name, value in raw.items():
        if name == "master":
            if raw.get("chief"):
                problems.append("cluster: has both master and chief, which are two names of one role")
                continue
            name = "chief"
        elif name == "chief" and raw.get("master"):
            continue
        elif name not in ROLES:
            problems.append(f"cluster.{name}: {unknown_role(name)}")
            continue
        # TFJob lists the evaluator in "cluster"; to TensorFlow it is not part of the training cluster
        if name != "evaluator" or own_role == "evaluator":
            roles[name] = value
    return roles


def _entries(role: str, value: Any, problems: list[str]) -> dict[int, Any]:
    """The entries of one role by index: from a list, or from an object whose keys are indices (enableDynamicWorker)."""
    if isinstance(value, list):
        entries = dict(enumerate(value))
    elif isinstance(value, dict):
        entries = {}
        for key, entry in value.items():
            if not re.fullmatch(r"0|[1-9][0-9]{0,4}", key):
                problems.append(f"cluster.{role}: the key {show(key)} is not an index from 0 to {_MAX_INDEX}")
                continue
            entries[int(key)] = entry
    else:
        problems.append(f"cluster.{role}: a list of addresses is expected, not {show(value)}")
        return {}
    if role == "chief" and len(entries) > 1:
        problems.append(f"cluster.chief: {len(entries)} addresses, but there can be only one chief")
    return entries


def _place_sparse_ps(cluster: dict[str, dict[int, Any]], role: str | None, index: int | None) -> None:
    """With enableDynamicWorker a ps is told one address, its own, in a list: move it to the index it belongs to.

    https://github.com/kubeflow/training-operator/blob/master/pkg/controller.v1/tensorflow/tensorflow.go
    """
    entries = cluster.get("ps", {})
    if role == "ps" and index is not None and list(entries) == [0]:
        cluster["ps"] = {index: entries[0]}


def _check_place(
    cluster: dict[str, dict[int, Any]], has_task: bool, role: str | None, index: int | None, problems: list[str]
) -> None:
    """Checks that this task is one of the cluster's; an evaluator need not be."""
    if not has_task:
        problems.append("task: missing, so this process doesn't know which one it is")
    if role is None or (role == "evaluator" and role not in cluster):
        return
    if role not in cluster:
        problems.append(f"task.type: {role}, but cluster has no {role}")
    elif index is not None and index not in cluster[role]:
        known = sorted(cluster[role])
        problems.append(f"task.index: {index} is out of range, cluster.{role} has {_indices(known)}")


def _indices(known: list[int]) -> str:
    if known == list(range(len(known))):
        return "index 0 only" if len(known) == 1 else f"indices 0 to {known[-1]}"
    return "indices " + ", ".join(str(index) for index in known[:10])


def _dense(entries: dict[int, str]) -> tuple[str, ...]:
    return tuple(entries.get(index, "") for index in range(max(entries) + 1))


def _error(problems: list[str]) -> ClusterConfigError:
    what = problems[0] if len(problems) == 1 else f"{len(problems)} problems: " + "; ".join(problems)
    return ClusterConfigError(what, where="TF_CONFIG", fix=_EXAMPLE)
