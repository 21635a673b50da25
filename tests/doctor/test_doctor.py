"""`tfscale doctor` on this machine as it is, on one that is described, and beside what is broken on purpose."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tfscale.composition.composed_places import compose_places
from tfscale.doctor.__main__ import as_json, main
from tfscale.doctor.cluster_check import look_at_cluster
from tfscale.doctor.diagnosis import Finding, guarded, hide_secrets, shareable, worst
from tfscale.doctor.gpu_libraries import wanted
from tfscale.doctor.machine import look_at_machine
from tfscale.doctor.packages import look_at_packages
from tfscale.doctor.places import look_at_folder, look_at_store, look_at_tracker
from tfscale.doctor.self_test import self_test, trials
from tfscale.doctor.tensorflow_check import PROGRAM, compare_devices, look_at_tensorflow
from tfscale.hardware import Hardware, probe
from tfscale.tracking.mlflow import MlflowTracker
from tfscale.tracking.tracker import NoTracker

GOLDEN = Path(__file__).parents[1] / "golden" / "hardware"
T4 = Hardware.load(GOLDEN / "t4.json")
SECRETS = {"WANDB_API_KEY": "planted-key-1", "MY_TOKEN": "planted-token-2", "DB_PASSWORD": "planted-word-3"}


def checks(findings, verdict=None):
    return [one.check for one in findings if verdict in (None, one.verdict)]


def one_of(findings, check):
    (found,) = [one for one in findings if one.check == check]
    return found


def dead_port():
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]


@pytest.fixture
def living():
    """The address of a peer that listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def command_lines():
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            yield file.read_bytes().decode(errors="replace")


def tf_config(*workers):
    return json.dumps({"cluster": {"worker": list(workers)}, "task": {"type": "worker", "index": 0}})


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """What the program says of a machine that has a GPU but for TensorFlow, and a peer that is gone, with secrets in
    every place: as JSON."""
    folder = tmp_path_factory.mktemp("annabel")
    libraries = folder / "lib"
    libraries.mkdir()
    for file in ("libcudart.so.12", "libcublas.so.12"):  # any library that the linker takes
        shutil.copy(_some_library(), libraries / file)
    (libraries / "libcublasLt.so.12").write_text("no library")
    with socket.create_server(("127.0.0.1", 0)) as server:
        alive, dead = f"127.0.0.1:{server.getsockname()[1]}", f"127.0.0.1:{dead_port()}"
        environ = {
            **SECRETS,
            "USER": "annabel",
            "HOME": str(folder),
            "LD_LIBRARY_PATH": str(libraries),
            "TF_CONFIG": tf_config("127.0.0.1:2222", alive, dead),
            "MLFLOW_TRACKING_URI": f"http://annabel:planted-word-3@127.0.0.1:{dead_port()}/?token=planted-query-4",
        }
        words = [f"plan.hardware={GOLDEN / 't4.json'}", f"run.root={folder}/planted-token-2/runs"]
        words += [f"run.store=file://{folder}/store", "data.dir=/home/annabel/planted-key-1"]
        ended = subprocess.run(
            [sys.executable, "-m", "tfscale", "doctor", "--json", "--timeout", "200", *words],
            cwd=folder,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=280,
        )
    return ended, alive, dead, sorted(path.name for path in folder.iterdir())


def _some_library():
    """The file of a library that is there, whatever it does."""
    import _ctypes

    return _ctypes.__file__


def test_json_has_the_keys_that_programs_read(reported):
    ended, *_ = reported
    told = json.loads(ended.stdout)
    assert list(told) == ["format", "tfscale", "verdict", "seconds", "findings"] and told["format"] == 1
    assert {tuple(one) for one in told["findings"]} == {("check", "verdict", "fact", "fix")}
    assert {one["verdict"] for one in told["findings"]} <= {"ok", "warning", "wrong"}
    assert (told["verdict"], ended.returncode) == ("wrong", 1)
    assert ended.stderr.startswith("tfscale: error[E-0001] ") and "peer" in ended.stderr


