"""The lease, between real processes; another machine is a process that is told another boot id and has no flock of ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tfscale.console.messages import received
from tfscale.errors import ClusterFault, OutputError
from tfscale.run_dir import lease
from tfscale.run_dir.lease import claimed, is_free

# Claims the folder, says so, then answers "held" with True or False and "end" by leaving.
HOLDER = """
import sys
from pathlib import Path
from tfscale.console.messages import received
from tfscale.run_dir import lease
folder, boot, flock, length, renew, start = sys.argv[1:]
if boot: lease._boot_id = lambda: boot
if flock == "none": lease.kernel_lock = lambda _: None
if flock == "apart": lease.kernel_lock = lambda _: True
sys.stdin.readline() if start else None
tell = received(lambda text: print(text, flush=True))
try:
    with tell, lease.claimed(Path(folder), lease=float(length), renew=float(renew)) as claim:
        print("ours", flush=True)
        for line in sys.stdin:
            if line.strip() == "end": break
            print(claim.held(), flush=True)
except lease.OutputError as error:
    print(error.line(), flush=True)
"""


class Holder:
    def __init__(self, folder, *, boot="", flock="", length=1.0, renew=0.2, start=""):
        command = [sys.executable, "-c", HOLDER, str(folder), boot, flock, str(length), str(renew), start]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def reads(self) -> str:
        return self.process.stdout.readline().strip()

    def says(self, text: str) -> None:
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def held(self) -> bool:
        self.says("held")
        return self.reads() == "True"

    def signal(self, signum) -> None:
        self.process.send_signal(signum)


@pytest.fixture
def holder(tmp_path):
    started = []

    def start(**options) -> Holder:
        started.append(Holder(tmp_path, **options))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


class Clock:
    """Time that passes by sleeping alone; `each` is called after every sleep."""

    def __init__(self, each=lambda: None):
        self.at, self.each = 1000.0, each

    def sleep(self, seconds: float) -> None:
        self.at += seconds
        self.each()

    @property
    def times(self):
        return {"now": lambda: self.at, "wall": lambda: self.at + 1e9, "sleep": self.sleep}


def write(folder: Path, clock: Clock, *, ago: float = 0.0, **change) -> None:
    """A record as another machine leaves it."""
    record = {"token": "theirs", "host": "node-7", "boot_id": "another", "pid": 1, "since": "2026-01-02 03:04:05"}
    record.update(renewed=clock.at + 1e9 - ago, flock=None)
    (folder / ".lock").write_text(json.dumps({**record, **change}))


def read(folder: Path) -> dict:
    return json.loads((folder / ".lock").read_text())


def claim_and_end(folder, clock, said=None) -> None:
    claim_and_end_with(folder, clock.times, said)


def claim_and_end_with(folder, times, said=None) -> None:
    with received((said if said is not None else []).append), claimed(folder, **times) as claim:
        assert claim.held()


# -- one machine


def test_a_second_process_is_refused_at_once_and_told_who_holds_it(tmp_path, holder):
    first = holder()
    assert first.reads() == "ours"
    began = time.monotonic()
    with pytest.raises(OutputError, match=rf"locked since 20.* by host .*, process {first.process.pid}"):
        claim_and_end(tmp_path, Clock())
    assert time.monotonic() - began < 1
    assert first.held()
    first.says("end")
    assert first.process.wait() == 0
    assert not (tmp_path / ".lock").exists()
    claim_and_end(tmp_path, Clock())


def test_a_killed_holder_is_followed_at_once(tmp_path, holder):
    first = holder(length=30)
    assert first.reads() == "ours"
    first.signal(signal.SIGKILL)
    first.process.wait()
    clock = Clock()
    with claimed(tmp_path, **clock.times):
        assert clock.at == 1000.0  # it never slept
        assert read(tmp_path)["pid"] == os.getpid()


def test_the_same_process_can_claim_again_but_not_twice(tmp_path):
    with claimed(tmp_path), pytest.raises(OutputError, match="another run holds"):
        claim_and_end(tmp_path, Clock())
    claim_and_end(tmp_path, Clock())


def test_the_lease_is_renewed(tmp_path):
    with claimed(tmp_path, renew=0.05) as claim:
        first = read(tmp_path)
        time.sleep(0.3)
        assert read(tmp_path)["renewed"] > first["renewed"]
        assert read(tmp_path)["since"] == first["since"]
        assert claim.held()


def test_a_stopped_holder_loses_the_folder_and_knows_it_when_it_goes_on(tmp_path, holder):
    first = holder()
    assert first.reads() == "ours"
    first.signal(signal.SIGSTOP)
    time.sleep(0.6)  # three renewals are missing
    with claimed(tmp_path, lease=1.0, renew=0.2) as claim:
        first.signal(signal.SIGCONT)
        assert not first.held()
        time.sleep(0.5)  # time for a renewal of its own
        assert claim.held()
        first.says("end")
        assert first.process.wait() == 0
        assert claim.held()


def test_a_holder_of_this_machine_that_awakes_is_respected_at_once(tmp_path):
    """Its lease had run out: the machine slept."""
    mine = {"boot_id": lease._boot_id(), "flock": tmp_path.stat().st_dev}
    clock = Clock(lambda: write(tmp_path, clock, ago=99, **mine) if 1005 < clock.at < 1005.3 else None)
    write(tmp_path, clock, ago=100, **mine)
    with (tmp_path / ".lock.flock").open("w") as held:
        assert lease.kernel_lock(held.fileno())
        with pytest.raises(OutputError, match="another run holds"):
            claim_and_end(tmp_path, clock)
        assert clock.at < 1007
        assert not is_free(tmp_path)


# -- other machines


@pytest.mark.parametrize("ago", [301, 3600, 1e6])
def test_a_lease_that_seems_to_have_run_out_long_ago_is_watched_all_the_same(tmp_path, ago):
    """The clocks may differ: it is taken over once it was silent for its length, and respected where it isn't."""
    clock = Clock()
    write(tmp_path, clock, ago=ago)
    assert not is_free(tmp_path)
    claim_and_end(tmp_path, clock)
    assert 30 <= clock.at - 1000 < 33
    clock = Clock(lambda: write(tmp_path, clock, ago=ago + (clock.at < 1007)))
    write(tmp_path, clock, ago=ago)
    with pytest.raises(OutputError, match="by host node-7"):
        claim_and_end(tmp_path, clock)


