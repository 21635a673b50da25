"""What an import ends with is a command that trains on it."""

from __future__ import annotations

import pytest

from tfscale.importer.import_request import parse_request
from tfscale.importer.next_command import what_trains
from tfscale.importer.recognise import KINDS


@pytest.mark.parametrize(
    ("kind", "examples", "told"),
    [
        ("table", 275, "+recipe=tabular data.name=it train.global_batch=16 train.until=24ep"),
        ("table", 5, "+recipe=tabular data.name=it train.global_batch=4 train.until=400ep"),
        ("table", 300_000, "+recipe=tabular data.name=it"),
        (
            "images",
            400,
            "+recipe=resnet data=prepared task.augment=photos task.image_size=64 data.name=it train.global_batch=16",
        ),
        ("text", 3, "+recipe=text data.name=it"),
    ],
)
def test_the_batch_and_the_length_fit_the_data(kind, examples, told):
    (one,) = [one for one in KINDS if one.name == kind]
    request = parse_request(["path=it.csv", "name=it", "label=y"])
    assert what_trains(one, request, examples) == f"train on it: tfscale train {told}"
    other = parse_request(["path=it.csv", "name=it", "label=y", "dir=/some where"])
    assert "data.dir='/some where'" in what_trains(one, other, examples)


def test_nothing_trains_without_a_label():
    kinds = {one.name: one for one in KINDS}
    request = parse_request(["path=it.csv", "name=it"])
    assert "data.label=COLUMN" in what_trains(kinds["table"], request, 100)
    assert what_trains(kinds["coco"], request, 100) == ""
