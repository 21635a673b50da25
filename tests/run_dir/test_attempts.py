from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys

import pytest

from tfscale import errors
from tfscale.errors import InternalError
from tfscale.peers.meeting import Event
from tfscale.run_dir.attempts import Attempts
from tfscale.run_dir.folder import RunDir


class Clock:
    def __init__(self):
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return 1.7e9 + self.at


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(tmp_path, clock):
    """Opens the log for the next attempt."""
    return lambda run_dir=None: Attempts(run_dir or RunDir(tmp_path), wall=clock.wall, now=clock.now)


def attempt(log, code: int | None, *, step: int = 0, commits: int | None = None, what: str = "a bug", begins=True):
    """A whole attempt; code None: it was killed."""
    it = log()
    it.start()
    it.refuse_without_progress()
    if begins:
        it.begin(step)
        it.note(step + 3, commits, {"train": 1.0})
    if code is not None:
        it.ended(code, what)


def test_lines_of_an_attempt(log, clock):
    it = log()
    it.start()
    clock.at += 2
    it.begin(10, {"restore": 0.5, "train": 0.0})
    clock.at += 3
    seconds = {"restore": 0.5, "train": 2.0}
    it.note(14, None, seconds)
    seconds["train"] = 2.5  # the clock runs on
    it.ended(70, "a bug")
    it.ended(143, "a second word does not count")
    start, begin, note, ended = it.lines()
    assert start == {"kind": "start", "attempt": 1, "wall": 1.7e9 + 100, "elapsed": 0}
    assert (begin["kind"], begin["step"], begin["elapsed"], begin["seconds"]) == ("begin", 10, 2, {"restore": 0.5})
    assert (note["step"], note["committed"], note["seconds"]) == (14, 0, {"restore": 0.5, "train": 2.0})
    assert (ended["code"], ended["step"], ended["what"], ended["seconds"]["train"]) == (70, 14, "a bug", 2.5)
    assert [line["attempt"] for line in (begin, note, ended)] == [1, 1, 1]
    following = log()
    following.start()
    assert following.lines()[-1]["attempt"] == 2


def test_the_attempt_log_holds_no_secret(tmp_path, log):
    errors.keep_secret(["s3cr3t-of-the-log"])
    attempt(log, 70, what="nobody is known as s3cr3t-of-the-log")
    text = (tmp_path / "attempts.jsonl").read_text()
    assert "nobody is known as <redacted>" in text and "s3cr3t" not in text


def test_elapsed_counts_from_where_the_process_began(tmp_path, clock):
    it = Attempts(RunDir(tmp_path), began=97.5, wall=clock.wall, now=clock.now)
    it.start()
    assert it.lines()[0]["elapsed"] == 2.5


def test_a_new_attempt_tells_how_the_one_before_ended(log):
    assert log().last_end() == ""
    attempt(log, 143, step=10, what="stopped by SIGTERM")
    assert re.fullmatch(
        r"attempt 2; the one before ended at step 13, \d{4}-\S+ \S+, with code 143: stopped by SIGTERM",
        log().last_end(),
    )
    attempt(log, None, step=20)
    assert "at step 23" in log().last_end() and "without a word: it was killed" in log().last_end()
    attempt(log, 0, step=30)
    assert log().last_end() == ""


def test_most_notes_are_not_written_but_new_checkpoints_are(log, clock):
    it = log()
    it.begin(0)
    for step in range(10_000):
        clock.at += 1.0
        it.note(step, 0, {})
    few = len(it.lines())
    assert 200 < few < 1000
    it.note(10_000, 9_000, {})
    it.note(10_001, 9_000, {})
    assert len(it.lines()) == few + 1
    it.note(10_002, 9_000, {}, at_once=True)
    assert it.lines()[-1]["step"] == 10_002


def test_a_torn_line_is_skipped_and_the_next_one_stands_alone(tmp_path, log):
    attempt(log, 70)
    with (tmp_path / "attempts.jsonl").open("a") as stream:
        stream.write('{"kind": "note", "attem')
    assert len(log().lines()) == 4
    attempt(log, 70)
    assert [line["attempt"] for line in log().lines()] == [1] * 4 + [2] * 4
    with (tmp_path / "attempts.jsonl").open("ab") as stream:
        stream.write(b"\xff\x00[]\nnull\n7\n{}\n")
    assert len(log().lines()) == 8


def test_lines_survive_a_kill(tmp_path):
    code = "import os, sys\nfrom tfscale.run_dir.attempts import Attempts\nfrom tfscale.run_dir.folder import RunDir\n"
    code += "it = Attempts(RunDir(sys.argv[1])); it.start(); it.begin(5); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    assert [line["kind"] for line in Attempts(RunDir(tmp_path)).lines()] == ["start", "begin"]


