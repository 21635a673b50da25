"""The plan's part about distribution: which strategy, how gradients travel, and what must not be combined.

Owns the list of combinations that are known to hang, crash or compute wrong numbers. Refuses to know TensorFlow.
"""

from __future__ import annotations

from tfscale.cluster import Cluster
from tfscale.config.schema import PlanConfig, Strategy
from tfscale.errors import ClusterConfigError, UsageError
from tfscale.hardware import Hardware
from tfscale.plan.request import Decisions, PlanRequest

_MIB = 2**20
_ALONE = ("one_device", "mirrored")  # strategies of one worker


def decide_strategy(d: Decisions, hardware: Hardware, cluster: Cluster, forced: PlanConfig) -> None:
    """Sets strategy, num_workers, local_devices and num_replicas.

    Raises:
        UsageError: a forced strategy doesn't fit the cluster, or more devices are wanted than there are.
        ClusterConfigError: the cluster has a role that the forced strategy doesn't know.
    """
    kind, servers = d.values["accelerator"], "ps" in cluster.addresses
    devices, workers, device_reason = _devices(hardware, cluster, kind, forced)
    if servers:
        workers = len(cluster.addresses.get("worker", ()))
    local = "local, one worker: nothing in the environment describes a cluster"
    d.set("num_workers", workers, local if cluster.source == "local" else f"cluster from {cluster.source}")

    def decide() -> tuple[str, str]:
        if kind == "tpu":
            return "tpu", "a TPU was found"
        if servers:
            return "parameter_server", f"{cluster.source} lists parameter servers"
        if workers > 1:
            return "multi_worker", f"{cluster.source} lists {workers} workers"
        if devices > 1:
            return "mirrored", f"{devices} {kind.upper()} devices in one worker"
        return "one_device", f"one {kind.upper()} device in one worker"

    wish = None if forced.strategy is Strategy.auto else forced.strategy.value
    strategy = d.choose("strategy", wish, decide)
    _check_cluster(strategy, workers, servers, cluster)
    if strategy == "one_device":
        devices, device_reason = 1, "strategy one_device uses the first device"
    if strategy == "parameter_server":
        devices, device_reason = 1, "a worker computes whole steps on its first device"
    d.set("local_devices", devices, device_reason)
    if strategy == "parameter_server":
        d.set("num_replicas", 1, f"asynchronous: each of {workers} workers computes whole steps alone")
    else:
        d.set("num_replicas", devices * workers, f"{devices} device(s) in each of {workers} worker(s)")


def _devices(hardware: Hardware, cluster: Cluster, kind: str, forced: PlanConfig) -> tuple[int, int, str]:
    """(devices of one worker, workers, the reason for the first)."""
    tpu = hardware.tpu
    if kind == "tpu" and tpu:
        # v2 and v3 show two devices per chip; from v4 on the two cores of a chip are one device
        per_chip = 2 if tpu.kind in ("v2", "v3") else 1
        reason = f"{tpu.chips_per_host} {tpu.kind} chips in this host, {per_chip} device(s) each"
        return tpu.chips_per_host * per_chip, tpu.hosts, reason
    there, wish = max(1, len(hardware.gpus)), forced.local_devices
    if wish is not None:
        if wish < 1 or (kind == "gpu" and wish > there):
            raise UsageError(
                f"local_devices={wish}, and this worker has {there} {kind.upper()} device(s)",
                where="plan.local_devices",
                fix=f"use 1 to {there}, or remove it",
            )
        there = wish
        reason = "forced by plan.local_devices" + ("; they share the CPU's cores" if kind == "cpu" else "")
    elif kind == "gpu":
        reason = f"{there} GPU(s) visible"
    else:
        reason = "one device: the cores of a CPU share one set of threads"
    return there, cluster.num_workers, reason


