"""Which split an item goes into: shares to the item, classes in each, groups whole, copies in one."""

from __future__ import annotations

import numpy as np
import pytest

from tfscale.errors import DataCorrupt
from tfscale.importer.import_request import ImportRequest
from tfscale.importer.reader import Listing
from tfscale.importer.splits import split_items


def split(listing: Listing, **request):
    return split_items(listing, ImportRequest(path="x", name="x", **request))


def listing(count: int, **more) -> Listing:
    return Listing(count=count, name=lambda place: f"item {place}", **more)


def test_shares_are_exact_and_each_class_has_its_own():
    rare = np.array(["rare"] * 50 + ["common"] * 900 + ["once", "twice", "twice"])
    found = split(listing(953, strata=rare))
    sizes = {name: len(places) for name, places in found.places.items()}
    assert sizes == {"train": 762, "validation": 96, "test": 95} and list(sizes) == ["train", "validation", "test"]
    for name, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert abs(np.sum(rare[found.places[name]] == "rare") - 50 * share) <= 1
    everything = np.concatenate(list(found.places.values()))
    assert sorted(everything) == list(range(953))
    again = split(listing(953, strata=rare))
    other = split(listing(953, strata=rare), seed=1)
    assert all(np.array_equal(found.places[name], again.places[name]) for name in sizes)
    assert not any(np.array_equal(found.places[name], other.places[name]) for name in sizes)
    assert not np.array_equal(found.places["train"], np.sort(found.places["train"]))  # shuffled, too


def test_groups_stay_whole_and_classes_have_their_shares():
    drawn = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), drawn.integers(1, 9, 300))
    strata = np.where(drawn.random(300) < 0.2, "rare", "common")[groups]
    strata[groups % 50 == 0] = "seldom"
    found = split(listing(len(groups), groups=groups, strata=strata))
    names = [set(groups[places]) for places in found.places.values()]
    assert list(found.places) == ["train", "validation", "test"] and sum(map(len, names)) == 300
    assert not (names[0] & names[1] or names[1] & names[2] or names[0] & names[2])
    for name, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        here = strata[found.places[name]]
        assert abs(len(here) / len(groups) - share) < 0.01
        for one, near in (("rare", 0.02), ("common", 0.02), ("seldom", 0.1)):
            assert abs(np.sum(here == one) / np.sum(strata == one) - share) < near, (name, one)
    again = split(listing(len(groups), groups=groups, strata=strata))
    assert all(np.array_equal(found.places[name], again.places[name]) for name in found.places)
    part = split(listing(len(groups), groups=groups, strata=strata), split={"train": 0.5})
    assert abs(len(part.places["train"]) / len(groups) - 0.5) < 0.01 and "are in no split" in part.said[0]


def test_a_group_is_never_in_two_splits():
    groups = np.arange(1000) // 7
    found = split(listing(1000, groups=groups), split={"train": 0.7, "test": 0.3})
    of = {name: set(groups[places]) for name, places in found.places.items()}
    assert not of["train"] & of["test"] and abs(len(found.places["train"]) - 700) < 10


def test_the_rest_of_shares_is_said():
    found = split(listing(100), split={"train": 0.5})
    assert len(found.places["train"]) == 50 and "50 items are in no split" in found.said[0]


def test_splits_by_any_usual_name_are_those_that_training_looks_for():
    found = split(listing(6, splits=np.array(["Train", "val", "test", "Train", "2013/01", ""])))
    assert {name: sorted(places) for name, places in found.places.items()} == {
        "train": [0, 3], "validation": [1], "test": [2], "2013_01": [4]}  # fmt: skip
    kept = split(listing(4, splits=np.array(["train", "test1", "test2", "train"])))
    assert sorted(kept.places) == ["test1", "test2", "train"]  # two splits are never made one


def test_copies_in_two_splits_are_left_out_of_training_kept_or_refused():
    own = np.array(["train", "train", "test", "validation", "train", "train"])
    digests = np.array(["a", "b", "a", "b", "c", "c"])
    there = listing(6, splits=own, digests=digests)
    found = split(there)
    assert {name: sorted(places) for name, places in found.places.items()} == {
        "train": [4, 5], "validation": [3], "test": [2]}  # fmt: skip
    assert found.copies == [("item 0", "item 2"), ("item 1", "item 3")]
    assert "item 0 is item 2 (test)" in found.said[0]
    assert sorted(split(there, duplicates="keep").places["train"]) == [0, 1, 4, 5]
    with pytest.raises(DataCorrupt, match="2 items stand in two splits: item 0 is item 2"):
        split(there, duplicates="refuse")
