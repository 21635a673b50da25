"""The execution plan: every decision about how a run uses its hardware, each with its reason.

Owns `ExecutionPlan` and `make_plan`, a pure function of facts and wishes. Refuses to know TensorFlow, files and clocks,
so that it also plans for a machine that is not there. The memory and time it foresees are estimates from the recipe's
`Footprint`; what is measured later (the length of a loop) is bounded by the plan, never decided by the estimate alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from tfscale.cluster import Cluster
from tfscale.config import PlanConfig, Precision, Strategy
from tfscale.errors import UsageError
from tfscale.hardware import Hardware

LOOP_SECONDS = 2.0  # a signal is answered, and an action runs, when a compiled loop returns
_MAX_STEPS_PER_LOOP = 1000
_GIB = 2**30

# Dense matrix peaks in TFLOP/s that vendors publish, by compute capability; they only size the first loop.
_GPU_TFLOPS = {(9, 0): 800.0, (8, 0): 312.0, (8, 6): 120.0, (8, 9): 240.0, (7, 5): 65.0, (7, 0): 125.0}
_TPU_TFLOPS = {"v2": 45.0, "v3": 123.0, "v4": 275.0, "v5e": 197.0, "v5p": 459.0, "v6e": 918.0}
_CPU_CORE_GFLOPS = {"bfloat16": 190.0, "avx512f": 90.0, "other": 45.0}
_INPUT_RAM = 4 * _GIB
_EFFICIENCY = 0.3  # of the peak, for a real model


@dataclass(frozen=True)
class Footprint:
    """What one recipe costs, known without building the model.

    Attributes:
        parameters: trainable parameters.
        activation_bytes: bytes kept for the backward pass, per example, in float32.
        forward_flops: FLOPs of one example's forward pass, 2 per multiply-add.
    """

    parameters: int
    activation_bytes: int
    forward_flops: int


@dataclass(frozen=True)
class PlanRequest:
    """What the run asks of the plan.

    Attributes:
        global_batch: examples per step over all replicas.
        accumulate: micro-batches per step, or None to let memory decide.
        optimizer_slots: variables that the optimizer keeps per parameter.
        footprint: the recipe's cost, or None if it isn't known.
        precision: the dtype policy that the model was built with, or None: it follows the plan's.
        forced: the `plan.*` overrides.
    """

    global_batch: int
    accumulate: int | None = None
    optimizer_slots: int = 1
    footprint: Footprint | None = None
    precision: str | None = None
    forced: PlanConfig = field(default_factory=PlanConfig)


@dataclass(frozen=True)
class ExecutionPlan:
    """How a run uses its hardware. Sizes in bytes; a step is one optimizer update over `global_batch` examples."""

    strategy: str
    num_workers: int
    num_replicas: int
    local_devices: int
    accelerator: str
    precision: str
    xla: bool
    deterministic: bool
    global_batch: int
    replica_batch: int
    accumulate: int
    micro_batch: int
    steps_per_loop: int
    intra_op_threads: int
    inter_op_threads: int
    input_threads: int
    input_ram_bytes: int
    prefetch: int
    device_memory_bytes: int
    foreseen_memory_bytes: int | None
    reasons: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def digest(self) -> str:
        """A hash of what all workers must agree on; threads, memory and reasons may differ."""
        agreed = (
            "strategy",
            "num_workers",
            "num_replicas",
            "precision",
            "xla",
            "deterministic",
            "global_batch",
            "replica_batch",
            "accumulate",
        )
        text = json.dumps({name: getattr(self, name) for name in agreed}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "digest": self.digest}

    def explain(self) -> str:
        """A table of every field, its value and its reason."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"execution plan {self.digest}", title_justify="left")
        for column in ("field", "value", "reason"):
            table.add_column(column, overflow="fold")
        for name, value in asdict(self).items():
            if name != "reasons":
                table.add_row(name, _show(name, value), self.reasons[name])
        out = io.StringIO()
        Console(file=out, width=118).print(table)
        return out.getvalue()


