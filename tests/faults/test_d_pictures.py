"""Faults of pictures among the data: broken, of other kinds than the rest, and larger than memory.

There is no command that only prepares: a training does it before its first step, and `--skip-bad` of the matrix is
data.skip_bad=true.
"""

from __future__ import annotations

import shutil
import struct

import numpy as np
import pytest
from support.data_files import (
    PLANTS,
    garden_job,
    jpeg,
    mean_colours,
    photos_job,
    plant,
    put,
    read_records,
    shard,
    write_records,
)
from support.dense_models import environ
from support.fault_rows import LIGHT

d4 = pytest.mark.fault(
    "D4",
    injected="JPEG files cut off, of no byte, of text",
    expected="before training 65 with the list; left out with data.skip_bad or, in records, within the budget; counted",
)


def broken() -> dict[str, bytes]:
    return {"half.jpg": jpeg(200)[:-300], "empty.jpg": b"", "text.jpg": b"To be done: pictures"}


@d4
def test_broken_pictures_are_listed_or_left_out(refused, trained, photos, got):
    for name, content in broken().items():
        put(photos / "a" / name, content)
    listed = ("3 of 11 pictures can't be used", "a/half.jpg (can't be decoded", "a/empty.jpg (the file is empty)")
    refused(photos_job(photos), 65, *listed, "a/text.jpg (neither JPEG", f"| {photos} |", left=True)
    run, result, entries = trained(photos_job(photos, "train.global_batch=8", "+data.skip_bad=true"))
    (left_out,) = (photos.parent / "dir").glob("*.bad_files.txt")
    assert [line.split("\t")[0] for line in left_out.read_text().splitlines()] == sorted(f"a/{n}" for n in broken())
    assert str(left_out) in run.text(0)
    assert result["bad_records"] == 3
    means_are(entries, mean_colours([file.read_bytes() for file in sorted(photos.glob("*/[0-9].jpg"))]))
    got("data.skip_bad=true: 3 counted and written to bad_files.txt, the other 8 seen")


def means_are(entries: list[dict], expected: list[float], near: float = 1.0) -> None:
    assert len(entries) == 2
    for entry in entries:
        found = [entry[colour] for colour in ("red", "green", "blue")]
        assert np.abs(np.subtract(found, expected)).max() < near, (found, expected)


@d4
def test_broken_pictures_in_records(trained, garden, got):
    from tensorflow.train import Example

    for number, content in enumerate(broken().values(), 1):
        records = read_records(shard(garden, number))
        example = Example.FromString(records[number])
        example.features.feature["image"].bytes_list.value[0] = content
        write_records(shard(garden, number), [*records[:number], example.SerializeToString(), *records[number + 1 :]])
    job = garden_job(garden, f"train.global_batch={PLANTS}", "+data.max_bad_records=3")
    run, result, entries = trained(job)
    assert result["bad_records"] == 3 and [entry["bad_records"] for entry in entries] == [3, 3]
    good = [plant(i).mean() for i in range(PLANTS) if i not in (11, 22, 33)]
    means_are(entries, [float(np.mean(good))] * 3, near=0.01)
    assert "the picture image the file is empty" in run.text(0)
    got("in records, within the budget: 3 counted, the other 37 seen")


d5 = pytest.mark.fault(
    "D5",
    injected="a grey, a CMYK, a 3024 x 3024 and a 3025 x 3025 JPEG among pictures of 100 x 100",
    expected="all decoded to RGB; beyond data.max_pixels refused by the header, left out and counted",
)


@d5
def test_pictures_of_other_kinds(trained, photos, got):
    others = {"grey.jpg": jpeg(mode="L"), "cmyk.jpg": jpeg(mode="CMYK"), "big.jpg": jpeg(3024)}
    for name, content in others.items():
        put(photos / "b" / name, content)
    used = mean_colours([file.read_bytes() for file in sorted(photos.glob("*/*.jpg"))])
    put(photos / "b" / "bigger.jpg", jpeg(3025)[:-999])  # cut off: what refuses it hasn't decoded it
    limit = ("+data.max_pixels=9144576", "+data.skip_bad=true", "train.global_batch=11")
    _, result, entries = trained(photos_job(photos, *limit))
    means_are(entries, used)
    assert result["bad_records"] == 1
    (left_out,) = (photos.parent / "dir").glob("*.bad_files.txt")
    assert left_out.read_text() == "b/bigger.jpg\tclaims 3025 x 3025 pixels, more than 9144576 in all\n"
    got("the mean colour of what is trained on is that of all eleven; one more refused by its header and counted")


PEAK = """
import resource, subprocess, sys
code = subprocess.call([sys.executable, *sys.argv[1:]])
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)
"""


@pytest.mark.fault(
    "D6",
    injected="a JPEG that claims 65500 x 65500 pixels, and one that has 12000 x 12000",
    expected="65 by the header; less than 100 MB more than without",
)
def test_bombs_take_no_memory(cli, photos, got):
    """Measured while preparing, where files are decoded; both runs end there, by a file of text."""
    put(photos / "a" / "text.jpg", b"text")

    def peak(told: str) -> int:
        ended = cli(*photos_job(photos), environ=environ(), program=("-c", PEAK, *LIGHT), deadline=40)
        assert ended.code == 65 and told in ended.err, ended.err
        return int(ended.out.rpartition("peak ")[2])

    without = peak("1 of 9 pictures can't be used")
    claims = bytearray(jpeg())
    start = claims.index(b"\xff\xc0") + 5
    claims[start : start + 4] = struct.pack(">HH", 65500, 65500)
    put(photos / "a" / "claims.jpg", bytes(claims))
    put(photos / "b" / "has.jpg", jpeg(12000, "L"))  # 432 MB when decoded
    shutil.rmtree(photos.parent / "dir")
    more = peak("claims.jpg (claims 65500 x 65500 pixels") - without
    got(f"65; {more:+d} MB on {without} MB")
    assert more < 100
