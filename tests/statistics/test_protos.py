"""Schema and statistics of an import: the same as TensorFlow Data Validation's, and read back as they were written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.tfdv.data import words_of_import, write_table
from tfscale.__main__ import main
from tfscale.errors import DataCorrupt
from tfscale.statistics.baseline import baseline_profile, breaks
from tfscale.statistics.findings import Limits, findings
from tfscale.statistics.protos import SCHEMA, file_of, profile_of, read_schema_proto, read_statistics

GOLDEN = Path(__file__).parents[1] / "golden" / "tfdv.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tf):
    """Of the data set that TFDV looked at, too."""
    root = tmp_path_factory.mktemp("looked")
    assert main(words_of_import(write_table(root / "table.csv"), root)) == 0
    return root / "looked" / "1.0.0"


@pytest.mark.parametrize("split", ["train", "test"])
def test_statistics_are_those_of_tfdv(folder, split):
    theirs = json.loads(GOLDEN.read_text())["splits"][split]
    ours = read_statistics(folder / file_of(split)).datasets[0]
    assert ours.num_examples == theirs["rows"]
    found = {one.path.step[0]: one for one in ours.features}
    assert set(found) == set(theirs["features"])
    for name, expected in theirs["features"].items():
        one = found[name]
        stats = getattr(one, one.WhichOneof("stats"))
        assert one.Type.Name(one.type) == expected["type"], name
        common = stats.common_stats
        assert (common.num_non_missing, common.num_missing) == (expected["present"], expected["missing"]), name
        if "mean" in expected:
            for key in ("mean", "std_dev", "min", "max"):
                assert getattr(stats, key) == pytest.approx(expected[key], rel=1e-5, abs=1e-5), (name, key)
            assert stats.num_zeros == expected["num_zeros"], name
            assert stats.median == pytest.approx(expected["median"], rel=0.02, abs=0.06), name  # theirs is a sketch's
            pieces = [bucket.sample_count for bucket in stats.histograms[0].buckets]
            assert pieces == pytest.approx(expected["histogram"], abs=0.02 * common.num_non_missing), (
                name
            )  # and so here
        else:
            assert stats.unique == expected["unique"], name
            assert stats.avg_length == pytest.approx(expected["avg_length"], rel=1e-5), name
        if "ranks" in expected and name in ("carrier", "label", "place"):
            ranks = {bucket.label: bucket.sample_count for bucket in stats.rank_histogram.buckets}
            assert ranks == expected["ranks"], name
            assert [one.value for one in stats.top_values] == sorted(ranks, key=lambda one: (-ranks[one], one)), name


def test_tfdv_finds_nothing_in_the_same_data_and_each_fault_that_was_planted():
    told = json.loads(GOLDEN.read_text())["anomalies"]
    assert {name: told.pop(name) for name in list(told) if name.startswith(("train", "test"))} == {
        "train": {}, "train, our statistics": {}, "test": {}, "test, our statistics": {}
    }  # fmt: skip
    assert {name: set(one) for name, one in told.items()} == {
        "renamed": {"delay", "delays"}, "gaps": {"distance"}, "unseen": {"carrier"}, "class": {"label"},
        "type": {"distance"},
    }  # fmt: skip


def test_a_profile_comes_back_and_an_edited_schema_is_followed(folder, tmp_path):
    schema = read_schema_proto(folder / SCHEMA)
    train, test = (profile_of(read_statistics(folder / file_of(split)), schema) for split in ("train", "test"))
    assert train["columns"]["carrier"]["vocabulary"][0][0] == "AA" and train["label"]["classes"] == ["late", "on time"]
    assert not [one for one in findings(train, test, Limits()) if one.fails]
    assert not [one for one in findings(baseline_profile(folder), train, Limits()) if one.fails]

    edited = Path(shutil.copytree(folder, tmp_path / "edited"))
    text = (edited / "baseline.pbtxt").read_text()
    assert not breaks(edited, folder, "train")
    changed = text.replace('value: "LGA"', 'value: "LGA"\n    value: "JFK"').replace(
        "min_fraction: 0.8575", "min_fraction: 0.99"
    )
    (edited / "baseline.pbtxt").write_text(changed.replace('name: "weekend"', 'name: "weekday"'))
    assert baseline_profile(edited)["columns"]["place"]["domain"] == ["LGA", "JFK"]
    failing = {(one.column, one.kind) for one in breaks(edited, folder, "train") if one.fails}
    assert failing == {("delay", "gaps"), ("weekend", "new column")}
    (edited / "baseline.pbtxt").write_text(text + "feature { nme: 3 }")
    with pytest.raises(DataCorrupt, match="nme"):
        baseline_profile(edited)
