"""What a tracker is told gets there in order, once it is there, and is never waited for."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time

import pytest

from tfscale.errors import keep_secret, without_secrets
from tfscale.tracking.delivery import Delivery, Refused
from tfscale.tracking.spool import Spool, SpoolBusy


class Ear:
    """Takes everything while `there`; refuses steps that are negative."""

    name = "the ear"

    def __init__(self, *, there: bool = True):
        self.heard: list[int] = []
        self.there, self.tries = there, 0
        self.let_go = threading.Event()

    def take(self, kind, events):
        self.tries += 1
        if not self.there:
            raise ConnectionError("nobody at http://me:hunter22@there/api")
        if events[0]["step"] < 0:
            raise Refused("a negative step")
        self.heard += [event["step"] for event in events]


def step(number: int) -> dict:
    return {"kind": "negative" if number < 0 else "metrics", "step": number}


def test_a_spool_remembers_what_is_not_delivered(tmp_path):
    spool = Spool(tmp_path / "s.jsonl")
    for number in range(5):
        spool.append(step(number))
    spool.delivered(spool.pending()[1][1])
    spool.close()
    spool = Spool(tmp_path / "s.jsonl")
    assert [event["step"] for event, _ in spool.pending()] == [2, 3, 4]
    spool.append(step(5))
    spool.delivered(spool.pending()[-1][1])
    assert spool.pending() == [] and (tmp_path / "s.jsonl").stat().st_size == 0
    spool.append(step(6))
    assert [event["step"] for event, _ in spool.pending()] == [6]
    spool.delivered(spool.pending()[-1][1])
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_line_torn_by_a_kill_is_left_away(tmp_path):
    file = tmp_path / "s.jsonl"
    file.write_text(json.dumps(step(1)) + "\n" + json.dumps(step(2))[:9])
    spool = Spool(file)
    spool.append(step(3))
    assert [event["step"] for event, _ in spool.pending()] == [1, 3]
    spool.close()


def test_a_note_that_is_wrong_repeats_and_loses_nothing(tmp_path):
    spool = Spool(tmp_path / "s.jsonl")
    spool.append(step(1))
    spool.close()
    for wrong in ("", "many", "99999999"):
        (tmp_path / "s.delivered").write_text(wrong)
        spool = Spool(tmp_path / "s.jsonl")
        assert [event["step"] for event, _ in spool.pending()] in ([1], [])
        spool.close()


def test_a_spool_is_one_process_at_a_time_and_does_not_grow_for_ever(tmp_path):
    spool = Spool(tmp_path / "s.jsonl", limit=500)
    with pytest.raises(SpoolBusy):
        Spool(tmp_path / "s.jsonl")
    for number in range(100):
        spool.append(step(number), may_drop=True)
    spool.append({"kind": "end", "step": 0})
    assert (tmp_path / "s.jsonl").stat().st_size < 600
    assert spool.dropped > 50
    assert spool.pending()[-1][0]["kind"] == "end"
    spool.close()


def test_all_is_heard_in_order_and_a_refusal_stops_nothing(tmp_path, messages):
    ear = Ear()
    delivery = Delivery(Spool(tmp_path / "s.jsonl"), ear)
    for number in (1, 2, -1, 3, -2, 4):
        delivery.put(step(number))
    assert delivery.close(10)
    assert ear.heard == [1, 2, 3, 4]
    assert messages.text.count("refuses") == 1
    assert list(tmp_path.iterdir()) == []


def test_who_is_away_is_told_later_and_warned_of_once(tmp_path, messages):
    ear = Ear(there=False)
    delivery = Delivery(Spool(tmp_path / "s.jsonl"), ear)
    began = time.monotonic()
    for number in range(1000):
        delivery.put(step(number))
    assert time.monotonic() - began < 1
    assert delivery.answered(10) and "nobody" in delivery.failure
    ear.there = True
    assert delivery.close(10)  # closing tries again at once
    assert ear.heard == list(range(1000))
    err = messages.text
    assert err.count("out of reach") == 1 and len(err.splitlines()) == 1
    assert "hunter22" not in err and "s.jsonl" in err


def test_what_is_not_delivered_waits_for_the_next_attempt(tmp_path):
    ear = Ear(there=False)
    delivery = Delivery(Spool(tmp_path / "s.jsonl"), ear)
    delivery.put(step(1))
    delivery.put(step(2))
    began = time.monotonic()
    assert not delivery.close(60)
    assert time.monotonic() - began < 5  # not the whole time, where nobody answers
    assert 1 <= ear.tries < 10
    ear.there = True
    delivery = Delivery(Spool(tmp_path / "s.jsonl"), ear)
    delivery.put(step(3))
    assert delivery.close(10)
    assert ear.heard == [1, 2, 3]


def test_who_never_answers_is_not_waited_for(tmp_path):
    ear = Ear()
    ear.take = lambda kind, events: ear.let_go.wait(60)
    delivery = Delivery(Spool(tmp_path / "s.jsonl"), ear)
    delivery.put(step(1))
    began = time.monotonic()
    assert not delivery.close(0.5)
    assert time.monotonic() - began < 5
    ear.let_go.set()
    delivery._thread.join(10)


def _write_for_ever(file, ready):
    spool = Spool(file)
    for number in range(10**9):
        spool.append(step(number))
        if number == 100:
            ready.set()


def test_a_kill_loses_nothing_that_was_put(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_write_for_ever, args=(tmp_path / "s.jsonl", ready))
    process.start()
    assert ready.wait(60)
    process.kill()
    process.join()
    spool = Spool(tmp_path / "s.jsonl")
    found = [event["step"] for event, _ in spool.pending()]
    assert found[:101] == list(range(101)) and found == list(range(len(found)))
    spool.close()


def test_secrets_in_texts():
    keep_secret(["s3cr3t-value", "abc"])
    assert without_secrets("say s3cr3t-value, abc, and http://me:pw@host/x") == (
        "say <redacted>, abc, and http://<redacted>@host/x"
    )
