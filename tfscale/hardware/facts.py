"""The facts about a machine, what is nonsense among them, and their form as JSON and as one line for people."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from tfscale.errors import UsageError, nearest

GIB = 2**30
MIN_CORES = 0.1  # no quota below this can train anything; a reading below it is a mistake
_NATIVE_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")
_JSON_TYPES = {dict: "an object", list: "a list", str: "a string", int: "a whole number", float: "a number"}


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
    if not MIN_CORES <= hardware.cores < math.inf:
        raise ValueError(f"cores: {hardware.cores:g} is not a number of {MIN_CORES:g} or more")
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
    gib = size / GIB
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
