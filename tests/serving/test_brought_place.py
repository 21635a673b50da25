"""What a place that brings versions here does with those that can't be used."""

from __future__ import annotations

import time

import pytest

from tfscale.errors import DataMissing
from tfscale.serving.brought_place import BroughtPlace, Found


@pytest.mark.parametrize(("is_settled", "seconds"), [(True, [0]), (False, [0, 1, 3, 7, 15])])
def test_what_cannot_be_used_is_tried_again_ever_more_rarely_where_its_files_may_change(is_settled, seconds, messages):
    tried, clock = [], [0.0]
    broken, good = set(), Found(1, "good", lambda folder: write(folder))

    def write(folder):
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"")

    def bring(folder):
        tried.append(clock[0])
        if broken:
            raise DataMissing("a file is missing", where="there", fix="copy it")
        write(folder)

    place = BroughtPlace("digits", lambda: [Found(2, "bad", bring, is_settled), good], now=lambda: clock[0])
    broken.add("bad")
    for second in range(20):
        clock[0] = float(second)
        place.look()
        assert [version.number for version in place.versions()] == [1]
    assert tried == seconds and messages.text.count("a file is missing") == 1
    broken.clear()
    clock[0] = 1e6
    place.look()
    assert [version.number for version in place.versions()] == [1 if is_settled else 2]
    place.close()


def test_whatever_goes_wrong_it_looks_again(messages):
    """An error that nobody foresaw must not end the thread that looks: no newer model would ever be served."""
    trouble, newest = [], [1]

    def write(folder):
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"")

    def look():
        if trouble:
            raise trouble[0]
        return [Found(newest[0], str(newest[0]), write)]

    def until(holds):
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    place = BroughtPlace.of("digits", look, every=0.01)
    trouble.append(RecursionError("an odd one"))
    until(lambda: "an odd one" in messages.text)
    newest[0] = 2
    trouble.clear()
    until(lambda: [version.number for version in place.versions()] == [2])
    assert messages.text.count("an odd one; version 1 serves on") == 1
    until(lambda: "can be looked at again" in messages.text)
    place.close()