def _show(name: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if name.endswith("_bytes"):
        return f"{value / _GIB:.2f} GiB" if value >= _GIB else f"{value / 2**20:.1f} MiB"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


class _Decisions:
    """Collects values with their reasons; a forced value always wins and says so."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def set(self, name: str, value: Any, reason: str) -> Any:
        self.values[name], self.reasons[name] = value, reason
        return value

    def choose(self, name: str, forced: Any, decide: Callable[[], tuple[Any, str]]) -> Any:
        if forced is not None:
            return self.set(name, forced, f"forced by plan.{name}")
        return self.set(name, *decide())


def make_plan(hardware: Hardware, cluster: Cluster, request: PlanRequest) -> ExecutionPlan:
    """Decides how the run uses the hardware it has.

    Raises:
        UsageError: the batch can't be divided among the replicas or does not fit into memory, or a forced
            choice is impossible on this hardware; the message holds the override that fixes it.
    """
    d, forced = _Decisions(), request.forced
    d.set("accelerator", hardware.accelerator, "; ".join([hardware.describe(), *hardware.notes]))
    _decide_strategy(d, hardware, cluster, forced)
    _decide_precision(d, hardware, request)
    _decide_compilation(d, forced)
    _decide_batches(d, request)
    _decide_memory(d, hardware, request)
    _decide_loop(d, hardware, request)
    _decide_host(d, hardware, forced)
    return ExecutionPlan(**d.values, reasons=d.reasons)


def _decide_strategy(d: _Decisions, hardware: Hardware, cluster: Cluster, forced: PlanConfig) -> None:
    kind = d.values["accelerator"]
    tpu = hardware.tpu
    if kind == "tpu" and tpu:
        # v2 and v3 show two devices per chip; from v4 on the two cores of a chip are one device
        per_chip = 2 if tpu.kind in ("v2", "v3") else 1
        devices, workers = tpu.chips_per_host * per_chip, tpu.hosts
        device_reason = f"{tpu.chips_per_host} {tpu.kind} chips in this host, {per_chip} device(s) each"
    else:
        devices, workers = max(1, len(hardware.gpus)), cluster.num_workers
        device_reason = (
            f"{devices} GPU(s) visible" if kind == "gpu" else "one device: the cores of a CPU share one set of threads"
        )
    d.set("num_workers", workers, f"cluster from {cluster.source}")

    def decide() -> tuple[str, str]:
        if kind == "tpu":
            return "tpu", "a TPU was found"
        if workers > 1:
            return "multi_worker", f"{cluster.source} lists {workers} workers"
        if devices > 1:
            return "mirrored", f"{devices} GPUs in one worker"
        return "one_device", f"one {kind.upper()} device in one worker"

    wish = None if forced.strategy is Strategy.auto else forced.strategy.value
    strategy = d.choose("strategy", wish, decide)
    if strategy == "one_device":
        if workers > 1:
            raise UsageError(
                f"strategy one_device would train {workers} separate models, since {cluster.source} lists {workers}"
                " workers",
                where="plan.strategy",
                fix="remove plan.strategy, or unset TF_CONFIG",
            )
        devices, device_reason = 1, "strategy one_device uses the first device"
    d.set("local_devices", devices, device_reason)
    d.set("num_replicas", devices * workers, f"{devices} device(s) in each of {workers} worker(s)")


def _decide_precision(d: _Decisions, hardware: Hardware, request: PlanRequest) -> None:
    kind = d.values["accelerator"]

    def decide() -> tuple[str, str]:
        if kind == "tpu":
            return "mixed_bfloat16", "TPUs multiply in bfloat16"
        if kind == "gpu":
            capability = min(gpu.compute_capability for gpu in hardware.gpus)
            sm = f"sm_{capability[0]}{capability[1]}"
            if capability >= (8, 0):
                return "mixed_bfloat16", f"{sm} multiplies bfloat16 natively; no loss scaling is needed"
            if capability >= (7, 0):
                return "mixed_float16", f"{sm} has float16 tensor cores but no bfloat16; the loss is scaled"
            return "float32", f"{sm} has no tensor cores"
        if not hardware.cpu_native_bfloat16:
            return "float32", "this CPU has no bfloat16 instructions"
        cost = request.footprint.forward_flops if request.footprint else None
        if cost is None or cost < 1e6:
            return "float32", "the model is small or of unknown cost, so casts would cost more than they save"
        return "mixed_bfloat16", "this CPU multiplies bfloat16 natively; variables stay float32"

    wish = None if request.forced.precision is Precision.auto else request.forced.precision.value
    built = request.precision
    if built is None:
        d.choose("precision", wish, decide)
        return
    if built not in Precision.__members__ or wish not in (None, built):
        raise UsageError(
            f"the model was built in {built}, and a built model keeps its precision",
            where="plan.precision",
            fix="give a function that builds the model: it is called under the plan's precision",
        )
    d.set("precision", built, "the model was built in it")


def _decide_compilation(d: _Decisions, forced: PlanConfig) -> None:
    kind = d.values["accelerator"]

    def decide_xla() -> tuple[bool, str]:
        if kind == "tpu":
            return False, "a TPU compiles every step by itself"
        if kind == "gpu":
            return True, "forward and backward pass are compiled inside each replica; collectives stay outside"
        return False, "XLA's convolutions on CPU are about half as fast as oneDNN's"

    def decide_deterministic() -> tuple[bool, str]:
        if kind == "cpu":
            return True, "a resumed run repeats the same bits, and on CPU that costs next to nothing"
        return False, f"deterministic kernels are slower on a {kind.upper()}; plan.deterministic=true for exact bits"

    d.choose("xla", forced.xla, decide_xla)
    d.choose("deterministic", forced.deterministic, decide_deterministic)


def _decide_batches(d: _Decisions, request: PlanRequest) -> None:
    batch, replicas = request.global_batch, d.values["num_replicas"]
    if batch < 1:
        raise UsageError(f"global_batch={batch} is not positive", where="train.global_batch", fix="give 1 or more")
    if batch % replicas:
        below, above = batch // replicas * replicas, math.ceil(batch / replicas) * replicas
        options = " or ".join(str(b) for b in dict.fromkeys((below, above)) if b)
        raise UsageError(
            f"global_batch={batch} is not divisible by {replicas} replicas",
            where="train.global_batch",
            fix=f"use train.global_batch={options}",
        )
    d.set("global_batch", batch, "train.global_batch: the recipe's, whatever the hardware")
    d.set("replica_batch", batch // replicas, f"{batch} examples over {replicas} replica(s)")


def _memory(request: PlanRequest, precision: str, micro_batch: int) -> int:
    """Bytes on one device: weights, gradients and slots in float32, activations in the compute precision."""
    footprint = request.footprint
    assert footprint is not None
    mixed = precision.startswith("mixed")
    weight_bytes = {"float64": 8}.get(precision, 4)
    state = footprint.parameters * weight_bytes * (2 + request.optimizer_slots)
    cast_weights = footprint.parameters * 2 if mixed else 0
    activations = footprint.activation_bytes * micro_batch * weight_bytes // (8 if mixed else 4)
    return state + cast_weights + activations


def _device_memory(hardware: Hardware, kind: str) -> tuple[int, str]:
    if kind == "gpu":
        return int(min(g.memory_bytes for g in hardware.gpus) * 0.9), "90 % of the smallest GPU's memory"
    if kind == "tpu" and hardware.tpu:
        per_chip = 2 if hardware.tpu.kind in ("v2", "v3") else 1
        return int(
            hardware.tpu.memory_bytes_per_chip * 0.9 / per_chip
        ), f"90 % of a chip's memory, {per_chip} device(s)"
    return int(hardware.memory_bytes * 0.6), "60 % of the memory that this container may use"


def _decide_memory(d: _Decisions, hardware: Hardware, request: PlanRequest) -> None:
    kind, replica_batch, precision = d.values["accelerator"], d.values["replica_batch"], d.values["precision"]
    budget, reason = _device_memory(hardware, kind)
    d.set("device_memory_bytes", budget, reason)
    forced = request.accumulate
    if forced is not None and (forced < 1 or replica_batch % forced):
        divisors = ", ".join(str(n) for n in range(1, replica_batch + 1) if replica_batch % n == 0)
        raise UsageError(
            f"a replica's batch of {replica_batch} can't be cut into {forced} equal micro-batches",
            where="train.accumulate",
            fix=f"use one of {divisors}",
        )
    if request.footprint is None:
        d.set("foreseen_memory_bytes", None, "the recipe declares no footprint")
        d.set("accumulate", forced or 1, "forced by train.accumulate" if forced else "nothing says that it is needed")
    else:
        options = [forced] if forced else [n for n in range(1, replica_batch + 1) if replica_batch % n == 0]
        fitting = [n for n in options if _memory(request, precision, replica_batch // n) <= budget]
        if not fitting:
            raise _too_large(d, request, budget, options[-1])
        need = _memory(request, precision, replica_batch // fitting[0])
        d.set("foreseen_memory_bytes", need, "weights, gradients, optimizer slots and one micro-batch's activations")
        if forced:
            d.set("accumulate", forced, "forced by train.accumulate")
        elif fitting[0] == 1:
            d.set("accumulate", 1, "a replica's batch fits into memory whole")
        else:
            whole = _memory(request, precision, replica_batch)
            d.set("accumulate", fitting[0], f"the whole batch would need {_show('_bytes', whole)} per device")
    micro = replica_batch // d.values["accumulate"]
    d.set("micro_batch", micro, f"{replica_batch} examples in {d.values['accumulate']} part(s)")


def _too_large(d: _Decisions, request: PlanRequest, budget: int, accumulate: int) -> UsageError:
    precision, replicas = d.values["precision"], d.values["num_replicas"]
    need = _memory(request, precision, d.values["replica_batch"] // accumulate)
    what = (
        f"{d.values['replica_batch'] // accumulate} examples at once need {_show('_bytes', need)} per device and"
        f" {_show('_bytes', budget)} are there"
    )
    assert request.footprint is not None
    fixed = _memory(request, precision, 0)
    if _memory(request, precision, 1) > budget:
        return UsageError(what, where="memory", fix="the model is too large for one device: use a smaller one")
    per_example = _memory(request, precision, 1) - fixed
    fits = max(1, (budget - fixed) // max(1, per_example)) * replicas
    fix = f"use train.global_batch={fits}" + (" or remove train.accumulate" if request.accumulate else "")
    return UsageError(what, where="train.global_batch", fix=fix)


def _peak_flops(hardware: Hardware, kind: str, precision: str) -> float:
    """A rough matrix peak of one device in FLOP/s."""
    if kind == "gpu":
        capability = hardware.gpus[0].compute_capability
        tflops = _GPU_TFLOPS.get(capability, 100.0 if capability >= (8, 0) else 15.0)
        return tflops * 1e12 / (1 if precision.startswith("mixed") else 8)
    if kind == "tpu" and hardware.tpu:
        return _TPU_TFLOPS.get(hardware.tpu.kind, 200.0) * 1e12
    sets = hardware.cpu.instruction_sets
    name = "bfloat16" if precision == "mixed_bfloat16" else "avx512f" if "avx512f" in sets else "other"
    return hardware.cores * _CPU_CORE_GFLOPS[name] * 1e9


def _decide_loop(d: _Decisions, hardware: Hardware, request: PlanRequest) -> None:
    def decide() -> tuple[int, str]:
        if request.footprint is None:
            return 100, f"of unknown cost: shortened once measured, so that a loop stays under {LOOP_SECONDS:g} s"
        flops = 3 * request.footprint.forward_flops * d.values["replica_batch"]
        seconds = flops / (_peak_flops(hardware, d.values["accelerator"], d.values["precision"]) * _EFFICIENCY)
        steps = max(1, min(_MAX_STEPS_PER_LOOP, int(LOOP_SECONDS / max(seconds, 1e-9))))
        return steps, f"about {seconds * 1000:.3g} ms a step, and a loop should return within {LOOP_SECONDS:g} s"

    steps = d.choose("steps_per_loop", request.forced.steps_per_loop, decide)
    if steps < 1:
        raise UsageError(f"steps_per_loop={steps} is not positive", where="plan.steps_per_loop", fix="give 1 or more")


def _input_ram(hardware: Hardware) -> tuple[int, str]:
    share = int(hardware.memory_bytes * 0.25)
    if share <= _INPUT_RAM:
        return share, "a quarter of the usable memory; smaller splits are held in memory whole"
    return _INPUT_RAM, "smaller splits are held in memory whole; loading more would delay the start"


def _decide_host(d: _Decisions, hardware: Hardware, forced: PlanConfig) -> None:
    kind, cores = d.values["accelerator"], max(1, int(hardware.cores))
    limit = f"{hardware.cores:g} cores after affinity and cgroup quota"

    def decide_input() -> tuple[int, str]:
        if kind == "cpu":
            return max(1, cores // 4), "the model needs the cores more than the input does"
        return max(1, cores - 2 * d.values["local_devices"]), "all cores but two per device, which launch its work"

    d.choose("intra_op_threads", forced.intra_op_threads, lambda: (cores, limit))
    d.choose("inter_op_threads", forced.inter_op_threads, lambda: (min(2 if kind == "cpu" else 16, cores), limit))
    d.choose("input_threads", forced.input_threads, decide_input)
    d.choose("input_ram_bytes", forced.input_ram_bytes, lambda: _input_ram(hardware))
    d.choose("prefetch", forced.prefetch, lambda: (2, "two steps ahead hide the jitter of the input"))
    for name in ("intra_op_threads", "inter_op_threads", "input_threads", "prefetch"):
        if d.values[name] < 1:
            raise UsageError(f"{name}={d.values[name]} is not positive", where=f"plan.{name}", fix="give 1 or more")