def test_each_library_that_fails_is_named_with_its_fix(reported):
    findings = [Finding(**one) for one in json.loads(reported[0].stdout)["findings"]]
    failing = [check for check in checks(findings, "wrong") if check.startswith("library.")]
    assert failing == [
        f"library.lib{name}" for name in ["cublasLt", "cudnn", "cufft", "curand", "cusolver", "cusparse", "nccl"]
    ]
    assert "Tesla T4" in one_of(findings, "hardware").fact
    devices = one_of(findings, "devices")
    assert devices.verdict == "wrong" and "the driver shows 1 GPU, and TensorFlow sees 1 CPU" in devices.fact
    cudnn, lt = one_of(findings, "library.libcudnn"), one_of(findings, "library.libcublasLt")
    assert "libcudnn.so.9" in cudnn.fact and "No such file" in cudnn.fact
    assert 'pip install "tensorflow[and-cuda]==' in cudnn.fix and "LD_LIBRARY_PATH" in cudnn.fix
    assert "No such file" not in lt.fact  # it is there, and is none


def test_a_peer_that_is_gone_is_named_and_one_that_lives_is_not(reported):
    ended, alive, dead, _ = reported
    findings = [Finding(**one) for one in json.loads(ended.stdout)["findings"]]
    peers = {one.fact: one.verdict for one in findings if one.check == "peer"}
    assert peers == {
        f"worker:1 at {alive} can be reached": "ok",
        f"worker:2 at {dead} can't be reached: Connection refused": "wrong",
    }
    launcher = one_of(findings, "launcher")
    assert launcher.fact.startswith("worker 0 of 3 worker (from TF_CONFIG)") and alive in launcher.fact


def test_nothing_of_it_is_a_secret_or_a_name(reported):
    ended, *_, left = reported
    said = ended.stdout + ended.stderr
    assert "planted" not in said and "annabel" not in said.lower()
    assert "<redacted>" in said and "/home/<user>/" in said
    assert set(left) - {".keras"} == {"lib"}  # what was tried was removed, and nothing made but by Keras


def test_a_bare_machine_has_nothing_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFSCALE_DATA_DIR", str(tmp_path / "data"))
    for width in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        if width != 60:  # TensorFlow's seconds once: what else it says is as wide
            monkeypatch.setattr("tfscale.doctor.__main__.look_at_tensorflow", lambda *_, **__: [])
        assert main(["tracker=none", "--timeout", "200"]) == 0
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= min(width, 118)
        assert "no launcher is recognised" in " ".join(shown.replace("│", " ").split()) and " wrong" in shown
        assert ("TensorFlow" in shown) == (width == 60)
    assert not list(tmp_path.iterdir())


def test_cgroup_limits_are_told_beside_the_host(tmp_path):
    cgroup = tmp_path / "sys/fs/cgroup"
    cgroup.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: {16 * 2**20} kB\n")
    (cgroup / "cpu.max").write_text("50000 100000")
    (cgroup / "memory.max").write_text(str(2**30))
    found = list(look_at_machine(probe(environ={}, root=tmp_path), kills=3))
    assert checks(found, "warning") == ["cores", "memory", "memory_kills"]
    assert one_of(found, "cores").fact.startswith("0.5 of the host's ")
    assert one_of(found, "memory").fact.startswith("1.0 GiB of the host's 16.0 GiB")
    assert checks(look_at_machine(T4, kills=None), "warning") == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import time; print('before', flush=True); time.sleep(60)", "took longer than 1 s; its last line: before"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "was killed by signal 4"),
        ("raise ImportError('libx.so')", "ended with 1; its last line: ImportError: libx.so"),
    ],
)
def test_a_tensorflow_that_hangs_or_dies_is_a_finding(code, said):
    program = (sys.executable, "-c", code)
    (found,) = look_at_tensorflow(T4, environ=dict(os.environ), seconds=1 if "sleep" in code else 30, program=program)
    assert (found.check, found.verdict) == ("tensorflow", "wrong") and said in found.fact
    assert PROGRAM[-1] == "tfscale.doctor.tensorflow_sight"


def test_what_is_to_be_done_where_tensorflow_sees_no_gpu():
    seen = {"tensorflow": "2.21.0", "built_for_cuda": True, "cuda": "12.5.1", "devices": ["CPU"], "libraries": {}}
    (found,) = compare_devices(T4, seen, ["E0000 failed call to cuInit: old driver"])
    assert "cuInit: old driver" in found.fact and "driver to one for CUDA 12.5.1" in found.fix
    (found,) = compare_devices(T4, seen | {"built_for_cuda": False})
    assert "built without CUDA" in found.fact and found.fix == 'pip install "tensorflow[and-cuda]==2.21.0"'
    assert checks(compare_devices(T4, seen | {"devices": ["CPU", "GPU"]}), "ok") == ["devices"]


