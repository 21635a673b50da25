"""Reductions side by side: what is reduced, in which buckets, and two processes that do it."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import allreduce, outcomes
from benchmarks.allreduce_member import Member
from benchmarks.allreduce_peers import buckets
from benchmarks.side_by_side import ROOT
from tfscale.models.resnet import footprint


def test_the_tensors_are_those_of_a_resnet_50_or_one_of_a_hundred_megabytes():
    sizes = allreduce.sizes("resnet50")
    cost = footprint(50, width=64, image_size=224, channels=3, num_classes=1000)
    assert sum(sizes) == cost.parameters == 25_557_032
    assert len(sizes) == 53 * 3 + 2
    assert [4 * size for size in allreduce.sizes("tensor")] == [100_000_000]
    assert sum(allreduce.sizes("resnet50", quick=True)) < 20_000


def test_buckets_are_cut_as_distributed_data_parallel_cuts_them():
    mib = 2**18  # numbers
    assert list(buckets([mib, 20 * mib, 10 * mib, mib // 2, mib // 2])) == [[4, 3], [2, 1], [0]]
    places = [place for one in buckets(allreduce.sizes("resnet50")) for place in one]
    assert places == list(reversed(range(161)))


def test_a_member_comes_back_from_its_words_and_knows_its_sums():
    member = Member((3, 4), 1, 0, ("127.0.0.1:1", "127.0.0.1:2"), 0, "bfloat16")
    assert Member.from_json(member.to_json()) == member
    assert (member.value(3), member.wanted(3)) == (8, 12)


def test_two_processes_reduce_beside_two_that_only_send(tmp_path):
    file = tmp_path / "quick.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "allreduce", "--quick", "--json", str(file)],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = outcomes.read(file)
    (found,) = told.outcomes
    assert set(found.values) == {"ours", "sockets"}
    assert all(value > 0 for values in found.values.values() for value in values)
    assert found.limits == ("sockets",)
    assert "as planned, wire full" in found.facts["ours"]["how"]
    numbers = sum(allreduce.sizes("resnet50", quick=True))
    assert {facts["parameters"] for facts in found.facts.values()} == {numbers}
