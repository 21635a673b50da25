"""Hardware: what this process may use, and how to read that from the machine.

Owns the facts: processor, usable cores and memory inside cgroups, GPUs, TPUs, and their form as JSON, so that a plan
can be made for a machine that is absent. Refuses to decide anything, and to know TensorFlow or other hosts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from tfscale.errors import UsageError, nearest

_GIB = 2**30
_MIN_CORES = 0.1  # no quota below this can train anything; a reading below it is a mistake
_INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")
_NATIVE_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")
_JSON_TYPES = {dict: "an object", list: "a list", str: "a string", int: "a whole number", float: "a number"}
_ARM_PARTS = {"0xd0c": "Neoverse N1", "0xd40": "Neoverse V1", "0xd49": "Neoverse N2", "0xd4f": "Neoverse V2"}

# Memory per chip in GiB, and what the number in TPU_ACCELERATOR_TYPE counts per chip: TensorCores up to v4 and in v5p
# (two a chip), chips in v5e and v6e. https://cloud.google.com/tpu/docs/system-architecture-tpu-vm
_TPU_KINDS = {"v2": (16, 2), "v3": (32, 2), "v4": (32, 2), "v5e": (16, 1), "v5p": (95, 2), "v6e": (32, 1)}


@dataclass(frozen=True)
class Cpu:
    """The host's processor: all its cores, also those that this process may not use."""

    model: str
    instruction_sets: tuple[str, ...]
    physical_cores: int
    logical_cores: int
    numa_nodes: int


@dataclass(frozen=True)
class Gpu:
    """A visible GPU or MIG slice; `links` to all others: "nvlink", "pcie", or "" for an only GPU and if unknown."""

    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]
    links: str = ""


@dataclass(frozen=True)
class Tpu:
    """The TPU slice that this host is part of: kind such as "v4", topology in chips such as "2x2x1" or ""."""

    kind: str
    topology: str
    chips_per_host: int
    hosts: int
    memory_bytes_per_chip: int


