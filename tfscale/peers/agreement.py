"""What the processes of a cluster must agree on, and the errors that say who differs and in what.

Owns the comparison of hellos, the first message of every process. Refuses to know how they arrive.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tfscale.errors import ClusterConfigError, ClusterFault, TfscaleError

VERSION = 1  # of the messages
_MAX_SHOWN = 5  # differences per process in a message
_ABSENT = object()
# What a plan may decide otherwise on another machine, and an override settles for all.
_MACHINES = (
    "precision",
    "xla",
    "deterministic",
    "fused_kernels",
    "local_devices",
    "bytes_per_pack",
    "wire_precision",
)

Difference = tuple[str, str, str]  # key, its value here, its value there


def is_hello(message: Mapping[str, Any]) -> bool:
    """Whether a process of a cluster speaks, rather than a stranger."""
    index = message.get("index")
    return (
        "tfscale" in message
        and isinstance(message.get("role"), str)
        and isinstance(index, int)
        and not isinstance(index, bool)
        and isinstance(message.get("facts"), dict)
    )


def names(hello: Mapping[str, Any]) -> set[str]:
    """The processes of the cluster that a hello describes."""
    cluster = hello["facts"].get("cluster")
    roles = cluster.items() if isinstance(cluster, dict) else ()
    return {f"{role}:{i}" for role, addresses in roles if isinstance(addresses, list) for i in range(len(addresses))}


def address_of(hello: Mapping[str, Any]) -> str | None:
    """Where the process that says it is reached, by its own list of addresses."""
    cluster, index = hello["facts"].get("cluster"), hello["index"]
    addresses = cluster.get(hello["role"]) if isinstance(cluster, dict) else None
    known = isinstance(addresses, list) and 0 <= index < len(addresses)
    return str(addresses[index]) if known and addresses is not None else None


def worlds_differ(name: str, theirs: Mapping[str, Any], leader: str, ours: Mapping[str, Any]) -> TfscaleError | None:
    """The error where two hellos describe different clusters or speak different versions: they can't even meet."""
    here, there = ({"tfscale": h["tfscale"], "cluster": h["facts"].get("cluster")} for h in (theirs, ours))
    found = tuple(_differences(here, there))
    return _error({found: [name]}, leader) if found else None


def facts_differ(theirs: Mapping[str, Mapping[str, Any]], leader: str, ours: Mapping[str, Any]) -> TfscaleError | None:
    """The error where the facts in the hellos, by name, are not the leader's; it names every process that differs."""
    groups: dict[tuple[Difference, ...], list[str]] = {}
    for name, hello in theirs.items():
        found = tuple(_differences(hello["facts"], ours["facts"]))
        if found:
            groups.setdefault(found, []).append(name)
    return _error(groups, leader) if groups else None


def claimed_twice(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> ClusterFault:
    """The error where two hellos have one name."""
    both = " and ".join(f"process {hello.get('pid')} on {hello.get('host')}" for hello in (first, second))
    return ClusterFault(
        f"{name} is claimed twice: by {both}",
        where=name,
        fix="give every process its own index, and end those that are left from an earlier run",
    )


def from_dict(error: Any) -> TfscaleError:
    """The error that the leader sent, as `TfscaleError.as_dict()` gave it."""
    error = error if isinstance(error, dict) else {"what": str(error)}
    kind = ClusterConfigError if error.get("exit_code") == ClusterConfigError.exit_code else ClusterFault
    return kind(str(error.get("what")), where=str(error.get("where", "")), fix=str(error.get("fix", "")))


def _differences(here: Any, there: Any, path: str = "") -> Iterator[Difference]:
    if isinstance(here, dict) and isinstance(there, dict):
        for key in sorted(here.keys() | there.keys()):
            inner = f"{path}.{key}" if path else key
            yield from _differences(here.get(key, _ABSENT), there.get(key, _ABSENT), inner)
    elif isinstance(here, list) and isinstance(there, list):
        if len(here) != len(there):
            yield path, f"{len(here)} entries", f"{len(there)} entries"
            return
        for position, (one, other) in enumerate(zip(here, there, strict=True)):
            yield from _differences(one, other, f"{path}[{position}]")
    elif _text(here) != _text(there):  # as text: NaN is NaN, and 1 is not true
        yield path, _shown(here), _shown(there)


def _text(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value, sort_keys=True)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value else _text(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _error(groups: Mapping[tuple[Difference, ...], list[str]], leader: str) -> ClusterConfigError:
    """Args: the names of the processes by what they differ in."""
    lines = []
    for found, names in groups.items():
        who = ", ".join(names[:_MAX_SHOWN]) + (f" and {len(names) - _MAX_SHOWN} more" if names[_MAX_SHOWN:] else "")
        keys = ", ".join(f"{path}: {here} / {there}" for path, here, there in found[:_MAX_SHOWN])
        more = f" and {len(found) - _MAX_SHOWN} more keys" if found[_MAX_SHOWN:] else ""
        lines.append(f"{who} {'differ' if names[1:] else 'differs'} from {leader} in {keys}{more}")
    first = next(iter(groups))[0][0]
    return ClusterConfigError(
        "; ".join(lines[:_MAX_SHOWN]) + (f"; and {len(lines) - _MAX_SHOWN} other ways" if lines[_MAX_SHOWN:] else ""),
        where=first,
        fix=_fix(*next(iter(groups))[0]),
    )


def _fix(path: str, theirs: str, leaders: str) -> str:
    if path.startswith("cluster."):
        return "give every process the same list of addresses"
    if path == "next":
        return "have every process run the same lines, whatever its rank, its clock and its random numbers"
    if path in ("fit", "weights"):
        return "have every process make the same model and read the same data: keras.utils.set_random_seed comes first"
    if path == "complete":
        return "give all workers one run folder on a disk that they share: --run-dir"
    section, _, name = path.partition(".")
    if section == "plan" and name == "accumulate" and theirs.isdecimal() and leaders.isdecimal():
        most = max(int(theirs), int(leaders))  # which needs the least memory
        return f"their memory differs: give all of them train.accumulate={most}"
    if section == "plan" and name in _MACHINES:
        return f"their machines differ: give all of them plan.{name}={leaders}, or what each of them can do"
    return "start every process with the same command, configuration and version of tfscale"