def test_the_libraries_are_those_that_this_tensorflow_was_built_with():
    lines = ['nvidia-cublas-cu12<13.0,>=12.5; extra == "and-cuda"', 'nvidia-nccl-cu12<3.0,>=2.27; extra == "and-cuda"']
    found = wanted({"cuda_version": "13.1", "cudnn_version": "9"}, lines)
    assert [found[name] for name in ("libcudart", "libcublas", "libcublasLt", "libcudnn", "libnccl", "libcufft")] == [
        "libcudart.so.13", "libcublas.so.12", "libcublasLt.so.12", "libcudnn.so.9", "libnccl.so.2", "libcufft.so",
    ]  # fmt: skip


def test_a_description_of_a_cluster_that_is_refused(living):
    (found,) = look_at_cluster({"TF_CONFIG": "{not json"})
    assert (found.check, found.verdict) == ("launcher", "wrong") and "column 2" in found.fact and found.fix
    assert checks(look_at_cluster({"TF_CONFIG": tf_config("127.0.0.1:1", living)})) == ["launcher", "peer"]


def test_a_peer_that_never_answers_takes_no_longer_than_its_time():
    with socket.socket() as full:  # its queue is full, so that the next one waits
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        began = time.monotonic()
        peer = f"127.0.0.1:{address[1]}"
        environ = {"TF_CONFIG": tf_config("127.0.0.1:1", peer, "no-such-host.invalid:2222")}
        found = list(look_at_cluster(environ, seconds=0.5))
        for one in waiting:
            one.close()
    assert time.monotonic() - began < 5
    silent, unknown = [one for one in found if one.check == "peer"]
    assert "no answer within 0.5 s" in silent.fact and silent.verdict == unknown.verdict == "wrong"
    assert "no-such-host.invalid" in unknown.fact


def test_a_full_disk_is_wrong(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        found = look_at_folder("runs", disk / "runs", key="run.root")
        assert found.verdict == "wrong" and "the disk is full" in found.fact and "run.root=PATH" in found.fix
        assert not list(disk.iterdir())
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        assert look_at_folder("runs", disk, key="run.root").verdict == "warning"  # it can be written, and is small
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert "can't be written: Read-only" in look_at_folder("data", disk, key="data.dir").fact
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    found = look_at_folder("data", tmp_path / "file" / "data", key="data.dir")
    assert found.verdict == "wrong" and "not a folder" in found.fact


def test_the_tracker_and_the_store(tmp_path, living):
    assert [one.verdict for one in look_at_tracker(NoTracker(), tmp_path)] == ["ok"]
    (found,) = look_at_tracker(MlflowTracker(), tmp_path)
    assert found.verdict == "ok" and "would be made" in found.fact and not list(tmp_path.iterdir())
    file = tmp_path / "mlflow.db"
    with sqlite3.connect(file) as store:
        store.execute("CREATE TABLE it (a)")
    (found,) = look_at_tracker(MlflowTracker(), tmp_path)
    assert "can be written" in found.fact
    store.execute("BEGIN IMMEDIATE")
    (found,) = look_at_tracker(MlflowTracker(), tmp_path)
    assert found.verdict == "warning" and "locked" in found.fact
    store.close()
    file.write_bytes(b"no database at all" * 100)
    (found,) = look_at_tracker(MlflowTracker(uri=f"sqlite:///{file}"), tmp_path)
    assert found.verdict == "wrong" and "not a database" in found.fact
    assert [one.verdict for one in look_at_tracker(MlflowTracker(uri=f"http://{living}"), tmp_path)] == ["ok"]
    assert [one.verdict for one in look_at_store(None)] == []
    assert [one.verdict for one in look_at_store(f"file://{tmp_path}/copies")] == ["ok"]
    assert [one.verdict for one in guarded("store", lambda: look_at_store("s4://x/y"))] == ["wrong"]


def test_a_store_that_has_no_such_bucket_is_wrong(s3):
    from support.s3_server import BUCKET

    assert [one.verdict for one in look_at_store(f"s3://{BUCKET}/runs")] == ["ok"] and s3.keys("") == []
    found = guarded("store", lambda: look_at_store("s3://not-there/runs"))
    assert checks(found, "wrong") == ["store"] and found[0].fix


def test_versions_that_never_work_together(tmp_path, monkeypatch):
    assert checks(look_at_packages({}), "wrong") == []
    for name, version in (("tf_nightly", "2.22.0"), ("tensorflow_metal", "1.2.0"), ("numpy", "1.20.0")):
        about = tmp_path / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tested := tmp_path / "constraints.txt").write_text("keras==1.2.3\n")
    found = list(look_at_packages({"TF_USE_LEGACY_KERAS": "1", "KERAS_BACKEND": "jax"}, tested=tested))
    wrong = [one for one in found if one.verdict == "wrong"]
    assert [one.check for one in wrong] == [
        "bounds", "bounds", "tensorflow_twice", "tensorflow_metal", "legacy_keras", "keras_backend",
    ]  # fmt: skip
    assert all("numpy 1.20.0 is installed" in one.fact and "numpy" in one.fix for one in wrong[:2])
    assert "tf-nightly 2.22.0" in wrong[2].fact and "pip uninstall -y tensorflow tf-nightly" in wrong[2].fix
    assert "keras 1.2.3" in one_of(found, "tested_versions").fact


