"""Addresses and roles: what every description of a cluster is made of, and what is wrong with one.

Refuses to know who described it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tfscale.errors import nearest

ROLES = ("chief", "worker", "ps", "evaluator")
# What a launcher's file finds: the addresses by role, this process's role and its index.
Found = tuple[dict[str, tuple[str, ...]], str, int]
PORT = 2222  # of TensorFlow's servers where a launcher names none


def check_addresses(cluster: Mapping[str, Mapping[int, Any]], problems: list[str]) -> None:
    """Adds to `problems` every entry that is no "host:port", and those that are there twice."""
    seen: dict[tuple[str, int], str] = {}
    for role, entries in cluster.items():
        for index, address in entries.items():
            where = f"cluster.{role}[{index}]"
            problem = _address_problem(address)
            if problem:
                problems.append(f"{where}: {problem}")
                continue
            host, port = address.rsplit(":", 1)
            first = seen.setdefault((host.lower(), int(port)), where)
            if first != where:
                problems.append(f"{where}: {address} is already {first}")


def _address_problem(address: Any) -> str:
    """What is wrong with "host:port", or ""."""
    if not isinstance(address, str):
        return f"a string is expected, not {show(address)}"
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        return f"{show(address)} has no port; write host:port"
    if not host or re.search(r"[\s/]", host):
        return f"{show(address)} has no usable host; write host:port"
    if ":" in host and not re.fullmatch(r"\[[0-9a-fA-F:.%\w]+\]", host):
        return f"{show(address)} has too many colons; write host:port, and IPv6 as [::1]:port"
    if not re.fullmatch(r"[0-9]+", port):
        return f"port {show(port)} of {show(address)} is not a number"
    if len(port) > 5 or not 0 < int(port) <= 65_535:
        return f"port {port[:20]} of {show(address)} is not within 1 to 65535"
    return ""


def unknown_role(role: Any) -> str:
    """What is wrong with the name of a role that is none."""
    allowed = ", ".join(ROLES)
    hint = nearest(role, ROLES) if isinstance(role, str) else ""
    return f"{show(role)} is not one of {allowed}{hint}"


def show(value: Any) -> str:
    """A value as JSON, short enough for a message."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
