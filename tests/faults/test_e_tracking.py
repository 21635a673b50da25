"""Secrets, and MLflow that is away, slow, forbids or is full: real runs beside a real server, and what its store holds."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.dense_models import environ
from support.fault_rows import LIGHT, last_step, tiny_job
from support.mlflow_server import Server
from support.peers import free_ports

STEPS = 40  # tiny_job's
SLOWLY = {0: "train.loop:sleep0.15"}  # so that there is a middle of the training to hit
AWAY = "MLflow is out of reach"


def tracked(*more: str, **job) -> list[str]:
    """tiny_job with tracker=mlflow."""
    return [*(one for one in tiny_job(*more, **job) if one != "tracker=none"), "tracker=mlflow"]


SECRETS = {"env": "AKIA-hunter2-of-the-cloud", "key": "key-hunter3-given-here", "uri": "hunter4-of-mlflow"}


def leaking(*more: str, **job) -> list[str]:
    secret = ("+task.note=${oc.env:AWS_SECRET}", f"+task.api_key={SECRETS['key']}")
    return tracked(
        "extensions.allow=[support.dense_models.,support.leaky_model.]",
        *secret,
        *more,
        task="support.leaky_model.Leaky",
        **job,
    )


def query(store: Path, text: str, *values: str) -> list[tuple]:
    with closing(sqlite3.connect(store)) as database:
        return database.execute(text, values).fetchall()


def told_steps(store: Path, run_dir: Path) -> list[int]:
    """The steps whose loss MLflow has of this run, as often as it has each."""
    if not (run_dir / "mlflow_run_id").exists():
        return []
    run = (run_dir / "mlflow_run_id").read_text().strip()
    rows = query(store, "select step from metrics where run_uuid = ? and key = 'train/loss' order by step", run)
    return [step for (step,) in rows]


def ended_well(store: Path, run_dir: Path) -> bool:
    """Whether MLflow has all of a run, each step once, and nothing is owed any more."""
    run = (run_dir / "mlflow_run_id").read_text().strip()
    assert query(store, "select status from runs where run_uuid = ?", run) == [("FINISHED",)]
    assert query(store, "select count(*) from params where run_uuid = ?", run)[0][0] > 30
    assert not list(run_dir.glob("mlflow_spool*"))
    return told_steps(store, run_dir) == list(range(1, STEPS + 1))


# -- E8: the default store, and nobody else


@dataclass(frozen=True)
class Traced:
    """One run with secrets, tracker=mlflow and no word on where, under strace where there is one."""

    code: int
    text: str
    folder: Path
    calls: list[str] | None


def strace(log: Path) -> list[str]:
    return ["strace", "-f", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(log)]


def may_trace(log: Path) -> bool:
    return bool(shutil.which("strace")) and not subprocess.run([*strace(log), "true"], capture_output=True).returncode


def spoken_to(calls: list[str]) -> tuple[list[str], list[str]]:
    """The calls with an internet address, and those of them beyond this machine or to a name server."""
    found = [(re.search(r'(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"', line), line) for line in calls]
    some = [(ipaddress.ip_address(match[1]), line) for match, line in found if match]
    outside = [line for address, line in some if not address.is_loopback or "port=htons(53)" in line]
    return [line for _, line in some], outside


@pytest.fixture(scope="module")
def traced(tmp_path_factory) -> Traced:
    folder = tmp_path_factory.mktemp("traced")
    (folder / "work").mkdir()
    # MLflow sends no telemetry where it sees a variable of pytest or of a CI, and would hide what we forget.
    kept = ("PATH", "PYTHONPATH", "HOME", "TMPDIR", "CUDA_VISIBLE_DEVICES")
    told = {"AWS_SECRET": SECRETS["env"], **{k: v for k, v in environ().items() if k in kept}}
    log = folder / "calls.txt"
    watch = strace(log) if may_trace(log) else []
    command = [*watch, sys.executable, "-m", "tfscale.train", *leaking(run_dir=folder / "runs" / "it")]
    done = subprocess.run(command, cwd=folder / "work", env=told, capture_output=True, text=True, timeout=200)
    calls = log.read_text(errors="replace").splitlines() if watch else None
    return Traced(done.returncode, done.stdout + done.stderr, folder, calls)


E8 = pytest.mark.fault(
    "E8",
    injected="tracker=mlflow without an URI; a file: store; every connection of a run recorded by strace",
    expected="a sqlite store beside the runs, never the working folder; file: is 64; nothing but loopback, no DNS",
)


@E8
def test_the_default_store_lies_beside_the_runs(traced, got):
    assert traced.code == 0, traced.text
    store = traced.folder / "runs" / "mlflow.db"
    assert ended_well(store, traced.folder / "runs" / "it")
    assert not list((traced.folder / "work").iterdir())
    assert sorted(path.name for path in (traced.folder / "runs").iterdir()) == ["it", "mlartifacts", "mlflow.db"]
    got(f"sqlite beside the runs has {STEPS} steps; the working folder stays empty")


@E8
def test_nobody_outside_is_spoken_to(traced, got):
    """Telemetry, look-ups of names and the clouds' metadata servers would all be seen here."""
    if traced.calls is None:
        pytest.skip("strace is not here, or may not trace")
    assert traced.code == 0, traced.text
    log = traced.folder / "control.txt"
    control = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect_ex(%r)"  # sends nothing
    for address, seen in ((("127.0.0.1", 9), 0), (("127.0.0.1", 53), 1), (("192.0.2.1", 9), 1)):
        subprocess.run([*strace(log), sys.executable, "-c", control % (address,)], check=True)
        some, outside = spoken_to(log.read_text().splitlines())
        assert (len(some), len(outside)) == (1, seen)
    assert sum("exited with" in line for line in traced.calls) > 10  # its threads and children were followed
    all_of_them, outside = spoken_to(traced.calls)
    assert outside == []
    got(f"{len(all_of_them)} calls to internet addresses, none beyond this machine or to port 53")


