"""Imported data in a real S3 server and on a real web server: the same examples, read ahead, tried again, and gone."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from support.s3_server import BUCKET
from support.sightings import write_source

import tfscale.data.remote_files as remote_files
from tfscale.data.prepared import Prepared
from tfscale.data.remote_prepared import RemotePrepared
from tfscale.errors import DataCorrupt, DataMissing, IOFailure, SecurityRefused, UsageError
from tfscale.importer.dataset import import_data
from tfscale.importer.import_request import parse_request
from tfscale.statistics.baseline import is_baseline


@pytest.fixture(scope="module")
def imported(tf, tmp_path_factory) -> Path:
    """The folder above a data set of pictures in two shards."""
    base = tmp_path_factory.mktemp("imported")
    source = write_source(base / "source", "pictures")
    import_data(parse_request([str(source), "name=pictures", f"dir={base / 'data'}", "shards=2", "processes=1"]))
    return base / "data"


@pytest.fixture
def s3(s3, imported, monkeypatch):
    """The data set in a bucket."""
    monkeypatch.setattr(remote_files, "_WAIT", 0.05)
    for file in (imported / "pictures" / "1.0.0").iterdir():
        s3.write(f"data/{file.relative_to(imported)}", file.read_bytes())
    return s3


@pytest.fixture
def served(imported, tmp_path) -> Path:
    """The data set in a folder of a test's own."""
    return Path(shutil.copytree(imported, tmp_path / "served"))


@pytest.fixture
def web(served, monkeypatch):
    """A web server that knows ranges; its list of requests, and how many of the next it fails."""
    asked, failing = [], [0]

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_HEAD(self):
            asked.append((self.path, "HEAD"))
            super().do_HEAD()

        def do_GET(self):
            asked.append((self.path, self.headers.get("Range")))
            if failing[0] > 0:
                failing[0] -= 1
                self.send_error(503)
                return
            file = Path(self.translate_path(self.path))
            if not file.is_file():
                self.send_error(404)
                return
            content, wanted = file.read_bytes(), self.headers.get("Range")
            if wanted:
                first, last = wanted.removeprefix("bytes=").split("-")
                part = content[int(first) : int(last or len(content)) + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
            else:
                part = content
                self.send_response(200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *_):
            pass

    monkeypatch.setattr(remote_files, "_WAIT", 0.05)
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(served)))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}", asked, failing
    made.shutdown()
    made.server_close()


def opened(url, folder, **fields):
    source = RemotePrepared(url=url, name="pictures", dir=str(folder), **fields)
    source.check()
    assert source.is_prepared()
    source.prepare()
    return source


def examples(source, places, ram_bytes=0):
    import tensorflow as tf

    indices = tf.data.Dataset.from_tensor_slices(np.array(places, np.int64)).batch(7)
    read = source.read("train", indices, ram_bytes=ram_bytes)
    return [{k: v.numpy() for k, v in source.parse(one).items()} for one in read]


PLACES = [3, 49, 0, 25, 24, 3, 12, 48, 26, 7, 8, 9, 10, 11, 1, 2]


@pytest.mark.parametrize("kind", ["s3", "http"])
def test_records_are_those_of_the_folder_held_or_read_as_they_are_needed(request, imported, tmp_path, kind, messages):
    url = f"s3://{BUCKET}/data" if request.getfixturevalue("s3" if kind == "s3" else "web") and kind == "s3" else None
    url = url or request.getfixturevalue("web")[0]
    local, remote = Prepared(name="pictures", dir=str(imported)), opened(url, tmp_path)
    wanted = examples(local, PLACES)
    assert examples(remote, PLACES) == wanted  # by ranges
    assert examples(remote, PLACES, ram_bytes=10**9) == wanted  # held
    assert remote.num_examples("train") == 50 and remote.num_examples("test") == 7
    assert remote.spec() == local.spec() and remote.class_names() == local.class_names()
    assert remote.stored_bytes("train").tolist() == local.stored_bytes("train").tolist()
    assert remote.class_labels("train").tolist() == local.class_labels("train").tolist()
    assert remote.locate("train", 26).startswith(
        f"{url}/pictures/1.0.0/pictures-train.tfrecord-00001-of-00002: record 1 "
    )
    again = opened(url, tmp_path)
    assert again.identity() == remote.identity() and "dir" not in again.identity() and "url" not in again.identity()
    assert "looking where each record" not in messages.text  # offsets.npz says it
    (remote.folder() / "offsets.npz").write_bytes(b"of other shards")
    for _ in range(2):
        again = opened(url, tmp_path)
        assert again.num_examples("test") == 7 and examples(again, PLACES) == wanted
    assert messages.text.count("looking where each record") == 2  # of two splits, and once


