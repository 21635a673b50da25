"""Reading the facts from the machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from tfscale.hardware.accelerators import tpu_slice, visible_gpus
from tfscale.hardware.facts import MIN_CORES, Cpu, Hardware
from tfscale.hardware.limits import cgroup_cores, host_memory, memory_bytes, text_of

_INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")
_ARM_PARTS = {"0xd0c": "Neoverse N1", "0xd40": "Neoverse V1", "0xd49": "Neoverse N2", "0xd4f": "Neoverse V2"}


def probe(*, environ: Mapping[str, str] | None = None, root: str | os.PathLike[str] = "/") -> Hardware:
    """Reads what this process may use. Never raises for odd hardware: oddities are in `notes`.

    `root` is where proc/, sys/ and dev/ lie. Affinity and GPUs are asked of the real machine, so only for "/".
    """
    environ = os.environ if environ is None else environ
    base, real, cpu = Path(root), Path(root) == Path("/"), _cpu(Path(root))
    notes: list[str] = []
    affinity = len(os.sched_getaffinity(0)) if real and hasattr(os, "sched_getaffinity") else cpu.logical_cores
    cores = min(float(affinity), cgroup_cores(base))
    if cores < MIN_CORES:
        notes.append(f"the cgroup's quota is {cores:g} cores; counted as {MIN_CORES:g}")
    gpus, problem = visible_gpus(environ) if real else ((), "the driver is not asked about another root")
    if problem and any((base / "dev").glob("nvidia[0-9]*")):
        notes.append(f"an NVIDIA device file exists but {problem}")
    tpu, tpu_notes = tpu_slice(environ)
    return Hardware(
        cpu=cpu,
        cores=max(cores, MIN_CORES),
        memory_bytes=memory_bytes(base),
        host_memory_bytes=host_memory(base),
        gpus=gpus,
        tpu=tpu,
        hostname=text_of(base / "proc/sys/kernel/hostname") or (os.uname().nodename if real else ""),
        notes=(*notes, *tpu_notes),
    )


def _cpu(base: Path) -> Cpu:
    blocks = re.split(r"\n\s*\n", text_of(base / "proc/cpuinfo"))
    entries = [dict(re.findall(r"^(.*?)\s*:[ \t]*(.*)$", block, re.MULTILINE)) for block in blocks]
    processors = [entry for entry in entries if "processor" in entry]  # ARM adds a block on the board
    first = processors[0] if processors else {}
    flags = set((first.get("flags") or first.get("Features") or "").split())
    logical = len(processors) or os.cpu_count() or 1
    cores = {(entry.get("physical id"), entry["core id"]) for entry in processors if "core id" in entry}
    nodes = [path for path in (base / "sys/devices/system/node").glob("node*") if re.fullmatch(r"node\d+", path.name)]
    model = first.get("model name") or _ARM_PARTS.get(first.get("CPU part", "")) or os.uname().machine
    return Cpu(
        model=model,
        instruction_sets=tuple(name for name in _INSTRUCTION_SETS if name in flags),
        physical_cores=len(cores) or logical,  # ARM and some virtual machines don't say
        logical_cores=logical,
        numa_nodes=len(nodes) or 1,
    )