@E8
@pytest.mark.parametrize("how", ["override", "environment"])
def test_a_store_of_plain_files_is_refused(cli, tmp_path, got, how):
    uri = (tmp_path / "store").as_uri()
    override, variable = ([f"tracker.uri={uri}"], {}) if how == "override" else ([], {"MLFLOW_TRACKING_URI": uri})
    ended = cli(*tracked(*override), environ={**environ(), **variable}, program=LIGHT)
    assert ended.code == 64, ended.err
    assert "| tracker.uri |" in ended.err.splitlines()[-1] and not (tmp_path / "store").exists()
    assert ended.seconds < 10
    got(f"file: by {how}: 64 in {ended.seconds:.1f} s")


@pytest.fixture(scope="module")
def empty_store(traced):
    """empty_store(folder) -> mlflow.db there, as MLflow makes it in ten seconds."""

    def make(folder: Path) -> Path:
        shutil.copy(traced.folder / "runs" / "mlflow.db", folder)
        return folder / "mlflow.db"

    return make


# -- E6: secrets

E6 = pytest.mark.fault(
    "E6",
    injected="${oc.env:AWS_SECRET}, a key in the command, a password in an URI; training that fails with them in its error",
    expected="no trace in the run folder, the store, stdout and stderr; the configuration keeps the interpolation or <redacted>",
)