@dataclass(frozen=True)
class Hardware:
    """What one process may use.

    Args:
        cores: usable logical cores, after affinity and cgroup quota; may be a fraction.
        memory_bytes: usable memory, after cgroup limits.
        host_memory_bytes: memory of the whole host.
        gpus: the visible GPUs, in CUDA's order where CUDA_VISIBLE_DEVICES lists them.
        hostname: for people; no decision may depend on it.
        notes: what the probe found odd, one sentence each.

    Raises:
        ValueError: a number that no machine has, such as no cores; the text begins with the field's name.
    """

    cpu: Cpu
    cores: float
    memory_bytes: int
    host_memory_bytes: int
    gpus: tuple[Gpu, ...] = ()
    tpu: Tpu | None = None
    hostname: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _refuse_nonsense(self)

    @property
    def accelerator(self) -> str:
        """What trains here: "tpu", "gpu" or "cpu"."""
        return "tpu" if self.tpu else "gpu" if self.gpus else "cpu"

    @property
    def cpu_native_bfloat16(self) -> bool:
        """Whether the CPU multiplies bfloat16 itself. Without it, bfloat16 on CPU is emulated and slow."""
        return any(name in self.cpu.instruction_sets for name in _NATIVE_BFLOAT16)

    def describe(self) -> str:
        """One line for people."""
        cores, memory = f"{self.cores:g} core{'' if self.cores == 1 else 's'}", _size(self.memory_bytes)
        if self.accelerator != "cpu":
            devices = _describe_tpu(self.tpu) if self.tpu else _describe_gpus(self.gpus)
            return f"{devices}, {cores}, {memory}"
        ranked = (*_NATIVE_BFLOAT16, "avx512f", "avx2", "asimd")
        best = next((f" ({name})" for name in ranked if name in self.cpu.instruction_sets), "")
        return f"{cores} of {self.cpu.model}{best}, {memory}"

    def to_json(self) -> str:
        """The facts as JSON, indented, keys sorted; `from_json` reads it back."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "") -> Hardware:
        """Reads what `to_json` wrote; `where` is the file or key it came from, for the message.

        Raises:
            UsageError: not JSON, or a field that is unknown, missing, of a wrong type or impossible.
        """
        try:
            return cast(Hardware, _decode(cls, json.loads(text), "hardware"))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            fix = "write it with tfscale.hardware.probe().to_json() on such a machine"
            raise UsageError(f"not a description of hardware: {error}", where=where, fix=fix) from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Hardware:
        """Reads a file that holds `to_json`'s text.

        Raises:
            UsageError: the file can't be read, or is not a description of hardware.
        """
        where = f"plan.hardware={os.fspath(path)}"
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            fix = "name an existing JSON file, or leave plan.hardware out to probe this machine"
            raise UsageError(f"the description of hardware can't be read: {reason}", where=where, fix=fix) from None
        return cls.from_json(text, where=where)


def _refuse_nonsense(hardware: Hardware) -> None:
    sizes = {"memory_bytes": hardware.memory_bytes, "host_memory_bytes": hardware.host_memory_bytes}
    parts = {"cpu": hardware.cpu, "tpu": hardware.tpu} | {f"gpus[{i}]": gpu for i, gpu in enumerate(hardware.gpus)}
    for part, value in parts.items():
        fields = vars(value).items() if value else ()
        sizes |= {f"{part}.{name}": number for name, number in fields if isinstance(number, int)}
    for name, number in sizes.items():
        if number < 1:
            raise ValueError(f"{name}: {number} is not positive")
    if not _MIN_CORES <= hardware.cores < math.inf:
        raise ValueError(f"cores: {hardware.cores:g} is not a number of {_MIN_CORES:g} or more")
    if hardware.memory_bytes > hardware.host_memory_bytes:
        raise ValueError(f"memory_bytes: {hardware.memory_bytes} is more than the host's {hardware.host_memory_bytes}")


def _decode(kind: Any, value: Any, name: str) -> Any:
    """Builds a value of type `kind`, a dataclass or what the fields above are made of, from parsed JSON."""
    options = get_args(kind)
    if type(None) in options:
        return None if value is None else _decode(options[0], value, name)
    expected: Any = dict if dataclasses.is_dataclass(kind) else list if options else kind
    accepted: Any = (int, float) if expected is float else expected
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise TypeError(f"{name}: {_JSON_TYPES[expected]} is expected, not {json.dumps(value)[:60]}")
    if expected is list:
        kinds = options[:1] * len(value) if options[-1] is Ellipsis else options
        if len(kinds) != len(value):
            raise ValueError(f"{name}: {len(kinds)} items are expected, not {len(value)}")
        return tuple(_decode(kinds[index], item, f"{name}[{index}]") for index, item in enumerate(value))
    if expected is not dict:
        return kind(value)
    types = get_type_hints(kind)
    for key in value:
        if key not in types:
            raise ValueError(f"{name}.{key}: unknown field{nearest(key, list(types))}")
    for field in dataclasses.fields(kind):
        if field.name not in value and field.default is dataclasses.MISSING:
            raise ValueError(f"{name}.{field.name}: missing")
    return kind(**{key: _decode(types[key], item, f"{name}.{key}") for key, item in value.items()})


def _size(size: int) -> str:
    gib = size / _GIB
    return f"{gib / 1024:.1f} TiB" if gib >= 1024 else f"{gib:.1f} GiB"


def _describe_gpus(gpus: Sequence[Gpu]) -> str:
    groups = []
    for gpu in dict.fromkeys(gpus):
        major, minor = gpu.compute_capability
        details = ", ".join(filter(None, (_size(gpu.memory_bytes), f"sm_{major}{minor}", gpu.links)))
        groups.append(f"{gpus.count(gpu)} x {gpu.name} ({details})")
    return " + ".join(groups)


def _describe_tpu(tpu: Tpu) -> str:
    hosts = f" on {tpu.hosts} hosts" if tpu.hosts > 1 else ""
    details = ", ".join(filter(None, (_size(tpu.memory_bytes_per_chip), tpu.topology)))
    return f"{tpu.chips_per_host * tpu.hosts} x TPU {tpu.kind}{hosts} ({details})"


def probe(*, environ: Mapping[str, str] | None = None, root: str | os.PathLike[str] = "/") -> Hardware:
    """Reads what this process may use. Never raises for odd hardware: oddities are in `notes`.

    `root` is where proc/, sys/ and dev/ lie. Affinity and GPUs are asked of the real machine, so only for "/".
    """
    environ = os.environ if environ is None else environ
    base, real, cpu = Path(root), Path(root) == Path("/"), _cpu(Path(root))
    notes: list[str] = []
    affinity = len(os.sched_getaffinity(0)) if real and hasattr(os, "sched_getaffinity") else cpu.logical_cores
    cores = min(float(affinity), _cgroup_cores(base))
    if cores < _MIN_CORES:
        notes.append(f"the cgroup's quota is {cores:g} cores; counted as {_MIN_CORES:g}")
    host_memory = _host_memory(base)
    gpus, problem = _gpus(environ) if real else ((), "the driver is not asked about another root")
    if problem and any((base / "dev").glob("nvidia[0-9]*")):
        notes.append(f"an NVIDIA device file exists but {problem}")
    tpu, tpu_notes = _tpu(environ)
    return Hardware(
        cpu=cpu,
        cores=max(cores, _MIN_CORES),
        memory_bytes=memory_bytes(base),
        host_memory_bytes=host_memory,
        gpus=gpus,
        tpu=tpu,
        hostname=_read(base / "proc/sys/kernel/hostname") or (os.uname().nodename if real else ""),
        notes=(*notes, *tpu_notes),
    )


def memory_bytes(root: str | Path = "/") -> int:
    """Usable memory, after cgroup limits."""
    return min(_host_memory(Path(root)), _cgroup_memory(Path(root)))


def _read(path: Path) -> str:
    """The file's text without outer white space; "" where it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cpu(base: Path) -> Cpu:
    blocks = re.split(r"\n\s*\n", _read(base / "proc/cpuinfo"))
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


