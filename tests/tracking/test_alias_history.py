"""To whom a roll-back gives an alias, after any moves."""

from __future__ import annotations

from tfscale.tracking.alias_history import Event, before, line_of, read_events, was_rolled_back


def moved(*moves):
    """Events of moves "former>version", or "former<version" of a roll-back, by way of tags."""
    events, tags = [], {}
    for move in moves:
        former, version = move.replace("<", ">").split(">")
        event = Event.next(events, version, former or None, "why", back="<" in move)
        key, value = event.tag("champion")
        tags.setdefault(version, {})[key] = value
        events.append(event)
    assert read_events(tags, "champion") == events and read_events(tags, "champ") == []
    return events


def test_back_goes_back_in_the_line():
    all_three = {"1", "2", "3"}
    events = moved(">1", "1>2", "2>3")
    assert line_of(events) == ["1", "2", "3"] and before(events, "3", all_three) == "2"
    events = moved(">1", "1>2", "2>3", "3<2")
    assert line_of(events) == ["1", "2"] and before(events, "2", all_three) == "1"
    assert before(moved(">1", "1>2", "2>3", "3<2", "2<1"), "1", all_three) is None
    again = moved(">1", "1>2", "2<1", "1>3")
    assert before(again, "3", all_three) == "1"
    assert before(moved(">1", "1>2", "2>1"), "1", all_three) == "2"  # version 1 once more


def test_what_people_set_by_hand_and_what_is_deleted():
    events = moved(">1", "1>2")
    assert before(events, "7", {"1", "2", "7"}) == "2"  # 7 was set by hand
    assert before(events, "1", {"1", "2"}) is None
    assert before(moved(">1", "7>2"), "2", {"1", "2", "7"}) == "7"
    assert before(moved(">1", "1>2", "2>3"), "3", {"1", "3"}) == "1"
    assert before([], "1", {"1"}) is None and before(events, None, {"1", "2"}) == "2"


def test_a_version_that_was_rolled_back_from():
    events = moved(">1", "1>2", "2<1")
    found = was_rolled_back(events, "2")
    assert found is not None and found.version == "1" and was_rolled_back(events, "1") is None
    assert was_rolled_back(moved(">1", "1>2", "2<1", "1>2"), "2") is None


def test_tags_of_others_are_passed_over():
    strange = {
        "tfscale.alias.champion.x": "{}",
        "tfscale.alias.champion.000001.20261130T101112.000000Z": "no JSON",
        "tfscale.alias.champion.000002.20261130T101112.000000Z": "[1]",
        "mine": "1",
    }
    assert read_events({"1": strange}, "champion") == []