@pytest.mark.parametrize("kind", ["s3", "http"])
def test_what_describes_the_data_is_all_there_and_brought_anew_where_it_has_changed(
    request, served, tmp_path, kind, messages
):
    server = request.getfixturevalue("s3" if kind == "s3" else "web")
    url = f"s3://{BUCKET}/data" if kind == "s3" else server[0]
    theirs = served / "pictures/1.0.0"

    def put(name, content):
        theirs.joinpath(name).write_bytes(content)
        if kind == "s3":
            server.write(f"data/pictures/1.0.0/{name}", content)

    def described(folder):
        own = ("sizes.json", "stamps.json")
        return {f.name: f.read_bytes() for f in folder.iterdir() if ".tfrecord" not in f.name and f.name not in own}

    folder = opened(url, tmp_path).folder()
    assert described(folder) == described(theirs) and is_baseline(folder) and "label.labels.txt" in described(folder)
    put("baseline.pbtxt", b"# edited\n" + (theirs / "baseline.pbtxt").read_bytes())
    put("schema.yaml", b"columns: []\n")  # one that wasn't there
    assert opened(url, tmp_path).folder() == folder and described(folder) == described(theirs)
    assert "what describes the data has changed in the store: baseline.pbtxt, schema.yaml" in messages.text
    (theirs / "schema.yaml").unlink()
    if kind == "s3":
        server.client.delete_object(Bucket=BUCKET, Key="data/pictures/1.0.0/schema.yaml")
    opened(url, tmp_path)
    assert described(folder) == described(theirs)
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    opened(url, tmp_path)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_a_file_that_a_server_fails_to_send_is_not_taken_for_one_that_is_not_there(web, tmp_path):
    url, _, failing = web
    failing[0] = 10**6
    source = RemotePrepared(url=url, name="pictures", dir=str(tmp_path / "fresh"))
    with pytest.raises(IOFailure, match="503"):
        source._remote.content_if_there("columns.json")
    failing[0] = 0
    assert source._remote.content_if_there("columns.json") is None


def test_a_request_that_fails_is_made_again_and_memory_is_bounded(web, tmp_path, messages):
    url, asked, failing = web
    source = opened(url, tmp_path)
    asked.clear()
    failing[0] = 3
    assert len(examples(source, PLACES)) == len(PLACES)
    assert failing[0] == 0 and all(span for _, span in asked)  # never a whole shard
    assert len(asked) >= len(PLACES) + 3
    failing[0] = 10**6
    with pytest.raises(Exception, match=r"IOFailure: remote data can't be read: .*503"):
        examples(source, PLACES)
    failing[0] = 0


def test_what_is_gone_or_has_changed_is_named(s3, tmp_path):
    from tfscale.data.culprit import as_data_fault

    url, shard = f"s3://{BUCKET}/data", "data/pictures/1.0.0/pictures-train.tfrecord-00001-of-00002"
    source = opened(url, tmp_path)
    content = s3.read(shard)
    s3.client.delete_object(Bucket=BUCKET, Key=shard)
    with pytest.raises(Exception, match="DataMissing: the object is gone") as raised:
        examples(source, PLACES)
    fault = as_data_fault(raised.value)
    assert isinstance(fault, DataMissing) and fault.where == f"s3://{BUCKET}/{shard}"
    with pytest.raises(DataMissing, match="the object is gone"):
        examples(source, PLACES, ram_bytes=10**9)
    with pytest.raises(DataMissing, match="a shard of pictures is missing: pictures-train.tfrecord-00001"):
        opened(url, tmp_path / "fresh")
    s3.write(shard, b"\0" * 8 + content[8:])
    with pytest.raises(Exception, match="DataCorrupt: its records are other ones"):
        examples(source, PLACES)
    with pytest.raises(DataCorrupt, match="not what was imported"):
        examples(source, PLACES, ram_bytes=10**9)


def test_a_place_that_has_no_such_data_is_told(s3, tmp_path, monkeypatch):
    with pytest.raises(DataMissing, match="no data set pictures"):
        opened(f"s3://{BUCKET}/elsewhere", tmp_path)
    with pytest.raises(UsageError, match="unknown protocol 'ftp'"):
        opened("ftp://host/data", tmp_path)
    with pytest.raises(UsageError, match="aren't looked through"):
        opened(f"s3://{BUCKET}/data", tmp_path, max_bad_records=1)
    with pytest.raises(SecurityRefused):
        RemotePrepared(url=f"s3://{BUCKET}/data", name="../x", dir=str(tmp_path)).check()
    s3.stop()
    try:
        with pytest.raises(IOFailure):
            opened(f"s3://{BUCKET}/data", tmp_path / "fresh")
    finally:
        s3.start()


def test_the_command_trains_on_data_of_a_server_and_resumes(web, cli, tmp_path):
    from support.dense_models import environ
    from support.fault_rows import result_of
    from support.sightings import sighted_job

    job = [word for word in sighted_job(tmp_path / "kept", "pictures", "it", steps=6) if word != "data=prepared"]
    job += ["data=remote", f"data.url={web[0]}", "plan.input_ram_bytes=0"]
    ended = cli(*job, environ={**environ(), "NO_PROXY": "127.0.0.1"})
    assert ended.code == 0, ended.err
    ended = cli(*job, "train.until=12st", environ={**environ(), "NO_PROXY": "127.0.0.1"})
    assert ended.code == 0 and "resuming at step 6 of 12" in ended.out + ended.err, ended.err
    seen = result_of(tmp_path / "it")["data"]
    assert seen["seen"]["examples"] == 72 and seen["version"] == "1.0.0"