def test_a_full_disk_does_not_end_the_run(tmp_path, log):
    it = log()
    it.start()
    (tmp_path / "attempts.jsonl").unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # no file takes a byte, as on a full disk
    try:
        it.begin(0)
        it.note(5, 5, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "attempts.jsonl").read_bytes() == b""
    (tmp_path / "attempts.jsonl").write_text('{"kind": "no')  # as a full disk leaves it
    it.ended(74, "the disk is full")
    assert [line["kind"] for line in it.lines()] == ["ended"]


def test_only_the_chief_writes(tmp_path, log):
    for _ in range(3):
        attempt(log, 70)
    before = (tmp_path / "attempts.jsonl").read_text()
    it = log(RunDir(tmp_path).for_reading())
    it.start()
    it.refuse_without_progress()
    it.begin(3)
    it.note(4, 4, {}, at_once=True)
    it.ended(70)
    assert (tmp_path / "attempts.jsonl").read_text() == before


# -- no progress


def test_three_failures_in_a_row_without_a_checkpoint_are_refused_once(log):
    for _ in range(3):
        attempt(log, 70, step=10, commits=10, what="ValueError: at the same step")
    with pytest.raises(InternalError, match=r"no progress in 3 attempts.* step 13 with code 70: ValueError: at the sa"):
        attempt(log, 70)
    for _ in range(3):
        attempt(log, 70)  # people who mended something have three more
    with pytest.raises(InternalError, match="no progress"):
        attempt(log, 70)


def test_two_failures_are_not_enough(log):
    attempt(log, 70)
    attempt(log, 81)
    attempt(log, None)
    attempt(log, None)


def test_a_new_checkpoint_begins_the_count_anew(log):
    attempt(log, 70)
    attempt(log, 70)
    attempt(log, 70, step=0, commits=10)
    attempt(log, 70, step=10, commits=10)
    attempt(log, 70, step=10, commits=10)
    attempt(log, None, step=10, commits=20)  # killed, but with progress
    attempt(log, 70, step=20, commits=20)
    attempt(log, 70, step=20, commits=20)
    attempt(log, 70, step=20, commits=20)
    with pytest.raises(InternalError):
        attempt(log, None)


def test_success_begins_the_count_anew(log):
    attempt(log, 70)
    attempt(log, 70)
    attempt(log, 0, commits=50)
    attempt(log, 70, step=50, commits=50)
    attempt(log, None)


@pytest.mark.parametrize("code", [None, 0, 130, 137, 143, 64, 66, 73, 76, 77, 78])
def test_ends_that_do_not_count(log, code):
    attempt(log, 70)
    attempt(log, 70)
    for _ in range(4):
        attempt(log, code)
    attempt(log, 70)  # nor do they separate those that do
    with pytest.raises(InternalError):
        attempt(log, None)


@pytest.mark.parametrize("code", [1, 65, 70, 74, 81])
def test_ends_that_count(log, code):
    for _ in range(3):
        attempt(log, code)
    with pytest.raises(InternalError, match=f"code {code}"):
        attempt(log, None)


def test_a_peer_that_was_lost_does_not_count_but_one_that_failed_does(log):
    """With the very texts that a peer's end is told with."""
    for kind in ("lost", "silent", "done"):
        for _ in range(3):
            attempt(log, 138, what=Event(kind, "worker:1").fault().what)
    for _ in range(3):
        attempt(log, 138, begins=False, what="these never came: worker:1")
    for _ in range(3):
        attempt(log, 138, what=Event("failed", "worker:1", {"exit_code": 70, "what": "a bug"}).fault().what)
    with pytest.raises(InternalError, match="peer worker:1 failed: a bug"):
        attempt(log, None)


def test_a_run_that_is_archived_takes_its_attempt_log_along(tmp_path, log):
    for _ in range(3):
        attempt(log, 70)
    RunDir(tmp_path).archive()
    attempt(log, 70)
    assert (tmp_path / "previous-001" / "attempts.jsonl").exists()
    assert len(log().lines()) == 4


def test_every_exit_code_is_known_here():
    """A new code must be thought of: does the job itself cause it, and is it tried again?"""
    codes = {cls.exit_code for cls in vars(errors).values() if isinstance(cls, type) and hasattr(cls, "exit_code")}
    assert codes == {1, 64, 65, 66, 70, 73, 74, 76, 77, 78, 81, 130, 138, 143}


def test_lines_are_json(tmp_path, log):
    attempt(log, 70, what='a "quoted"\nsecond line')
    text = (tmp_path / "attempts.jsonl").read_text()
    assert len([json.loads(line) for line in text.splitlines()]) == 4
