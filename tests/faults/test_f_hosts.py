"""Faults of other hosts, strangers and the machine itself: clocks, leases, a foreign hello, memory, a disk that is read-only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.fault_rows import ProcessGroup, steps_of, tiny_job
from support.peers import free_ports

from tfscale.errors import OutputError
from tfscale.run_dir import lease
from tfscale.run_dir.lease import claimed
from tfscale.run_dir.manifest import MANIFEST

# Another machine: it has another boot id, no kernel's lock that we see, and a clock of its own.
HOLDER = """
import sys, time
from pathlib import Path
from tfscale.run_dir import lease
lease._boot_id, lease.kernel_lock = lambda: "another", lambda _: True
late = float(sys.argv[2])
with lease.claimed(Path(sys.argv[1]), lease=1.0, renew=0.2, wall=lambda: time.time() + late):
    print("ours", flush=True)
    time.sleep(60)
"""
F13 = pytest.mark.fault(
    "F13",
    injected="the holder's clock is an hour behind, an hour ahead, a month behind",
    expected="73: the lease holds",
)
F14 = pytest.mark.fault(
    "F14",
    injected="its holder is killed with its machine, whatever its clock said; the job is started again elsewhere",
    expected="taken over once its lease was silent for its length, never refused",
)


@F13
@pytest.mark.parametrize("late", [-3600, 3600, -30 * 86400])
def test_clocks_of_two_machines_differ(tmp_path, monkeypatch, got, late):
    monkeypatch.setattr(lease, "kernel_lock", lambda _: True)
    command = [sys.executable, "-c", HOLDER, str(tmp_path), str(late)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "ours\n"
        with pytest.raises(OutputError, match="locked since"), claimed(tmp_path, lease=1.0, renew=0.2):
            pass
        holder.send_signal(signal.SIGKILL)
    got(f"{late:+d} s: 73")


@F14
def test_a_dead_holder_of_another_machine_is_followed(tmp_path, monkeypatch, got):
    monkeypatch.setattr(lease, "kernel_lock", lambda _: True)
    for late in (-3600, 3600):
        command = [sys.executable, "-c", HOLDER, str(tmp_path), str(late)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None and holder.stdout.readline() == "ours\n"
            holder.send_signal(signal.SIGKILL)
        began = time.monotonic()
        with claimed(tmp_path, lease=1.0, renew=0.2) as claim:
            assert claim.held()
            got(f"{late:+d} s: taken over after {time.monotonic() - began:.1f} s with a lease of 1 s")


# -- F15: a process of another cluster calls


@pytest.mark.fault(
    "F15",
    injected="a process of another cluster, and one that speaks nonsense, call the leader that waits",
    expected="they are sent away; the job meets, and says so where somebody is missing",
)
def test_a_foreign_hello_does_not_end_the_job(got):
    import threading

    from tfscale.cluster import Cluster
    from tfscale.errors import ClusterFault
    from tfscale.peers.rendezvous import meet

    ports = free_ports(2)
    addresses = {"worker": [f"127.0.0.1:{port}" for port in ports]}

    def cluster(index: int) -> Cluster:
        told = {"cluster": addresses, "task": {"type": "worker", "index": index}}
        return Cluster.resolve({"TF_CONFIG": json.dumps(told)})

    def call(hello: bytes) -> str:
        deadline = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection(("127.0.0.1", ports[0]), timeout=5) as stranger:
                    stranger.sendall(hello + b"\n")
                    return stranger.makefile().readline()
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    foreign = {"tfscale": 1, "role": "worker", "index": 1, "host": "elsewhere", "pid": 7}
    others = {"worker": ["10.0.0.1:2222", "10.0.0.2:2222", "10.0.0.3:2222"]}
    hello = json.dumps({**foreign, "facts": {"cluster": others}}).encode()
    found: list = []

    def lead(timeout: float) -> threading.Thread:
        def work() -> None:
            try:
                found.append(meet(cluster(0), {}, timeout=timeout))
            except ClusterFault as error:
                found.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    leader = lead(20)
    answer = json.loads(call(hello))
    assert answer["type"] == "error" and answer["error"]["exit_code"] == 78
    assert call(b"[" * 100_000) == "" and call(json.dumps({**foreign, "facts": [], "index": True}).encode()) == ""
    follower = meet(cluster(1), {}, timeout=20)
    leader.join(20)
    assert follower.members == found[0].members == ("worker:0", "worker:1")
    for meeting in (follower, found[0]):
        meeting.end(None)
    leader = lead(2)
    call(hello)
    leader.join(20)
    assert "process 7 on elsewhere, of another cluster, called and was sent away" in str(found[1])
    got("sent away with 78; the two met; told where one was missing")


# -- F12: a disk that becomes read-only


@pytest.mark.fault(
    "F12",
    injected="the checkpoints' file system becomes read-only while training",
    expected="74, and the older ones stay",
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_disk_that_becomes_read_only(group, tmp_path, got):
    place = tmp_path / "it" / "checkpoints"
    place.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place], capture_output=True)
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        run = group(tiny_job("checkpoint.max_failed_saves=2", steps=1_000_000, every=20))
        run.wait(lambda: bool(steps_of(run.run_dir)), within=60, what="no checkpoint")
        while subprocess.run(["mount", "-o", "remount,ro", place], capture_output=True).returncode:
            time.sleep(0.01)  # a save is at work
        kept = steps_of(run.run_dir)
        assert run.codes(within=60) == [74], run.tails()
        assert "Read-only file system" in run.error(0) and steps_of(run.run_dir) == kept != []
        got(f"74 in {run.seconds[0]:.1f} s: Read-only file system")
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.fault("F12", injected="", expected="")
def test_what_a_full_or_read_only_disk_raises_is_no_fault_of_ours():
    from tfscale.errors import foreseen

    for number in (28, 30, 122):
        assert foreseen(OSError(number, os.strerror(number), "somewhere/it")).exit_code == 74
    assert foreseen(OSError(13, "Permission denied")).exit_code == 70


# -- F18: memory


@pytest.mark.fault(
    "F18",
    injected="the kernel kills a worker for memory, as the control group counts it",
    expected="137, and said to be so",
)
@pytest.mark.parametrize("version", ["v2", "v1"])
def test_a_worker_that_is_killed_for_memory(tmp_path, version, got):
    """The files of the kernel are stood in for: nobody's machine is to run out of memory for a test."""
    name, mount = ("memory.events", "0::/") if version == "v2" else ("memory.oom_control", "4:memory:/")
    group = tmp_path / "sys" / "fs" / "cgroup" / ("memory" if version == "v1" else "")
    group.mkdir(parents=True)
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(mount + "\n")
    (group / name).write_text("low 0\noom 3\noom_kill 3\n")
    program = (
        "import sys, functools\nfrom pathlib import Path\nfrom tfscale.launch import __main__ as launch, workers as launching; from tfscale import hardware\n"
        "from tfscale.launch import job\nroot, file = sys.argv[1:3]\n"
        "job.memory_kills = functools.partial(hardware.memory_kills, root)\n"
        "child = '''import os, signal, sys, time\\n"
        'if os.environ["TF_CONFIG"].endswith("1}}"):\\n'
        '    open(sys.argv[1], "w").write("oom_kill 4\\\\n")\\n    os.kill(os.getpid(), signal.SIGKILL)\\n'
        "time.sleep(0.5)\\nsys.exit(138)'''\n"
        "launching.launch_workers.__kwdefaults__['program'] = (sys.executable, '-c', child, file)\n"
        "sys.exit(launch.main(['--workers', '2', '--', *sys.argv[3:]]))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(group / name), *tiny_job()]
    from support.dense_models import environ

    done = subprocess.run(command, cwd=tmp_path, env=environ(), capture_output=True, text=True, timeout=60)
    got(f"{version}: {done.returncode}, and said")
    assert done.returncode == 137, done.stdout + done.stderr
    assert "worker:1 was killed for memory" in done.stdout and "E-0137] worker:1: killed for memory" in done.stderr
    assert Path(group / name).read_text() == "oom_kill 4\n"


# -- F19, F20: two machines, whose only common place is a store


@pytest.fixture
def machine(tmp_path, tmp_path_factory):
    """machine("one", *overrides): a run of one machine, in a folder of its own, with the store that both have."""
    from support.stored_runs import ENDLESS, job

    def start(name: str, *more: str) -> ProcessGroup:
        words = job(*ENDLESS, *more, run_dir=name, store=f"file://{tmp_path}/store", pause=0.01)
        return ProcessGroup(words, 1, cwd=tmp_path, logs=tmp_path_factory.mktemp("group"))

    return start


def stored_in(tmp_path: Path) -> list[str]:
    return sorted(path.parent.name for path in tmp_path.glob(f"store/dense/it/checkpoints/*/{MANIFEST}"))


@pytest.mark.fault(
    "F19",
    injected="a second machine starts the run of a store that another one holds, also with resume.mode=never",
    expected="73; the first goes on as if there had been no second, and nothing of its is lost",
)
@pytest.mark.timeout(150)
def test_of_two_machines_with_one_store_the_second_is_refused(machine, tmp_path, got):
    with machine("one") as first:
        first.wait(lambda: stored_in(tmp_path))
        with machine("two") as second, machine("three", "resume.mode=never") as third:
            assert (second.codes(within=60), third.codes(within=60)) == ([73], [73])
            assert "another run holds" in second.error(0) and "run.store" in second.error(0)
        assert not steps_of(tmp_path / "two") and not list((tmp_path / "store").glob("dense/it/previous-*"))
        first.signal(0, signal.SIGTERM)
        assert first.codes(within=30) == [143], first.tails()
    assert f"step-{max(steps_of(tmp_path / 'one')):09d}" in stored_in(tmp_path)
    got("73, 73; the first: 143, its last step is in the store")


@pytest.mark.fault(
    "F20",
    injected="another run has taken over the store of a run that is at work",
    expected="138, and none of its checkpoints counts there any more but one that was under way",
)
@pytest.mark.timeout(150)
def test_a_token_that_was_taken_over_stops_the_old_holder(machine, tmp_path, got):
    with machine("one") as first:
        first.wait(lambda: stored_in(tmp_path))
        (tmp_path / "store" / "dense" / "it" / ".lock").write_text(json.dumps({"token": "another's"}))
        kept = stored_in(tmp_path)
        assert first.codes(within=60) == [138], first.tails()
        assert "this run no longer holds" in first.error(0)
    assert len(set(stored_in(tmp_path)) - set(kept)) <= 1  # one that was under way
    got("138; at most the one under way was added")
