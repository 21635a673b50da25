"""Files that change under a run: noticed by their content at a resume, and no part of the run's name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from types import SimpleNamespace

import pytest

from tfscale.data import contents
from tfscale.data.contents import check_contents, hashes
from tfscale.data.image_folder import ImageFolder
from tfscale.data.mixture import Mixture
from tfscale.data.mnist import Mnist
from tfscale.errors import CheckpointUnusable
from tfscale.run_dir.folder import RunDir


@pytest.fixture
def job(tmp_path):
    """A configuration of class folders of two files each, and a run folder."""
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/ümlaut\n.jpg"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes(name.encode().ljust(100))
    (tmp_path / "r").mkdir()
    data = ImageFolder(path=str(tmp_path / "p"), dir=str(tmp_path / "d"))
    resume = SimpleNamespace(allow_changed=[])
    return SimpleNamespace(data=data, resume=resume, run_dir=RunDir(tmp_path / "r"), photos=tmp_path / "p")


def look(job):
    check_contents(job, job.run_dir)


def change(file, *, keep_time=False):
    stat = file.stat()
    file.write_bytes(b"other".ljust(stat.st_size))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + (0 if keep_time else 1)))


def committed(job):
    (job.run_dir.checkpoints / "step-000000001").mkdir(parents=True)


def test_a_changed_file_is_named_at_a_resume(job, messages):
    name = job.data.identity()
    look(job)
    committed(job)
    look(job)
    change(job.photos / "b" / "1.jpg")
    job.data = ImageFolder(path=job.data.path, dir=job.data.dir)
    with pytest.raises(CheckpointUnusable, match=r"the content of b/1\.jpg has changed since the run began") as error:
        look(job)
    assert error.value.exit_code == 76 and "resume.allow_changed=[data]" in error.value.fix
    assert job.data.identity() == name
    job.resume.allow_changed = ["data"]
    look(job)
    assert "going on although changed" in messages.text
    job.resume.allow_changed = []
    look(job)  # that is what it is trained on now


def test_before_the_first_checkpoint_the_list_is_made_anew(job):
    look(job)
    change(job.photos / "b" / "1.jpg")
    job.data = ImageFolder(path=job.data.path, dir=job.data.dir)
    look(job)


def test_a_run_without_a_list_is_compared_by_the_old_rule_and_gets_one(job):
    committed(job)
    look(job)
    assert len((job.run_dir.path / contents.LIST).read_text().splitlines()) == 4


def test_only_files_of_another_size_or_time_are_read_again(job, monkeypatch):
    read = []
    real = ImageFolder.content_of
    monkeypatch.setattr(ImageFolder, "content_of", lambda self, file: read.append(file.name) or real(self, file))
    directory = job.photos.parent / "d"
    first = hashes(job.data, job.data.contents(), directory)
    assert len(read) == 4 and hashes(job.data, job.data.contents(), directory) == first and len(read) == 4
    change(job.photos / "a" / "2.jpg")
    second = hashes(job.data, job.data.contents(), directory)
    assert read[4:] == ["2.jpg"] and {k for k in first if first[k] != second[k]} == {"a/2.jpg"}
    (note,) = directory.glob("contents-*.json")
    note.write_text(json.dumps({})[:1])
    assert hashes(job.data, job.data.contents(), directory) == second


def test_a_mixture_lists_the_files_of_its_sources_once(job, monkeypatch):
    listed = []
    real = ImageFolder.contents
    monkeypatch.setattr(ImageFolder, "contents", lambda self: listed.append(self) or real(self))
    alone = real(job.data).keys()
    job.data = Mixture(weights={"a": 1, "b": 1}, sources={name: ImageFolder(path=job.data.path) for name in "ab"})
    look(job)
    assert len(listed) == 2
    names = {json.loads(line.partition(" ")[2]) for line in (job.run_dir.path / contents.LIST).read_text().splitlines()}
    assert names == {f"{part}/{name}" for part in "ab" for name in alone}


def test_a_place_that_can_not_be_written_is_hashed_every_time(job):
    (job.photos.parent / "d").write_text("a file in the way")
    assert len(hashes(job.data, job.data.contents(), job.photos.parent / "d")) == 4


def test_pictures_that_are_not_verified_are_not_hashed(job):
    job.data.verify = False
    look(job)
    assert not (job.run_dir.path / contents.LIST).exists()


def test_the_same_data_prepared_again_are_the_same(tmp_path, tf, data_dir):
    """TFDS writes the features of an example in an order that differs between processes; a pod prepares its own."""
    ours, theirs = Mnist(dir=str(data_dir)), Mnist(dir=str(tmp_path / "d"))
    ours.prepare()
    shutil.copytree(data_dir / "mnist5k", tmp_path / "d" / "mnist5k")
    for file in theirs.contents().values():
        examples = [turned(record.numpy(), tf.train.Example) for record in tf.data.TFRecordDataset(str(file))]
        with tf.io.TFRecordWriter(str(file)) as writer:
            for example in examples:
                writer.write(example)
    job = SimpleNamespace(data=ours, resume=SimpleNamespace(allow_changed=[]))
    folders = [RunDir(tmp_path / name) for name in ("now", "before")]
    for folder in folders:
        (folder.checkpoints / "step-000000001").mkdir(parents=True)
        check_contents(job, folder)
    listed = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in ours.contents().items()}
    folders[1].write_text(contents.LIST, "".join(f"{value} {json.dumps(name)}\n" for name, value in listed.items()))
    check_contents(job, folders[1])  # a list of an older version has the hash of all bytes
    assert (folders[1].path / contents.LIST).read_text() == (folders[0].path / contents.LIST).read_text()
    files = zip(ours.contents().values(), theirs.contents().values(), strict=True)
    assert all(a.read_bytes() != b.read_bytes() for a, b in files)
    job.data = theirs
    for folder in folders:
        check_contents(job, folder)
    file = next(iter(theirs.contents().values()))
    content = file.read_bytes()
    file.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    with pytest.raises(CheckpointUnusable, match="has changed since the run began"):
        check_contents(job, folders[0])


def turned(record: bytes, whole) -> bytes:
    """The example with its features in the other order, as protobuf may write them as well."""
    features = whole.FromString(record).features.feature
    names = sorted(features, key=lambda name: record.find(b"\n\x05" + name.encode()), reverse=True)
    assert sorted(names) == ["image", "label"]
    parts = [whole(features={"feature": {name: features[name]}}).features.SerializeToString() for name in names]
    features = b"".join(parts)
    head, size = b"\n", len(features)
    while size > 127:
        head, size = head + bytes([size & 127 | 128]), size >> 7
    return head + bytes([size]) + features
