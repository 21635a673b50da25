from __future__ import annotations

import pytest

from tfscale.run_dir.goodput import CAUSES, Goodput, measure
from tfscale.run_dir.result import Result


class AttemptLog:
    """Lines as attempts.py writes them."""

    def __init__(self):
        self.lines, self.number, self.start = [], 0, 0.0

    def attempt(self, at: float) -> AttemptLog:
        self.number, self.start = self.number + 1, at
        return self.add("start", 1.0)

    def add(self, kind: str, elapsed: float, *, wall: float | None = None, **more) -> AttemptLog:
        wall = 1.7e9 + self.start + elapsed if wall is None else wall
        self.lines.append({"kind": kind, "attempt": self.number, "wall": wall, "elapsed": elapsed, **more})
        return self

    def note(self, elapsed: float, step: int, committed: int = 0, **seconds: float) -> AttemptLog:
        return self.add("note", elapsed, step=step, committed=committed, seconds=seconds)

    def measure(self) -> Goodput:
        found = measure(self.lines)
        assert found is not None
        assert set(found.losses) == set(CAUSES)
        assert found.productive_seconds + sum(found.losses.values()) == pytest.approx(found.wall_seconds, abs=1e-9)
        assert found.share == pytest.approx(found.productive_seconds / found.wall_seconds)
        return found


def lost(found: Goodput) -> dict[str, float]:
    return {cause: pytest.approx(seconds) for cause, seconds in found.losses.items() if abs(seconds) > 1e-6}


def test_a_run_in_one_piece():
    log = AttemptLog().attempt(0).add("begin", 4, step=0)
    kinds = {"start_up": 4, "compile": 3, "input_wait": 1, "eval": 2, "checkpoint": 0.5, "export": 1.5}
    log.note(100, 50, 50, train=87, **kinds).add("ended", 101, code=0)
    found = log.measure()
    assert (found.wall_seconds, found.productive_seconds, found.restarts) == (101, 87, 0)
    assert lost(found) == {**kinds, "other": 2}


def test_what_was_trained_behind_the_checkpoint_is_lost_once_it_is_repeated():
    log = AttemptLog().attempt(0).add("begin", 5, step=0)
    log.note(15, 10, 10, start_up=5, train=10).note(35, 30, 10, start_up=5, train=30)
    before = log.measure()
    assert (before.productive_seconds, lost(before)) == (30, {"start_up": 5})  # it may still be saved
    log.attempt(42).add("begin", 6, step=10, seconds={"restore": 1})
    log.note(46, 50, 50, start_up=5, restore=1, train=40)
    found = log.measure()
    assert (found.productive_seconds, found.wall_seconds, found.restarts) == (50, 88, 1)
    assert lost(found) == {"start_up": 10, "restore": 1, "repeated_work": 20, "restart": 7}


def test_a_checkpoint_between_two_notes_keeps_its_share():
    log = AttemptLog().attempt(0).add("begin", 0, step=0).note(40, 40, 0, train=40)
    log.attempt(40).add("begin", 1, step=30).note(11, 40, 40, start_up=1, train=10)
    found = log.measure()
    assert (found.productive_seconds, lost(found)) == (40, {"start_up": 1, "repeated_work": 10})


def test_a_checkpoint_before_the_one_between_two_notes():
    log = AttemptLog().attempt(0).add("begin", 0, step=0).note(20, 20, 0, train=20)
    log.attempt(20).add("begin", 0, step=10).note(2, 12, 10, train=2)
    log.attempt(22).add("begin", 0, step=5).note(3, 8, 5, train=3)
    found = log.measure()
    assert (found.productive_seconds, lost(found)) == (8, {"repeated_work": 17})


def test_steps_that_are_lost_again_and_again():
    log = AttemptLog().attempt(0).add("begin", 0, step=0).note(10, 10, 10, train=10).note(20, 20, 20, train=20)
    log.attempt(20).add("begin", 0, step=20).note(15, 35, 20, train=15)
    log.attempt(35).add("begin", 0, step=10).note(5, 15, 10, train=5)  # the checkpoint of step 20 was damaged
    log.attempt(40).add("begin", 0, step=0).note(2, 2, 0, train=2)  # and then the other one, too
    found = log.measure()
    assert (found.productive_seconds, lost(found)) == (2, {"repeated_work": 40})


def test_a_return_within_an_attempt():
    log = AttemptLog().attempt(0).add("begin", 0, step=0).note(10, 10, 10, train=10).note(18, 18, 10, train=18)
    log.add("begin", 21, step=10, seconds={"train": 20, "restore": 1}).note(31, 20, 20, train=30, restore=1)
    found = log.measure()
    assert (found.productive_seconds, lost(found)) == (20, {"repeated_work": 10, "restore": 1})


def test_training_that_nobody_noted_before_the_end_is_lost_with_it():
    log = AttemptLog().attempt(0).add("begin", 0, step=0).note(10, 10, 10, train=10)
    log.add("ended", 14, step=10, code=70, seconds={"train": 14})
    assert log.measure().productive_seconds == 14
    log.attempt(14).add("begin", 0, step=10).note(1, 11, 10, train=1)
    found = log.measure()
    assert (found.productive_seconds, lost(found)) == (11, {"repeated_work": 4})


def test_attempts_that_never_trained_are_start_up():
    log = AttemptLog().attempt(0).attempt(3).add("begin", 9, step=0, seconds={"restore": 2}).add("ended", 10, code=70)
    found = log.measure()
    assert (found.restarts, found.productive_seconds, found.share) == (1, 0, 0)
    assert lost(found) == {"start_up": 9, "restore": 2, "restart": 2}


def test_clocks_that_jump():
    log = AttemptLog().attempt(0).add("begin", 0, step=0)
    log.add("note", 10, wall=5, step=10, committed=10, seconds={"train": 10})  # back to 1970
    found = log.measure()
    assert (found.wall_seconds, found.share) == (10, 1)
    jumped = AttemptLog().attempt(1000).add("begin", 1, step=0).note(10, 10, 10, start_up=1, train=9)
    jumped.attempt(0).add("begin", 1, step=10).note(10, 20, 20, start_up=1, train=9)  # the next one is before it
    found = jumped.measure()
    assert (found.wall_seconds, lost(found)) == (20, {"start_up": 2})


def test_an_empty_book():
    assert measure([]) is None


def test_for_people_and_trackers():
    losses = dict.fromkeys(CAUSES, 0.0) | {"start_up": 1.31, "compile": 2.1, "other": 0.01}
    found = Goodput(0.9711, 123.4, 119.8, losses, 0)
    assert found.summary() == "97.1 % of 123 s; lost: compile 2.1 s, start_up 1.3 s"
    assert Goodput(1.0, 10.0, 10.0, {}, 3).summary() == "100.0 % of 10 s; 3 restarts"
    assert Goodput(1.0, 10.0, 10.0, {}, 1).summary() == "100.0 % of 10 s; 1 restart"
    metrics = found.metrics()
    assert (metrics["goodput/share"], metrics["goodput/lost_compile"], metrics["goodput/restarts"]) == (0.9711, 2.1, 0)
    assert all(isinstance(value, float) for value in metrics.values())
    result = Result("complete", "runs/it", goodput=found.to_dict())
    assert Result.read(result.to_dict()) == result
    assert result.rows("test")["goodput"] == found.summary()
    assert "goodput" not in Result("complete", "runs/it").rows("test")
