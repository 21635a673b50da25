"""Memory and cores inside cgroups, of both versions, and how often the kernel killed for memory there."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path


def memory_bytes(root: str | Path = "/") -> int:
    """Usable memory, after cgroup limits."""
    return min(host_memory(Path(root)), _cgroup_memory(Path(root)))


def text_of(path: Path) -> str:
    """The file's text without outer white space; "" where it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def host_memory(base: Path) -> int:
    """Memory of the whole host in bytes."""
    match = re.search(r"^MemTotal:\s*(\d+) kB", text_of(base / "proc/meminfo"), re.MULTILINE)
    macos = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # which has no /proc
    return int(match[1]) * 1024 if match else macos


def cgroup_cores(base: Path) -> float:
    """The smallest CPU quota, in cores, of this process's cgroup and all above it; infinite without one."""
    quotas = [math.inf]
    for folder in _cgroup_folders(base, "cpu"):
        version1 = f"{text_of(folder / 'cpu.cfs_quota_us')} {text_of(folder / 'cpu.cfs_period_us')}"
        quota, period, *_ = [*(text_of(folder / "cpu.max") or version1).split(), "", ""]
        if quota.isdecimal() and period.isdecimal() and int(period):  # neither "max" nor -1: both are no limit
            quotas.append(int(quota) / int(period))
    return min(quotas)


def _cgroup_memory(base: Path) -> int:
    """The smallest memory limit in bytes. Version 1 writes "no limit" as a number near 2**63, which min() discards."""
    limits = [2**63]
    for folder in _cgroup_folders(base, "memory"):
        limit = text_of(folder / "memory.max") or text_of(folder / "memory.limit_in_bytes")
        if limit.isdecimal() and int(limit):
            limits.append(int(limit))
    return min(limits)


def memory_kills(root: str = "/") -> int | None:
    """How many processes of this process's cgroup the kernel has killed for memory; None where that isn't told."""
    for folder in _cgroup_folders(Path(root), "memory"):
        text = text_of(folder / "memory.events") or text_of(folder / "memory.oom_control")  # of v2 and v1
        found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        if found:
            return int(found[1])
    return None


def _cgroup_folders(base: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's cgroup for a controller, from its own up to the mount's root, in both versions.

    In a container the path in /proc/self/cgroup may be the host's: what doesn't exist below the mount reads as "no
    limit", and the mount's root, which is the container's own cgroup there, is still read.
    """
    mount = base / "sys/fs/cgroup"
    for line in text_of(base / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        tops = [mount / controllers, mount / controller] if controllers else [mount, mount / "unified"]
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for top in tops:
            yield from (top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))
