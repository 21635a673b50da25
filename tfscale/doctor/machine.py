"""What the machine is, and what its cgroup leaves of it.

Refuses to probe: it is given a Hardware, which may be another machine's.
"""

from __future__ import annotations

from collections.abc import Iterator

from tfscale.doctor.diagnosis import OK, WARNING, Finding
from tfscale.hardware import Hardware

GIB = 2**30
_LEAST_MEMORY = 2 * GIB  # TensorFlow and a small model take about one


def look_at_machine(hardware: Hardware, *, kills: int | None) -> Iterator[Finding]:
    """
    Args:
        kills: how many processes of this cgroup the kernel has killed for memory; None where that isn't told.
    """
    yield Finding("hardware", OK, hardware.describe())
    yield _cores(hardware)
    yield _memory(hardware)
    if kills:
        yield Finding(
            "memory_kills",
            WARNING,
            f"the kernel has killed {kills} processes of this cgroup for memory",
            "raise the memory limit, or lower train.global_batch, or let accumulation share it: train.accumulate=2",
        )
    for note in hardware.notes:
        yield Finding("hardware_note", WARNING, note)


def _cores(hardware: Hardware) -> Finding:
    fact = f"{hardware.cores:g} of the host's {hardware.cpu.logical_cores} cores may be used"
    if hardware.cores >= 1:
        return Finding("cores", OK, fact)
    return Finding("cores", WARNING, f"{fact}: training will crawl", "raise the CPU limit to 1 or more")


def _memory(hardware: Hardware) -> Finding:
    fact = f"{size(hardware.memory_bytes)} of the host's {size(hardware.host_memory_bytes)} of memory may be used"
    if hardware.memory_bytes >= _LEAST_MEMORY:
        return Finding("memory", OK, fact)
    fix = f"raise the memory limit to {size(_LEAST_MEMORY)} or more"
    return Finding("memory", WARNING, f"{fact}, which TensorFlow alone may need", fix)


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.1f} MiB"
