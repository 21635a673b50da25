"""The plan's part about batches and memory: how a step is divided among devices and micro-batches.

Owns the estimate of memory. Refuses to know strategies and TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math

from tfscale.errors import UsageError
from tfscale.hardware import Hardware
from tfscale.plan.request import Decisions, PlanRequest, show


def decide_batches(d: Decisions, request: PlanRequest) -> None:
    batch, replicas = request.global_batch, d.values["num_replicas"]
    if batch < 1:
        raise UsageError(f"global_batch={batch} is not positive", where="train.global_batch", fix="give 1 or more")
    uneven = batch % replicas and request.uneven and d.values["strategy"] not in ("tpu", "parameter_server")
    if batch % replicas and not uneven:
        below, above = batch // replicas * replicas, math.ceil(batch / replicas) * replicas
        options = " or ".join(str(b) for b in dict.fromkeys((below, above)) if b)
        raise UsageError(
            f"global_batch={batch} is not divisible by {replicas} replicas",
            where="train.global_batch",
            fix=f"use train.global_batch={options}",
        )
    d.set("global_batch", batch, "train.global_batch: the recipe's, whatever the hardware")
    at_most = ", which is no whole number: at most" if uneven else ""
    d.set("replica_batch", math.ceil(batch / replicas), f"{batch} examples over {replicas} replica(s){at_most}")


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


def _without_tables(request: PlanRequest) -> PlanRequest:
    footprint = request.footprint
    assert footprint is not None
    rest = dataclasses.replace(footprint, parameters=footprint.parameters - footprint.table_parameters)
    return dataclasses.replace(request, footprint=rest)


def _device_memory(hardware: Hardware, kind: str, devices: int) -> tuple[int, str]:
    """(what may be used of one device's memory, why); the logical devices of a CPU share its own."""
    if kind == "gpu":
        return int(min(g.memory_bytes for g in hardware.gpus) * 0.9), "90 % of the smallest GPU's memory"
    if kind == "tpu" and hardware.tpu:
        per_chip = 2 if hardware.tpu.kind in ("v2", "v3") else 1
        return int(
            hardware.tpu.memory_bytes_per_chip * 0.9 / per_chip
        ), f"90 % of a chip's memory, {per_chip} device(s)"
    shared = f", which {devices} logical devices share" if devices > 1 else ""
    return int(hardware.memory_bytes * 0.6) // devices, f"60 % of the memory that this container may use{shared}"


def decide_memory(d: Decisions, hardware: Hardware, request: PlanRequest) -> None:
    kind, replica_batch, precision = d.values["accelerator"], d.values["replica_batch"], d.values["precision"]
    budget, reason = _device_memory(hardware, kind, d.values["local_devices"])
    d.set("device_memory_bytes", budget, reason)
    elsewhere = ""
    tables = request.footprint.table_parameters if request.footprint is not None else 0
    if tables and d.values["strategy"] == "parameter_server":
        request, elsewhere = _without_tables(request), ", without the tables, which the servers hold"
    forced = request.accumulate
    if forced is not None and (forced < 1 or replica_batch % forced):
        divisors = ", ".join(str(n) for n in range(1, replica_batch + 1) if replica_batch % n == 0)
        raise UsageError(
            f"a replica's batch of {replica_batch} can't be cut into {forced} equal micro-batches",
            where="train.accumulate",
            fix=f"use one of {divisors}",
        )
    if request.footprint is not None and request.counted and request.keeps_precision:
        need = _memory(request, precision, replica_batch // (forced or 1))
        d.set("foreseen_memory_bytes", need, "counted from the built model, which is trained as you gave it")
        d.set(
            "accumulate",
            forced or 1,
            "forced by train.accumulate" if forced else "a model of your own isn't cut unasked",
        )
    elif request.footprint is None:
        d.set("foreseen_memory_bytes", None, "the task declares no footprint, and none was counted")
        d.set("accumulate", forced or 1, "forced by train.accumulate" if forced else "nothing says that it is needed")
    else:
        options = [forced] if forced else [n for n in range(1, replica_batch + 1) if replica_batch % n == 0]
        fitting = [n for n in options if _memory(request, precision, replica_batch // n) <= budget]
        if not fitting:
            raise _too_large(d, request, budget, options[-1])
        need = _memory(request, precision, replica_batch // fitting[0])
        counted = ", counted from the built model" if request.counted else ""
        what = f"weights, gradients, optimizer slots and one micro-batch's activations{counted}{elsewhere}"
        d.set("foreseen_memory_bytes", need, what)
        if forced:
            d.set("accumulate", forced, "forced by train.accumulate")
        elif fitting[0] == 1:
            d.set("accumulate", 1, "a replica's batch fits into memory whole")
        else:
            whole = _memory(request, precision, replica_batch)
            d.set("accumulate", fitting[0], f"the whole batch would need {show('_bytes', whole)} per device")
    micro = replica_batch // d.values["accumulate"]
    d.set("micro_batch", micro, f"{replica_batch} examples in {d.values['accumulate']} part(s)")


def _too_large(d: Decisions, request: PlanRequest, budget: int, accumulate: int) -> UsageError:
    precision, replicas = d.values["precision"], d.values["num_replicas"]
    need = _memory(request, precision, d.values["replica_batch"] // accumulate)
    what = (
        f"{d.values['replica_batch'] // accumulate} examples at once need {show('_bytes', need)} per device and"
        f" {show('_bytes', budget)} are there"
    )
    assert request.footprint is not None
    fixed = _memory(request, precision, 0)
    if _memory(request, precision, 1) > budget:
        fix = "the model is too large for one device: use a smaller one"
        if tables := request.footprint.table_parameters:
            fix += f", or share its tables of {tables} numbers among servers: tfscale launch --workers 2 --ps 2 -- ..."
        return UsageError(what, where="memory", fix=fix)
    per_example = _memory(request, precision, 1) - fixed
    fits = max(1, (budget - fixed) // max(1, per_example)) * replicas
    fix = f"use train.global_batch={fits}" + (" or remove train.accumulate" if request.accumulate else "")
    return UsageError(what, where="train.global_batch", fix=fix)