def _host_memory(base: Path) -> int:
    match = re.search(r"^MemTotal:\s*(\d+) kB", _read(base / "proc/meminfo"), re.MULTILINE)
    macos = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # which has no /proc
    return int(match[1]) * 1024 if match else macos


def _cgroup_cores(base: Path) -> float:
    """The smallest CPU quota, in cores, of this process's cgroup and all above it; infinite without one."""
    quotas = [math.inf]
    for folder in _cgroup_folders(base, "cpu"):
        version1 = f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
        quota, period, *_ = [*(_read(folder / "cpu.max") or version1).split(), "", ""]
        if quota.isdecimal() and period.isdecimal() and int(period):  # neither "max" nor -1: both are no limit
            quotas.append(int(quota) / int(period))
    return min(quotas)


def _cgroup_memory(base: Path) -> int:
    """The smallest memory limit in bytes. Version 1 writes "no limit" as a number near 2**63, which min() discards."""
    limits = [2**63]
    for folder in _cgroup_folders(base, "memory"):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        if limit.isdecimal() and int(limit):
            limits.append(int(limit))
    return min(limits)


def memory_kills(root: str = "/") -> int | None:
    """How many processes of this process's cgroup the kernel has killed for memory; None where that isn't told."""
    for folder in _cgroup_folders(Path(root), "memory"):
        text = _read(folder / "memory.events") or _read(folder / "memory.oom_control")  # of v2 and v1
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
    for line in _read(base / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        tops = [mount / controllers, mount / controller] if controllers else [mount, mount / "unified"]
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for top in tops:
            yield from (top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def visible_devices(spec: str | None, uuids: Sequence[str]) -> list[int | str]:
    """What CUDA_VISIBLE_DEVICES leaves of the GPUs with these UUIDs: indices, and ids of MIG slices as they stand.

    None (unset) leaves all. Like CUDA it stops at the first entry that names no device, or one that was named before.
    https://docs.nvidia.com/cuda/cuda-c-programming-guide/#env-vars
    """
    if spec is None:
        return list(range(len(uuids)))
    chosen: list[int | str] = []
    for entry in (part.strip() for part in spec.split(",")):
        matches: list[int | str] = [i for i in range(len(uuids)) if entry == str(i)]
        if entry.startswith("GPU-"):
            matches = [i for i, uuid in enumerate(uuids) if uuid.startswith(entry)]
        elif entry.startswith("MIG-"):
            matches = [entry]
        if len(matches) != 1 or matches[0] in chosen:
            break
        chosen += matches
    return chosen


def _gpus(environ: Mapping[str, str]) -> tuple[tuple[Gpu, ...], str]:
    """The visible GPUs, and why the driver couldn't be asked or ""."""
    try:
        import pynvml as nvml  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return (), "nvidia-ml-py is not installed, so no GPU is used: pip install nvidia-ml-py"
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return (), f"the NVIDIA driver doesn't answer: {error}"
    try:
        all_handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        uuids = [nvml.nvmlDeviceGetUUID(handle) for handle in all_handles]
        visible = visible_devices(environ.get("CUDA_VISIBLE_DEVICES"), uuids)
        handles = [
            nvml.nvmlDeviceGetHandleByUUID(each) if isinstance(each, str) else _mig_slice(nvml, all_handles[each])
            for each in visible
        ]
        return tuple(_gpu(nvml, handle, handles) for handle in handles), ""
    except nvml.NVMLError as error:
        return (), f"the NVIDIA driver refused a question: {error}"
    finally:
        nvml.nvmlShutdown()


def _mig_slice(nvml: Any, handle: Any) -> Any:
    """The GPU itself, or its first slice where it is divided: CUDA then sees only that one."""
    with contextlib.suppress(nvml.NVMLError):  # raised by a GPU that can't be divided
        if nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE:
            return nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, 0)
    return handle


def _gpu(nvml: Any, handle: Any, handles: Sequence[Any]) -> Gpu:
    whole, links = handle, ""
    with contextlib.suppress(nvml.NVMLError):  # raised by a GPU that is no slice
        whole = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    with contextlib.suppress(nvml.NVMLError):  # raised by slices, and by drivers that can't say
        others = [other for other in handles if other is not handle]
        states = {nvml.nvmlDeviceGetP2PStatus(handle, other, nvml.NVML_P2P_CAPS_INDEX_NVLINK) for other in others}
        links = "" if not states else "nvlink" if states == {nvml.NVML_P2P_STATUS_OK} else "pcie"
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(whole)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle).total
    return Gpu(nvml.nvmlDeviceGetName(handle), int(memory), (int(major), int(minor)), links)