def _check_cluster(strategy: str, workers: int, servers: bool, cluster: Cluster) -> None:
    if servers and strategy != "parameter_server":
        raise ClusterConfigError(
            f"strategy {strategy} has no parameter servers, but {cluster.source} lists ps",
            where="plan.strategy",
            fix="use plan.strategy=parameter_server, or remove ps from the cluster",
        )
    if strategy == "parameter_server":
        missing = [role for role in ("chief", "worker", "ps") if not cluster.addresses.get(role)]
        if missing:
            raise ClusterConfigError(
                f"strategy parameter_server needs a chief, workers and ps; {cluster.source} has no "
                + ", no ".join(missing),
                where="plan.strategy",
                fix="on one machine: tfscale launch --workers 2 --ps 1 -- ...",
            )
    if strategy in _ALONE and workers > 1:
        raise UsageError(
            f"strategy {strategy} would train {workers} separate models, since {cluster.source} lists {workers}"
            " workers",
            where="plan.strategy",
            fix=f"remove plan.strategy, or what describes the cluster ({cluster.source})",
        )
    if strategy == "multi_worker" and workers == 1:
        raise UsageError(
            "strategy multi_worker needs a cluster, and this process is alone",
            where="plan.strategy",
            fix="remove plan.strategy, or start several processes: tfscale launch --workers 2 -- ...",
        )


def decide_communication(d: Decisions, request: PlanRequest) -> None:
    """Sets collectives, bytes_per_pack and wire_precision."""
    kind, replicas, forced = d.values["accelerator"], d.values["num_replicas"], request.forced

    def collectives() -> tuple[str, str]:
        if replicas == 1:
            return "none", "one replica has nobody to reduce gradients with"
        if kind == "tpu":
            return "tpu", "the TPU's own links"
        if kind == "gpu":
            return "nccl", "NCCL uses NVLink and InfiniBand where they are"
        return "ring", "TensorFlow's ring over gRPC is what CPUs have"

    def pack() -> tuple[int, str]:
        if d.values["collectives"] in ("none", "tpu"):
            return (
                0,
                "no packs: there is no reduction to cut" if replicas == 1 else "the TPU's compiler packs by itself",
            )
        if kind == "gpu":
            return 32 * _MIB, "packs are reduced while the backward pass goes on; one pack would wait for its end"
        return 8 * _MIB, "a few packs use the wire while others are copied; 103 MB took half as long as in one pack"

    d.set("collectives", *collectives())
    packed = d.choose("bytes_per_pack", forced.bytes_per_pack, pack)
    if packed < 0:
        raise UsageError(
            f"bytes_per_pack={packed} is negative", where="plan.bytes_per_pack", fix="give 0 (one pack) or more"
        )
    wire = None if forced.wire_precision is None else forced.wire_precision.value
    d.choose("wire_precision", wire, lambda: ("full", "gradients travel as they are computed"))


def guard(d: Decisions, request: PlanRequest) -> None:
    """Rewrites what is known to hang, crash or compute wrong numbers; where it was forced, refuses it.

    Raises:
        UsageError: a forced choice is one of these.
    """
    values, forced = d.values, request.forced
    strategy, kind = values["strategy"], values["accelerator"]
    asynchronous = strategy == "parameter_server"

    def rewrite(name: str, to: object, reason: str, wished: object) -> None:
        if wished is not None and wished != to:
            raise UsageError(
                f"{name}={_text(wished)} can't be used here: {reason}",
                where=f"plan.{name}",
                fix=f"remove plan.{name} or use plan.{name}={_text(to)}",
            )
        d.set(name, to, reason)

    if values["xla"] and request.reduces_inside:
        rewrite(
            "xla", False, "the model reduces inside its layers, and collectives can't be compiled there", forced.xla
        )
    if asynchronous and values["xla"]:
        rewrite("xla", False, "variables live on other machines, which a compiled step can't read", forced.xla)
    if asynchronous and values["deterministic"]:
        reason = "asynchronous updates come in the order in which workers finish"
        rewrite("deterministic", False, reason, forced.deterministic)
    if asynchronous and values["precision"] == "mixed_float16":
        reason = "workers would each scale the loss by themselves, and one overflow would count for all"
        rewrite("precision", "float32", reason, None if forced.precision.value == "auto" else "mixed_float16")
    if kind == "tpu" and values["precision"] in ("float64", "mixed_float16"):
        reason = f"TPUs don't compute in {values['precision'].removeprefix('mixed_')}"
        rewrite("precision", "mixed_bfloat16", reason, values["precision"])
    if kind == "cpu" and values["inter_op_threads"] < 2 and (values["num_replicas"] > 1 or asynchronous):
        reason = "with one thread, operations that wait for peers would keep others from running"
        rewrite("inter_op_threads", 2, reason, forced.inter_op_threads)
    if kind == "tpu" and values["xla"]:
        rewrite("xla", False, "a TPU compiles every step by itself", forced.xla)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
