"""The execution plan: every decision about how a run uses its hardware, each with its reason.

Owns `ExecutionPlan` and `make_plan`, a pure function of facts and wishes. Refuses to know TensorFlow, files and clocks,
so that it also plans for a machine that is not there. The memory and time it foresees are estimates from the recipe's
`Footprint`; what is measured later (the length of a loop) is bounded by the plan, never decided by the estimate alone.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any

from tfscale.cluster import Cluster
from tfscale.config.schema import PlanConfig, Precision
from tfscale.console import columns, table
from tfscale.errors import UsageError
from tfscale.files import digest_of
from tfscale.hardware import Hardware
from tfscale.plan.batches import decide_batches, decide_memory
from tfscale.plan.request import GIB, Advised, Decisions, PlanRequest, show
from tfscale.plan.strategy import decide_communication, decide_strategy, guard

LOOP_SECONDS = 2.0  # a signal is answered, and an action runs, when a compiled loop returns
_MAX_STEPS_PER_LOOP = 1000

# Dense matrix peaks in TFLOP/s that vendors publish, by compute capability; they only size the first loop.
_GPU_TFLOPS = {(9, 0): 800.0, (8, 0): 312.0, (8, 6): 120.0, (8, 9): 240.0, (7, 5): 65.0, (7, 0): 125.0}
_TPU_TFLOPS = {"v2": 45.0, "v3": 123.0, "v4": 275.0, "v5e": 197.0, "v5p": 459.0, "v6e": 918.0}
_CPU_CORE_GFLOPS = {"bfloat16": 190.0, "avx512f": 90.0, "other": 45.0}
_INPUT_RAM = 4 * GIB
_EFFICIENCY = 0.3  # of the peak, for a real model


_AGREED = (
    "strategy",
    "num_workers",
    "num_replicas",
    "local_devices",
    "precision",
    "xla",
    "deterministic",
    "fused_kernels",
    "global_batch",
    "replica_batch",
    "accumulate",
    "collectives",
    "bytes_per_pack",
    "wire_precision",
)
_SWITCHES = ("xla", "fused_kernels", "deterministic")


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
    fused_kernels: bool
    global_batch: int
    replica_batch: int
    accumulate: int
    micro_batch: int
    steps_per_loop: int
    intra_op_threads: int
    inter_op_threads: int
    input_threads: int
    input_ram_bytes: int
    decoded_ram_bytes: int
    prefetch: int
    collectives: str
    bytes_per_pack: int
    wire_precision: str
    device_memory_bytes: int
    foreseen_memory_bytes: int | None
    reasons: dict[str, str] = field(default_factory=dict, compare=False)
    advised: dict[str, Advised] = field(default_factory=dict, compare=False, repr=False)

    @property
    def digest(self) -> str:
        """A hash of what all workers must agree on; threads, memory and reasons may differ."""
        return digest_of(self.agreed())[:16]

    def agreed(self) -> dict[str, Any]:
        """What all workers must have alike."""
        return {name: getattr(self, name) for name in _AGREED}

    def to_dict(self) -> dict[str, Any]:
        return {**self._decided(), "reasons": self.reasons, "digest": self.digest}

    def _decided(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("reasons", "advised")}

    def explain(self, width: int | None = None) -> str:
        """A table of every field, its value and its reason, in lines of at most `width` characters: as wide as the
        terminal where none is given."""
        rows = [(name, show(name, value), self.reasons[name]) for name, value in self._decided().items()]
        return table(rows, ("field", "value", "reason"), title=f"execution plan {self.digest}", whole=(0,), width=width)

    def brief(self, width: int | None = None) -> str:
        """What most people want to know of it, in about five lines of at most `width` characters, as of `explain`."""
        shares = f", in {self.accumulate} micro-batches of {self.micro_batch}" if self.accumulate > 1 else ""
        places = f" in {self.num_workers} workers" if self.num_workers > 1 else ""
        replicas = f"{self.num_replicas} replicas{places}, each" if self.num_replicas > 1 else "one replica,"
        spread = f"; collectives {self.collectives}" if self.num_replicas > 1 else ""
        switches = ", ".join(f"{word} {show(word, getattr(self, word))}" for word in _SWITCHES).replace("_", " ")
        memory = f"{show('bytes', self.foreseen_memory_bytes)} of {show('bytes', self.device_memory_bytes)}"
        lines = [
            f"execution plan {self.digest} (plan.explain=full shows every decision and its reason)",
            self.reasons["accelerator"],
            f"{self.strategy}: {replicas} {self.replica_batch} examples a step{shares}{spread}",
            f"{self.precision}; {switches}; {self.steps_per_loop} steps a loop",
            f"threads {self.intra_op_threads}, input threads {self.input_threads}; memory foreseen {memory}",
        ]
        for one in self.advised.values():
            gain = f" (up to {one.times:.1f} times the matrix products)" if one.times else ""
            lines.append(f"advised: {one.override}{gain}")
        room = width or columns()
        return "\n".join(piece for line in lines for piece in textwrap.wrap(line, room, subsequent_indent="  "))


def make_plan(hardware: Hardware, cluster: Cluster, request: PlanRequest) -> ExecutionPlan:
    """Decides how the run uses the hardware it has.

    Raises:
        UsageError: the batch can't be divided among the replicas or does not fit into memory, or a forced
            choice is impossible on this hardware; the message holds the override that fixes it.
    """
    d, forced = Decisions(), request.forced
    d.set("accelerator", hardware.accelerator, "; ".join([hardware.describe(), *hardware.notes]))
    decide_strategy(d, hardware, cluster, forced)
    _decide_precision(d, hardware, request)
    _decide_compilation(d, request)
    decide_batches(d, request)
    decide_memory(d, hardware, request)
    _decide_loop(d, hardware, request)
    _decide_host(d, hardware, forced)
    _decide_decoded(d, hardware, request)
    decide_communication(d, request)
    guard(d, request)
    return ExecutionPlan(**d.values, reasons=d.reasons, advised=d.advised)


def _decide_precision(d: Decisions, hardware: Hardware, request: PlanRequest) -> None:
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
        if request.footprint is None and not request.keeps_precision:
            return "float32", "the model's cost is unknown, and casts may cost more than they save"
        if request.footprint is not None and request.footprint.forward_flops < 1e6:
            return "float32", "the model is small, so casts would cost more than they save"
        return "mixed_bfloat16", f"this CPU multiplies bfloat16 natively; variables stay float32{_of_count(request)}"

    def faster(to: str) -> float:
        return _peak_flops(hardware, kind, to) / _peak_flops(hardware, kind, "float32")

    def gain(to: str) -> str:
        known = _of_count(request) if request.footprint else "; the model's cost is unknown, so try it"
        return f"plan.precision={to} would make matrix products up to {faster(to):.1f} times as fast here{known}"

    wish = None if request.forced.precision is Precision.auto else request.forced.precision.value
    built = request.precision
    best = decide()[0]
    if built is None:
        if request.keeps_precision and wish is None and best != "float32":
            d.set("precision", "float32", f"a model of your own keeps it unasked; {gain(best)}")
            d.advised["precision"] = Advised(f"plan.precision={best}", faster(best))
        else:
            d.choose("precision", wish, decide)
        return
    if built not in Precision.__members__ or wish not in (None, built):
        raise UsageError(
            f"the model was built in {built}, and a built model keeps its precision",
            where="plan.precision",
            fix="give a function that builds the model: it is called under the plan's precision",
        )
    more = f"; {gain(best)}, with a function that builds the model" if built == "float32" != best else ""
    d.set("precision", built, f"the model was built in it{more}")


def _of_count(request: PlanRequest) -> str:
    if request.footprint is None or not request.counted:
        return ""
    return f"; counted {request.footprint.forward_flops / 1e6:.3g} MFLOP a forward pass from the built model"


def _decide_compilation(d: Decisions, request: PlanRequest) -> None:
    kind, forced = d.values["accelerator"], request.forced

    def decide_xla() -> tuple[bool, str]:
        if kind == "tpu":
            return False, "a TPU compiles every step by itself"
        if kind == "gpu":
            return True, "forward and backward pass are compiled inside each replica; collectives stay outside"
        return False, "XLA's convolutions on CPU are about half as fast as oneDNN's"

    def decide_deterministic() -> tuple[bool, str]:
        if kind == "cpu":
            return True, "a resumed run repeats the same bits, and on CPU that costs next to nothing"
        return False, (
            f"deterministic kernels are slower on a {kind.upper()}: resume equal up to rounding;"
            " plan.deterministic=true gives the same bits"
        )

    def decide_fused() -> tuple[bool, str]:
        if kind != "cpu":
            return False, "they are kernels for CPUs"
        if d.values["xla"]:
            return False, "XLA makes its own"
        if d.values["precision"] not in ("float32", "mixed_bfloat16"):
            return False, f"they don't compute in {d.values['precision']}"
        if d.values["strategy"] == "parameter_server":
            return False, "parameter servers keep Keras's updates"
        own = "; plan.fused_kernels=false gives the bits of Keras's own" if request.keeps_precision else ""
        return True, f"norms, gelu, dense layers, attention, LSTMs and updates: equal to Keras's up to rounding{own}"

    d.choose("xla", forced.xla, decide_xla)
    d.choose("deterministic", forced.deterministic, decide_deterministic)
    d.choose("fused_kernels", forced.fused_kernels, decide_fused)
    if d.values["fused_kernels"] and (kind != "cpu" or d.values["xla"]):
        raise UsageError(
            "fused kernels are for steps on a CPU that XLA doesn't compile",
            where="plan.fused_kernels",
            fix="leave it away" if kind != "cpu" else "use plan.xla=false, or leave one of both away",
        )


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


def _decide_loop(d: Decisions, hardware: Hardware, request: PlanRequest) -> None:
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


def _decide_host(d: Decisions, hardware: Hardware, forced: PlanConfig) -> None:
    kind, cores = d.values["accelerator"], max(1, int(hardware.cores))
    limit = f"{hardware.cores:g} cores after affinity and cgroup quota"

    def decide_input() -> tuple[int, str]:
        if kind == "cpu":
            return max(1, cores // 4), "the model needs the cores more than the input does"
        return max(1, cores - 2 * d.values["local_devices"]), "all cores but two per device, which launch its work"

    d.choose("intra_op_threads", forced.intra_op_threads, lambda: (cores, limit))
    d.choose("inter_op_threads", forced.inter_op_threads, lambda: (min(2 if kind == "cpu" else 16, cores), limit))
    d.choose("input_threads", forced.input_threads, decide_input)
    if d.values["strategy"] == "parameter_server":
        d.set("input_ram_bytes", 0, "every piece of work opens the data anew, so that loading a split would not pay")
    else:
        d.choose("input_ram_bytes", forced.input_ram_bytes, lambda: _input_ram(hardware))
    d.choose("prefetch", forced.prefetch, lambda: (2, "two steps ahead hide the jitter of the input"))
    for name in ("intra_op_threads", "inter_op_threads", "input_threads", "prefetch"):
        if d.values[name] < 1:
            raise UsageError(f"{name}={d.values[name]} is not positive", where=f"plan.{name}", fix="give 1 or more")


def _decide_decoded(d: Decisions, hardware: Hardware, request: PlanRequest) -> None:
    """Off unless it is asked for: pictures that are decoded whole give other pixels at the edge of some crops."""
    forced, memory = request.forced.decoded_ram_bytes, hardware.memory_bytes
    count, size = request.decoded or (0, 0)

    def decide() -> tuple[int, str]:
        if not size:
            return 0, "nothing is held decoded: pictures are decoded whenever they are needed"
        text = f"pictures are decoded in every epoch; all {count:,} take {show('bytes', size)} decoded"
        if size > memory // 2:
            return 0, f"{text}, more than half of the memory"
        d.advised["decoded_ram_bytes"] = Advised(f"plan.decoded_ram_bytes={size}")
        return 0, f"{text}: {d.advised['decoded_ram_bytes'].override} holds them"

    if d.values["strategy"] == "parameter_server":
        if forced:
            raise UsageError(
                "with parameter servers every piece of work opens the data anew and can hold no decoded pictures",
                where="plan.decoded_ram_bytes",
                fix="leave it away",
            )
        d.set("decoded_ram_bytes", 0, "every piece of work opens the data anew")
        return
    held = d.choose("decoded_ram_bytes", forced, decide)
    if not 0 <= held <= memory:
        raise UsageError(
            f"decoded_ram_bytes={held} is "
            + ("negative" if held < 0 else f"more than the {memory} bytes of memory here"),
            where="plan.decoded_ram_bytes",
            fix=f"use 0 to {memory // 2}",
        )
    if held and size:
        fit = "all" if held >= size else f"about {count * held // size:,} of"
        d.reasons["decoded_ram_bytes"] += f"; {fit} {count:,} pictures fit"