def _tpu(environ: Mapping[str, str]) -> tuple[Tpu | None, tuple[str, ...]]:
    """The TPU that the environment describes, as on GKE and TPU VMs, and notes on what doesn't add up."""
    accelerator = environ.get("TPU_ACCELERATOR_TYPE", "")
    names = [name for name in environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if name.strip()]
    if not accelerator and not names:
        return None, ()
    match = re.fullmatch(r"(v\d+[a-z]*)-([1-9]\d{0,6})", accelerator)
    kind = match[1].replace("v5litepod", "v5e") if match else ""
    if not match or kind not in _TPU_KINDS:
        return None, (f"TPU_ACCELERATOR_TYPE={accelerator} names no known TPU, so none is used",)
    memory, per_chip = _TPU_KINDS[kind]
    chips = max(1, int(match[2]) // per_chip)
    bounds = environ.get("TPU_CHIPS_PER_HOST_BOUNDS", "")
    if re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3})*", bounds):
        chips_per_host = math.prod(int(bound) for bound in bounds.split(","))
    elif names:
        chips_per_host = max(1, chips // len(names))
    else:  # v5e and v6e come with up to 8 chips on one host, all others with 4
        chips_per_host = chips if chips <= (8 if per_chip == 1 else 4) else 4
    hosts = len(names) or -(-chips // chips_per_host)
    topology = environ.get("TPU_TOPOLOGY", "") or (bounds.replace(",", "x") if hosts == 1 else "")
    odd = f"{accelerator} has {chips} chips, but {hosts} hosts of {chips_per_host} are described"
    tpu = Tpu(kind, topology, chips_per_host, hosts, memory * _GIB)
    return tpu, () if chips_per_host * hosts == chips else (odd,)