def test_a_holder_that_can_not_write_any_more_holds_what_nobody_has_taken(tmp_path, monkeypatch):
    """A disk that has become read-only is no other process."""
    clock = Clock()
    with claimed(tmp_path, **clock.times) as claim:

        def read_only(*_):
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(os, "pwrite", read_only)
        clock.at += 1000
        assert claim.held()
        write(tmp_path, clock)
        assert not claim.held()
        monkeypatch.undo()


def test_a_lease_that_is_not_renewed_is_taken_over_after_its_length(tmp_path):
    clock, said = Clock(), []
    write(tmp_path, clock)
    claim_and_end(tmp_path, clock, said)
    assert 30 <= clock.at - 1000 < 33
    (line,) = said
    assert "locked since 2026-01-02 03:04:05 by host node-7" in line


def test_clocks_that_differ_do_not_matter(tmp_path):
    clock = Clock()
    write(tmp_path, clock, ago=-3600)
    claim_and_end(tmp_path, clock)
    assert 30 <= clock.at - 1000 < 33


def test_a_lease_that_is_renewed_is_respected(tmp_path):
    clock = Clock(lambda: write(tmp_path, clock, ago=200) if clock.at < 1007 else write(tmp_path, clock, ago=100))
    write(tmp_path, clock)
    with pytest.raises(OutputError, match="locked since 2026-01-02 03:04:05 by host node-7"):
        claim_and_end(tmp_path, clock)
    assert 35 <= clock.at - 1000 < 37
    assert read(tmp_path)["token"] == "theirs"