def test_the_overrides_of_a_run_say_where_things_are(tmp_path):
    environ = {"TFSCALE_DATA_DIR": "/elsewhere"}
    found = compose_places(["run.root=/mnt/runs", "tracker.uri=sqlite:////mnt/it.db"], environ=environ)
    assert (found.runs, found.data, found.tracker.uri) == (
        Path("/mnt/runs"),
        Path("/elsewhere"),
        "sqlite:////mnt/it.db",
    )
    found = compose_places(
        ["+recipe=resnet", "data.dir=/mnt/data", "run.dir=/mnt/a/b", "run.store=file:///s"], environ={}
    )
    assert (found.runs, found.beside, found.data) == (Path("/mnt/a/b"), Path("/mnt/a"), Path("/mnt/data"))
    assert (found.runs_key, found.store, found.tracker.uri) == ("run.dir", "file:///s", None)
    assert main(["run.rot=x"]) == 64


def test_names_are_hidden_in_paths_alone():
    environ = {"USER": "worker", "HOME": "/srv/worker", "PWD": "/srv/worker/it", "X_TOKEN": "abcdef12"}
    hide_secrets(environ)
    told = [Finding("it", "ok", "worker:1 in /srv/worker/it, /data/worker/x and /home/else/y says abcdef12")]
    (found,) = shareable(told, environ)
    assert found.fact == "worker:1 in ~/it, /data/<user>/x and /home/<user>/y says <redacted>"
    assert worst([Finding("a", "ok", ""), Finding("b", "warning", "")]) == "warning" and worst([]) == "ok"
    assert json.loads(as_json(told, 1.0))["verdict"] == "ok"


def test_each_strategy_that_can_run_is_tried_and_none_outlives_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = list(self_test(probe(environ={}), environ=dict(os.environ), seconds=0.3))
    assert checks(found, "wrong") == ["self_test.one_device", "self_test.mirrored", "self_test.multi_worker"]
    assert all("took longer than 0.3 s" in one.fact and "--timeout" in one.fix for one in found)
    deadline = time.monotonic() + 20  # a guard kills what a killed launcher had started
    while any(str(tmp_path) in line for line in command_lines()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not list(tmp_path.iterdir())
    eight = Hardware.load(GOLDEN / "h100x8.json")
    assert [one.where for one in trials(eight)] == ["one GPU", "8 GPUs", "two workers on this machine"]
    assert [one.hides_gpus for one in trials(eight)] == [False, False, False]
    assert [one.hides_gpus for one in trials(T4)] == [False, True, True]  # two workers can't share one GPU


@pytest.mark.slow
def test_the_self_test_trains_under_each_strategy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {}}))
    assert main(["--self-test", "--json", "tracker=none"]) == 0
    findings = [Finding(**one) for one in json.loads(capsys.readouterr().out)["findings"]]
    trained = [one for one in findings if one.check.startswith("self_test.")]
    assert [one.verdict for one in trained] == ["ok"] * 3 and all("loss" in one.fact for one in trained)
