"""The checkpoint benchmark: what counts as a stall, what it compares the files with, and a small run of all of it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))  # no installed package


class Counting:
    """Trains by adding one to its state, and writes it in the background, which ends after so many more steps."""

    def __init__(self, folder: Path, *, copies: bool, ends_after: int = 5, fails: bool = False):
        self.state, self.file = np.zeros(4, np.float32), folder / "state.npy"
        self.copies, self.ends_after, self.fails = copies, ends_after, fails
        self.left, self.ended, self.meanwhile = 0, threading.Event(), []

    def train(self, steps: int) -> None:
        self.state += steps
        if not self.ended.is_set() and self.left:
            self.left -= steps
            self.meanwhile.append(steps)
            if self.left <= 0:
                np.save(self.file, self.snapshot)
                self.ended.set()

    def save(self) -> None:
        self.snapshot = self.state.copy() if self.copies else self.state
        self.left, self.meanwhile = self.ends_after, []
        self.ended.clear()

    def wait(self) -> None:
        assert self.ended.wait(20)
        if self.fails:
            raise OSError("the disk is full")

    def member(self):
        from benchmarks.checkpoint_stall_member import Member, Saver

        return Member(
            Saver(
                train=self.train,
                save=self.save,
                wait=self.wait,
                state=lambda: [self.state],
                saved=lambda: [np.load(self.file)],
            ),
            self.file.parent,
        )


def test_it_trains_on_until_the_write_has_ended_and_leaves_no_files(tmp_path):
    counting = Counting(tmp_path / "files", copies=True)
    member = counting.member()
    member.warm_up()
    window = member.window(0.0)
    assert window.steps >= counting.ends_after == len(counting.meanwhile), "one by one, to the end of the write"
    assert window.written >= window.call
    assert window.lost == 0
    assert not list(counting.file.parent.iterdir())


def test_steps_behind_a_synchronous_save_count_too(tmp_path):
    from benchmarks.checkpoint_stall_member import LEAST_STEPS, Member, Saver

    trained = []
    saver = Saver(save=lambda: None, state=lambda: [np.ones(1)], saved=lambda: [np.ones(1)], train=trained.append)
    member = Member(saver, tmp_path)
    assert member.window(0.0).steps == LEAST_STEPS


def test_a_file_of_another_moment_is_found(tmp_path):
    member = Counting(tmp_path, copies=False).member()
    member.warm_up()
    assert member.window(0.0).lost == 1


def test_a_write_that_failed_ends_the_contestant(tmp_path):
    member = Counting(tmp_path, copies=True, fails=True).member()
    with pytest.raises(OSError, match="disk is full"):
        member.warm_up()


def _measured(**calls):
    """A benchmark in which the seconds of all kinds are these, for each contestant [blocks]."""
    from benchmarks.checkpoint_stall import AGAIN, KERAS, OURS, REUSED, Measured
    from benchmarks.checkpoint_stall_member import Window

    names = {"ours": OURS, "again": AGAIN, "keras": KERAS, "copy": REUSED}
    windows = {
        names[key].name: [Window(s, s, s, s, 2, 0.1, 0.1, 0, (1, 2)) for s in seconds] for key, seconds in calls.items()
    }
    return Measured(windows, {name: {"how": "so"} for name in windows}, seed=0)


@pytest.mark.parametrize(
    ("ours", "again", "verdict"),
    [
        ((0.1, 0.11, 0.1), (0.1, 0.1, 0.11), "holds"),
        ((0.6, 0.61, 0.6), (0.6, 0.6, 0.61), "does not hold"),
        ((0.1, 0.6, 0.1), (0.1, 0.1, 0.6), "inconclusive (the interval crosses the bound)"),
        ((0.1, 0.11, 0.1), (0.3, 0.31, 0.3), "inconclusive (A/A control off)"),
        ((0.1, 0.11, 0.1), (0.11, 0.12, 0.11), "holds"),  # a difference of 0.01 is under 5 % of the copy's second
    ],
)
def test_verdicts(ours, again, verdict):
    from benchmarks.checkpoint_stall import KERAS, Claim

    measured = _measured(ours=ours, again=again, keras=(3.0, 3.0, 3.0), copy=(1.0, 1.0, 1.0))
    assert measured.verdict(Claim("stall", KERAS, 0.1)) == verdict


@pytest.mark.slow
def test_a_small_run_of_all_but_orbax(tmp_path):
    """Orbax would have to be installed; the others save and are compared with the state, and the report says so."""
    report = tmp_path / "report.md"
    command = [sys.executable, "-m", "benchmarks.checkpoint_stall", "--parameters", "20000", "--blocks", "1"]
    command += ["--seconds", "0.1", "--without-orbax", "--folder", str(tmp_path / "files"), "--report", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    text = report.read_text()
    assert "without Orbax: not asked for" in text
    for name in ("ours", "ours again", "keras ModelCheckpoint", "CheckpointManager, async", "copy, fresh memory"):
        assert f"| {name} |" in text
    assert "stall: ours / keras ModelCheckpoint <= 0.1" in text
    assert not (tmp_path / "files").exists()