def test_an_earlier_attempt_of_the_same_job_is_no_stranger(tmp_path):
    """A pod that a launcher moved to another machine, while the former one takes its time to end."""
    job = "('worker', ['a:1', 'b:1'])"
    with claimed(tmp_path, job=job):
        mark = read(tmp_path)["job"]
    for asked, error, told in (
        (job, ClusterFault, "an earlier attempt of this job still holds"),
        ("", OutputError, "another run holds"),
        ("('worker', ['c:1'])", OutputError, "another run holds"),
    ):
        clock = Clock(lambda: write(tmp_path, clock, ago=clock.at % 7, job=mark))  # noqa: B023
        write(tmp_path, clock, job=mark)
        with pytest.raises(error, match=told), claimed(tmp_path, job=asked, **clock.times):
            pass


def test_a_holder_that_ends_meanwhile_is_followed(tmp_path):
    clock = Clock(lambda: (tmp_path / ".lock").unlink(missing_ok=True) if 1003 < clock.at < 1003.3 else None)
    write(tmp_path, clock)
    claim_and_end(tmp_path, clock)
    assert clock.at < 1004


def test_a_torn_record_is_a_silent_holder(tmp_path):
    clock = Clock()
    (tmp_path / ".lock").write_text('{"token": "th')
    claim_and_end(tmp_path, clock)
    assert 30 <= clock.at - 1000 < 33


def test_two_mounts_of_one_machine_do_not_see_each_others_locks(tmp_path):
    """The same kernel says nothing about a holder that has locked another mount's file."""
    clock = Clock()
    write(tmp_path, clock, boot_id=lease._boot_id(), flock=-1)
    claim_and_end(tmp_path, clock)
    assert clock.at >= 1030


def test_a_file_system_without_locks(tmp_path, holder):
    first = holder(flock="none")
    assert first.reads() == "ours"
    second = holder(flock="none")
    assert second.reads().startswith("waiting for")
    assert "another run holds" in second.reads()
    first.signal(signal.SIGKILL)
    third = holder(flock="none")
    assert third.reads().startswith("waiting for")
    assert third.reads() == "ours"


def test_a_machine_that_was_asleep_finds_that_another_has_taken_over(tmp_path, holder):
    first = holder(boot="one", flock="apart")
    assert first.reads() == "ours"
    first.signal(signal.SIGSTOP)
    second = holder(boot="two", flock="apart")
    assert second.reads().startswith("waiting for")
    assert second.reads() == "ours"
    first.signal(signal.SIGCONT)
    assert not first.held()
    assert second.held()
    first.says("end")
    assert first.process.wait() == 0
    assert second.held()


@pytest.mark.parametrize("flock", ["", "none"])
@pytest.mark.parametrize("found", ["nothing", "an expired lease"])
def test_of_many_takers_exactly_one_wins(tmp_path, holder, flock, found):
    if found == "an expired lease":
        write(tmp_path, Clock(), renewed=time.time() - 1000)
    takers = [holder(flock=flock, length=2, start="wait", boot=f"{i}" if flock else "") for i in range(6)]
    time.sleep(0.5)  # all have started
    for taker in takers:
        taker.says("go")
    winners = []
    for taker in takers:
        line = taker.reads()
        while line.startswith("waiting"):
            line = taker.reads()
        if line == "ours":
            winners.append(taker)
        else:
            assert "another run holds" in line
    (winner,) = winners
    assert winner.held()


@pytest.fixture
def no_flock(monkeypatch):
    """A file system without the kernel's locks: nothing but the file decides."""
    monkeypatch.setattr(lease, "kernel_lock", lambda descriptor: None)


