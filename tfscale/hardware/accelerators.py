"""Visible GPUs, asked of the driver, and the TPU that the environment describes."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tfscale.hardware.facts import GIB, Gpu, Tpu

# Memory per chip in GiB, and what the number in TPU_ACCELERATOR_TYPE counts per chip: TensorCores up to v4 and in v5p
# (two a chip), chips in v5e and v6e. https://cloud.google.com/tpu/docs/system-architecture-tpu-vm
_TPU_KINDS = {"v2": (16, 2), "v3": (32, 2), "v4": (32, 2), "v5e": (16, 1), "v5p": (95, 2), "v6e": (32, 1)}


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


def visible_gpus(environ: Mapping[str, str]) -> tuple[tuple[Gpu, ...], str]:
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


def tpu_slice(environ: Mapping[str, str]) -> tuple[Tpu | None, tuple[str, ...]]:
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
    tpu = Tpu(kind, topology, chips_per_host, hosts, memory * GIB)
    return tpu, () if chips_per_host * hosts == chips else (odd,)