def leaks(folder: Path) -> list[str]:
    """The files that hold a secret, with which one."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    return [
        f"{path}: {name}" for path in files for name, value in SECRETS.items() if value.encode() in path.read_bytes()
    ]


@E6
def test_secrets_stay_where_they_are(group, traced, tmp_path, got, monkeypatch):
    """All files of three runs and the store are searched, and what they print.

    TensorFlow's own log would show an error's text. tfscale keeps it silent unless TF_CPP_MIN_LOG_LEVEL says otherwise.
    """
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    away, secret = f"http://me:{SECRETS['uri']}@127.0.0.1:{free_ports(1)[0]}", {"AWS_SECRET": SECRETS["env"]}
    ill = [
        group(
            leaking(f"tracker.uri={away}", f"+task.fails={how}", "debug.traceback=true", run_dir=how),
            more_environ=secret,
            cold=True,
        )
        for how in ("trace", "step")
    ]
    for run in ill:
        assert run.codes(within=120) == [70], run.tails()
        assert "nobody is known as <redacted> with <redacted>" in run.error(0)
        assert "Traceback" in run.text(0) and AWAY in run.text(0)
        assert "<redacted>" in json.loads((run.run_dir / "exit.json").read_text())["what"]
    well, store = traced.folder / "runs" / "it", traced.folder / "runs" / "mlflow.db"
    assert ended_well(store, well)
    for folder in (well, *(run.run_dir for run in ill)):
        saved = (folder / "config.yaml").read_text()
        assert "note: ${oc.env:AWS_SECRET}" in saved and "api_key: <redacted>" in saved
    for text in (traced.text, *(run.text(0) for run in ill)):
        assert [name for name, value in SECRETS.items() if value in text] == []
    params = dict(query(store, "select key, value from params"))
    assert (params["task.note"], params["task.api_key"]) == ("${oc.env:AWS_SECRET}", "<redacted>")
    assert leaks(traced.folder) == [] and leaks(tmp_path) == []
    got("trained, failed in the trace and in a step: three secrets are in none of the files, tables and outputs")


# -- E7: MLflow away, slow, forbidding, full

E7 = pytest.mark.fault(
    "E7",
    injected="MLflow's server absent, killed, stopped, answering 403; its store's disk full; tracker.required=true",
    expected="training goes on, one warning, all is delivered by the same command later; required: 74",
)


@pytest.fixture(scope="module")
def server(empty_store, tmp_path_factory):
    here = Server(tmp_path_factory.mktemp("server"))
    empty_store(here.folder)
    yield here
    here.kill()


def warnings_in(text: str) -> list[str]:
    return [line for line in text.splitlines() if "MLflow" in line and " WARNING " in line]


def again(group, *runs) -> None:
    """The same commands again: all say that they are complete, deliver what is owed and end well."""
    later = [group(run.overrides) for run in runs]
    for run in later:
        assert run.codes(within=120) == [0], run.tails()
        assert f"already complete at step {STEPS}" in run.text(0)
        assert not warnings_in(run.text(0)), run.text(0)


@pytest.mark.long
@E7
def test_a_server_that_is_absent_killed_or_forbids(server, group, got):
    """One has ended before the server comes up; it is killed in the middle of the others, and later comes back."""
    server.kill()
    absent = group(tracked(server.uri(), run_dir="absent"))
    assert absent.codes(within=120) == [0], absent.tails()
    server.start()
    killed = group(tracked(server.uri(), run_dir="killed"), faults=SLOWLY)
    forbidden = group(tracked(server.uri("127.0.0.1"), run_dir="forbidden"))
    killed.wait(lambda: len(told_steps(server.store, killed.run_dir)) >= 3)
    forbidden.wait(lambda: AWAY in forbidden.text(0))
    server.kill()
    at = last_step(killed.run_dir)
    assert killed.codes(within=60) == [0], killed.tails()
    assert forbidden.codes(within=60) == [0], forbidden.tails()
    assert at < STEPS
    for run, cause in ((absent, "Connection refused"), (killed, "Connection"), (forbidden, "403")):
        (line,) = warnings_in(run.text(0))
        assert AWAY in line and cause in line and f"{run.run_dir.name}/mlflow_spool.jsonl" in line
    for run in (absent, killed, forbidden):
        assert last_step(run.run_dir) == STEPS
        assert 0 <= len(told_steps(server.store, run.run_dir)) < STEPS
    server.start("127.0.0.1")
    again(group, absent, killed, forbidden)
    assert all(ended_well(server.store, run.run_dir) for run in (absent, killed, forbidden))
    got(f"absent, 403, killed at step {at}: 0 and one line; later all {STEPS} steps once")


@E7
def test_a_server_that_does_not_answer(server, group, got):
    """SIGSTOP: connections are accepted by the kernel, and then nothing comes. The run requires what it doesn't get."""
    server.start()
    run = group(tracked(server.uri(), "tracker.required=true"), faults=SLOWLY)
    run.wait(lambda: len(told_steps(server.store, run.run_dir)) >= 3)
    server.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    first = last_step(run.run_dir)
    run.wait_step(first + 15, within=8.0)  # sooner than any request to it gives up
    passed = time.monotonic() - stopped
    assert run.codes(within=60) == [74], run.tails()
    (line,) = warnings_in(run.text(0))
    assert AWAY in line and last_step(run.run_dir) == STEPS
    assert "MLflow was not told everything" in run.error(0) and "| tracker.required |" in run.error(0)
    server.signal(signal.SIGCONT)
    again(group, run)
    assert ended_well(server.store, run.run_dir)
    got(
        f"stopped at step {first}: 15 more steps in {passed:.1f} s, and 74 at the end as it is required; later all {STEPS} steps once"
    )


@E7
def test_a_server_that_is_required_and_absent(cli, tmp_path, got):
    nobody = f"tracker.uri=http://localhost:{free_ports(1)[0]}"
    ended = cli(*tracked(nobody, "tracker.required=true"), environ=environ(), program=LIGHT)
    assert ended.code == 74, ended.err
    (line,) = ended.err.splitlines()
    assert "| tracker.uri |" in line and "MLflow is out of reach" in line
    assert ended.seconds < 10 and not list(tmp_path.iterdir())
    got(f"required and absent: 74 in {ended.seconds:.1f} s, before TensorFlow")


@E7
def test_a_store_whose_disk_is_full(group, empty_store, tmp_path_factory, got):
    disk = tmp_path_factory.mktemp("disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True)
    if done.returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        store = empty_store(disk)
        run = group(tracked(f"tracker.uri=sqlite:///{store}"), faults=SLOWLY)
        run.wait(lambda: len(told_steps(store, run.run_dir)) >= 3)
        with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
            while filler.write(b"x" * 4096):
                pass
        run.wait_for(0, AWAY)
        assert run.codes(within=60) == [0], run.tails()
        (line,) = warnings_in(run.text(0))
        assert "full" in line and last_step(run.run_dir) == STEPS
        before = len(told_steps(store, run.run_dir))
        assert before < STEPS
        (disk / "filler").unlink()
        again(group, run)
        assert ended_well(store, run.run_dir)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    got(f"its disk full after {before} steps: 0 and one line; later all {STEPS} steps once")