@pytest.mark.parametrize("found", ["nothing", "an expired lease"])
def test_another_taker_that_was_faster_is_respected(tmp_path, no_flock, found):
    """It takes the folder between our look at it and our own taking, which asks for the time first."""
    clock, other = Clock(), ExitStack()
    if found == "an expired lease":
        write(tmp_path, clock, ago=301)

    def wall() -> float:
        if not others:
            others.append(None)
            others.append(other.enter_context(claimed(tmp_path, lease=0.1, renew=0.05, sleep=lambda _: None)))
        return clock.at + 1e9

    others: list = []
    clock.each = lambda: time.sleep(0.01)  # for its renewals
    with other:
        with pytest.raises(OutputError, match="another run holds"):
            claim_and_end_with(tmp_path, {**clock.times, "wall": wall})
        assert others[1].held()


def test_another_taker_that_was_slower_wins(tmp_path, no_flock):
    """Who replaces a dead holder's record looks again, for somebody else may have replaced his meanwhile."""
    clock = Clock(lambda: write(tmp_path, clock))
    write(tmp_path, clock, ago=301)
    with pytest.raises(OutputError, match="by host node-7"):
        claim_and_end(tmp_path, clock)
    assert read(tmp_path)["token"] == "theirs"


# -- what else can happen


def test_a_folder_that_was_removed_or_taken_is_not_held(tmp_path):
    clock = Clock()
    with claimed(tmp_path) as claim:
        claim.check()
        write(tmp_path, clock)
        assert not claim.held()
        with pytest.raises(OutputError, match=r"no longer holds .*locked since 2026-01-02 03:04:05 by host node-7"):
            claim.check()
    assert read(tmp_path)["token"] == "theirs"  # and it is not released
    (tmp_path / ".lock").unlink()
    with claimed(tmp_path) as claim:
        (tmp_path / ".lock").unlink()
        assert not claim.held()


def test_a_store_that_stays_away_for_a_moment_costs_nothing(tmp_path):
    clock = Clock()
    with claimed(tmp_path, **clock.times) as claim:
        (tmp_path / ".lock").rename(tmp_path / "elsewhere")
        (tmp_path / ".lock").mkdir()  # reading fails
        assert claim.held()
        clock.at += 31
        assert not claim.held()
        (tmp_path / ".lock").rmdir()
        (tmp_path / "elsewhere").rename(tmp_path / ".lock")
        assert claim.held()


def test_signals_are_answered_while_waiting(tmp_path):
    write(tmp_path, Clock(), renewed=time.time())
    code = "import sys\nfrom pathlib import Path\nfrom tfscale.run_dir.lease import claimed\n"
    code += "from tfscale.console.messages import shown\n"
    code += "with shown('auto'), claimed(Path(sys.argv[1])): print('ours')"
    waiting = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert b" waiting for" in waiting.stdout.readline()
    waiting.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = waiting.communicate(timeout=20)
    assert time.monotonic() - began < 2
    assert b"KeyboardInterrupt" in err
    assert read(tmp_path)["token"] == "theirs"


def test_a_folder_that_takes_no_lock_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="can't be locked"):
        claim_and_end(tmp_path / "absent", Clock())


def test_nothing_but_the_empty_lock_file_is_left(tmp_path):
    claim_and_end(tmp_path, Clock())
    assert [path.name for path in tmp_path.iterdir()] == [".lock.flock"]


def test_a_peek_takes_nothing(tmp_path, holder):
    clock = Clock()
    assert is_free(tmp_path)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path, clock, renewed=time.time())
    assert not is_free(tmp_path)
    write(tmp_path, clock, renewed=time.time() - 31)
    assert not is_free(tmp_path)  # whose clock is right isn't known
    (tmp_path / ".lock").unlink()
    first = holder()
    assert first.reads() == "ours"
    assert not is_free(tmp_path)
    assert first.held()
    first.signal(signal.SIGKILL)
    first.process.wait()
    with ExitStack() as stack:
        assert is_free(tmp_path)
        stack.enter_context(claimed(tmp_path))
        assert not is_free(tmp_path)
    assert is_free(tmp_path)
