from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tfscale.errors import UsageError
from tfscale.hardware import Cpu, Gpu, Hardware, Tpu, probe, visible_devices

GIB = 2**30
GOLDEN = Path(__file__).parent / "golden" / "hardware"
CPU = Cpu("AMD EPYC 9B14", ("avx2", "fma", "avx512f", "avx512_bf16"), 32, 64, 1)
BOX = Hardware(cpu=CPU, cores=2.0, memory_bytes=4 * GIB, host_memory_bytes=16 * GIB)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def x86(processors: int, flags: str = "fpu avx2 fma avx512f avx512_bf16 lm") -> str:
    """/proc/cpuinfo of one socket with two threads a core."""
    return "".join(
        f"processor\t: {i}\nmodel name\t: AMD EPYC 9B14\nphysical id\t: 0\ncore id\t\t: {i // 2}\nflags\t\t: {flags}\n"
        "power management:\n\n"
        for i in range(processors)
    )


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A 64-thread host with 16 GiB and no cgroup limits."""
    write(tmp_path, {"proc/cpuinfo": x86(64), "proc/meminfo": f"MemTotal:  {16 * GIB // 1024} kB\nMemFree: 1 kB\n"})
    return tmp_path


def limits(host: Path) -> tuple[float, int]:
    found = probe(environ={}, root=host)
    return found.cores, found.memory_bytes


def test_probe_of_this_machine_is_sane_and_survives_json() -> None:
    here = probe(environ={})
    assert 0.1 <= here.cores <= 4096 and 2**26 < here.memory_bytes <= here.host_memory_bytes
    assert here.cpu.physical_cores <= here.cpu.logical_cores and here.describe()
    assert Hardware.from_json(here.to_json()) == here


def test_cuda_visible_devices_hides_the_gpus_of_this_machine() -> None:
    assert probe(environ={"CUDA_VISIBLE_DEVICES": "-1"}).gpus == ()


def test_bare_host(host: Path) -> None:
    write(host, {f"sys/devices/system/node/{name}/x": "" for name in ("node0", "node1", "power")})
    write(host, {"sys/devices/system/node/possible": "0-1", "proc/sys/kernel/hostname": "box-3\n"})
    found = probe(environ={}, root=str(host))
    assert found.cpu == Cpu("AMD EPYC 9B14", ("avx2", "fma", "avx512f", "avx512_bf16"), 32, 64, 2)
    assert (found.cores, found.memory_bytes, found.host_memory_bytes) == (64.0, 16 * GIB, 16 * GIB)
    assert (found.hostname, found.notes, found.gpus, found.tpu, found.accelerator) == ("box-3", (), (), None, "cpu")


def test_arm_has_other_keys(host: Path) -> None:
    block = "BogoMIPS\t: 2100.00\nFeatures\t: fp asimd sve bf16 i8mm\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n\n"
    write(host, {"proc/cpuinfo": "".join(f"processor\t: {i}\n{block}" for i in range(3)) + "Hardware\t: BCM2835\n"})
    found = probe(environ={}, root=host)
    assert found.cpu == Cpu("Neoverse V2", ("asimd", "bf16"), 3, 3, 1)
    assert found.cpu_native_bfloat16 and "Neoverse V2 (bf16)" in found.describe()


@pytest.mark.parametrize(
    ("files", "cores", "gib"),
    [
        pytest.param({"cpu.max": "200000 100000", "memory.max": str(4 * GIB)}, 2.0, 4, id="container-root"),
        pytest.param({"cpu.max": "150000 100000\n", "memory.max": "max\n"}, 1.5, 16, id="fraction"),
        pytest.param({"cpu.max": "max 100000", "memory.max": "max"}, 64.0, 16, id="no-limit"),
        pytest.param({"cpu.max": "garbage", "memory.max": "-3"}, 64.0, 16, id="garbage"),
        pytest.param({"memory.max": str(99 * GIB)}, 64.0, 16, id="limit-above-the-host"),
        pytest.param({"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3.0, 16, id="parent-limits"),
        pytest.param({"a/cpu.max": "300000 100000", "a/b/cpu.max": "50000 100000"}, 0.5, 16, id="own-limits"),
        pytest.param({"a/memory.max": str(2 * GIB), "a/b/memory.max": str(8 * GIB)}, 64.0, 2, id="least-memory"),
        pytest.param({"a/c/cpu.max": "100000 100000"}, 64.0, 16, id="sibling-is-not-ours"),
    ],
)
def test_cgroup_v2(host: Path, files: dict[str, str], cores: float, gib: int) -> None:
    write(host, {"proc/self/cgroup": "0::/a/b\n"} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert limits(host) == (cores, gib * GIB)


@pytest.mark.parametrize("path", ["/kubepods/pod1/abc", "/../../abc", "/", ""])
def test_cgroup_path_of_the_host_falls_back_to_the_mount(host: Path, path: str) -> None:
    write(host, {"proc/self/cgroup": f"0::{path}\n", "sys/fs/cgroup/cpu.max": "200000 100000"})
    write(host, {"sys/fs/cgroup/memory.max": str(4 * GIB)})
    assert limits(host) == (2.0, 4 * GIB)


V1 = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"


@pytest.mark.parametrize("cpu_mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize("below", ["", "docker/abc/"])
def test_cgroup_v1(host: Path, cpu_mount: str, below: str) -> None:
    cpu, memory = f"sys/fs/cgroup/{cpu_mount}/{below}", f"sys/fs/cgroup/memory/{below}"
    write(host, {"proc/self/cgroup": V1, f"{cpu}cpu.cfs_quota_us": "250000", f"{cpu}cpu.cfs_period_us": "100000"})
    write(host, {f"{memory}memory.limit_in_bytes": f"{3 * GIB}\n"})
    assert limits(host) == (2.5, 3 * GIB)


def test_cgroup_v1_without_limits(host: Path) -> None:
    write(
        host, {"proc/self/cgroup": V1 + "0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}
    )
    write(host, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"})
    assert limits(host) == (64.0, 16 * GIB)


def test_hybrid_cgroups_are_both_read(host: Path) -> None:
    write(host, {"proc/self/cgroup": "4:memory:/a\n0::/a\n", "sys/fs/cgroup/unified/a/cpu.max": "100000 100000"})
    write(host, {"sys/fs/cgroup/memory/a/memory.limit_in_bytes": str(GIB)})
    assert limits(host) == (1.0, GIB)


def test_a_tiny_quota_is_raised_and_noted(host: Path) -> None:
    write(host, {"sys/fs/cgroup/cpu.max": "1000 100000"})
    found = probe(environ={}, root=host)
    assert found.cores == 0.1 and "0.01 cores" in found.notes[0]


def test_device_file_without_a_driver_is_noted(host: Path) -> None:
    write(host, {"dev/nvidia0": ""})
    assert "an NVIDIA device file exists but" in probe(environ={}, root=host).notes[0]


UUIDS = ["GPU-8932f937-d72c", "GPU-8932aaaa-0000", "GPU-1111"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("0,7,1", [0]),
        ("0,-1,1", [0]),
        ("1,1", [1]),
        ("GPU-8932f", [0]),
        ("GPU-1111,GPU-8932a", [2, 1]),
        ("GPU-8932", []),  # names two
        ("GPU-9", []),
        ("MIG-a,MIG-b", ["MIG-a", "MIG-b"]),
        ("NoDevFiles", []),
    ],
)
def test_visible_devices(spec: str | None, expected: list[int | str]) -> None:
    assert visible_devices(spec, UUIDS) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TPU_ACCELERATOR_TYPE": "v4-8"}, Tpu("v4", "", 4, 1, 32 * GIB)),
        (
            {"TPU_ACCELERATOR_TYPE": "v4-8", "TPU_CHIPS_PER_HOST_BOUNDS": "2,2,1", "TPU_WORKER_HOSTNAMES": "localhost"},
            Tpu("v4", "2x2x1", 4, 1, 32 * GIB),
        ),
        (
            {"TPU_ACCELERATOR_TYPE": "v4-32", "TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_TOPOLOGY": "2x2x4"},
            Tpu("v4", "2x2x4", 4, 4, 32 * GIB),
        ),
        ({"TPU_ACCELERATOR_TYPE": "v2-8"}, Tpu("v2", "", 4, 1, 16 * GIB)),
        ({"TPU_ACCELERATOR_TYPE": "v3-32"}, Tpu("v3", "", 4, 4, 32 * GIB)),
        ({"TPU_ACCELERATOR_TYPE": "v5p-16"}, Tpu("v5p", "", 4, 2, 95 * GIB)),
        ({"TPU_ACCELERATOR_TYPE": "v5litepod-8"}, Tpu("v5e", "", 8, 1, 16 * GIB)),
        ({"TPU_ACCELERATOR_TYPE": "v5litepod-16"}, Tpu("v5e", "", 4, 4, 16 * GIB)),
        ({"TPU_ACCELERATOR_TYPE": "v6e-1"}, Tpu("v6e", "", 1, 1, 32 * GIB)),
    ],
)
def test_tpu(host: Path, environ: dict[str, str], expected: Tpu) -> None:
    found = probe(environ=environ, root=host)
    assert (found.tpu, found.accelerator, found.notes) == (expected, "tpu", ())


@pytest.mark.parametrize(
    ("environ", "note"),
    [
        ({"TPU_ACCELERATOR_TYPE": "v9-8"}, "TPU_ACCELERATOR_TYPE=v9-8"),
        ({"TPU_ACCELERATOR_TYPE": "v4-0"}, "TPU_ACCELERATOR_TYPE=v4-0"),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, "TPU_ACCELERATOR_TYPE="),
        ({"TPU_ACCELERATOR_TYPE": "v4-16", "TPU_WORKER_HOSTNAMES": "a,b,c"}, "v4-16 has 8 chips, but 3 hosts of 2"),
    ],
)
def test_tpu_oddities_are_noted(host: Path, environ: dict[str, str], note: str) -> None:
    assert note in probe(environ=environ, root=host).notes[0]


@pytest.mark.parametrize(
    ("name", "accelerator", "bfloat16", "line"),
    [
        ("h100x8", "gpu", True, "8 x NVIDIA H100 80GB HBM3 (79.6 GiB, sm_90, nvlink), 208 cores, 1.8 TiB"),
        ("t4", "gpu", False, "1 x Tesla T4 (15.0 GiB, sm_75), 8 cores, 29.9 GiB"),
        ("container-2core-4gib", "cpu", True, "2 cores of AMD EPYC 9B14 (avx512_bf16), 4.0 GiB"),
        ("cpu-avx2", "cpu", False, "4 cores of Intel(R) Core(TM) i5-7500 CPU @ 3.40GHz (avx2), 15.5 GiB"),
        ("tpu-v4-8", "tpu", False, "4 x TPU v4 (32.0 GiB, 2x2x1), 240 cores, 403.4 GiB"),
    ],
)
def test_golden(name: str, accelerator: str, bfloat16: bool, line: str) -> None:
    path = GOLDEN / f"{name}.json"
    hardware = Hardware.load(path)
    assert (hardware.accelerator, hardware.cpu_native_bfloat16, hardware.describe()) == (accelerator, bfloat16, line)
    assert hardware.to_json() == path.read_text()


def test_describe_mixed_gpus_slices_of_tpus_and_one_core() -> None:
    gpus = (Gpu("A", GIB, (8, 0), "pcie"), Gpu("B", 2 * GIB, (9, 0), "pcie"))
    assert dataclasses.replace(BOX, gpus=gpus).describe().startswith("1 x A (1.0 GiB, sm_80, pcie) + 1 x B (2.0 GiB")
    assert dataclasses.replace(BOX, tpu=Tpu("v4", "", 4, 4, GIB)).describe().startswith("16 x TPU v4 on 4 hosts (1.0 ")
    assert dataclasses.replace(BOX, cores=1.0).describe().startswith("1 core of")


def broken(**changes: object) -> str:
    return json.dumps(json.loads(BOX.to_json()) | changes)


CPU_JSON = dataclasses.asdict(CPU)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "column 2"),
        ("[1]", "hardware: an object is expected"),
        ("[" * 100_000, "not a description of hardware"),
        ("{}", "hardware.cpu: missing"),
        (broken(coers=1), "hardware.coers: unknown field; did you mean 'cores'?"),
        (broken(cores="2"), 'hardware.cores: a number is expected, not "2"'),
        (broken(cores=True), "hardware.cores: a number is expected"),
        (broken(cores=0), "cores: 0 is not a number of 0.1 or more"),
        (broken(cores=float("nan")), "cores: nan"),
        (broken(cores=float("inf")), "cores: inf"),
        (broken(cores=10**400), "not a description of hardware"),
        (broken(memory_bytes=1.5), "hardware.memory_bytes: a whole number"),
        (broken(memory_bytes=0), "memory_bytes: 0 is not positive"),
        (broken(memory_bytes=17 * GIB), "memory_bytes: 18253611008 is more than the host's"),
        (broken(cpu=None), "hardware.cpu: an object is expected, not null"),
        (broken(cpu=CPU_JSON | {"model": 3}), "hardware.cpu.model: a string is expected"),
        (broken(cpu=CPU_JSON | {"instruction_sets": "avx2"}), "hardware.cpu.instruction_sets: a list is expected"),
        (broken(cpu=CPU_JSON | {"instruction_sets": ["a", 1]}), "hardware.cpu.instruction_sets[1]: a string"),
        (broken(cpu=CPU_JSON | {"numa_nodes": 0}), "cpu.numa_nodes: 0 is not positive"),
        (broken(gpus=[{"name": "A"}]), "hardware.gpus[0].memory_bytes: missing"),
        (
            broken(gpus=[{"name": "A", "memory_bytes": 1, "compute_capability": [9]}]),
            "hardware.gpus[0].compute_capability: 2 items are expected, not 1",
        ),
        (
            broken(gpus=[{"name": "A", "memory_bytes": -1, "compute_capability": [9, 0]}]),
            "gpus[0].memory_bytes: -1 is not positive",
        ),
        (broken(tpu={"kind": "v4"}), "hardware.tpu.topology: missing"),
        (broken(notes=[[]]), "hardware.notes[0]: a string"),
    ],
)
def test_broken_json_names_the_field(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Hardware.from_json(text, where="a.json")
    assert message in caught.value.what and caught.value.where == "a.json" and caught.value.exit_code == 64


def test_fields_with_defaults_may_be_left_out() -> None:
    text = json.dumps({"cpu": CPU_JSON, "cores": 2, "memory_bytes": 4 * GIB, "host_memory_bytes": 16 * GIB})
    assert Hardware.from_json(text) == BOX


@pytest.mark.parametrize("kind", ["missing", "folder", "binary", "broken"])
def test_load_names_the_key_and_the_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.json"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"\xff\xfe" if kind == "binary" else b"{}")
    with pytest.raises(UsageError) as caught:
        Hardware.load(path)
    assert caught.value.where == f"plan.hardware={path}"


def test_nonsense_is_refused_at_construction() -> None:
    with pytest.raises(ValueError, match=r"^cores: 0 "):
        dataclasses.replace(BOX, cores=0.0)


def test_facts_do_not_import_tensorflow() -> None:
    code = "import sys, tfscale.hardware, tfscale.cluster; print({'tensorflow', 'pynvml'} & set(sys.modules) or 'none')"
    here = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"
