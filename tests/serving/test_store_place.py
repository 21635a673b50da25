"""A model out of a real S3 server and from behind a real web server: what is newer and whole takes over."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
import time

import pytest
from support.s3_server import BUCKET
from support.served_models import served, write_double

from tfscale.errors import DataCorrupt, DataMissing, IOFailure, SecurityRefused, UsageError
from tfscale.export.export_folder import files_of
from tfscale.serving.__main__ import main
from tfscale.serving.store_place import stored_model

URL = f"s3://{BUCKET}/models/double"
PREDICT = "/v1/models/double:predict"


@pytest.fixture(scope="module")
def exports(tf, tmp_path_factory):
    """By factor, each with the list of its files."""
    made = {}
    for factor in (2, 3):
        made[factor] = write_double(tmp_path_factory.mktemp(f"by{factor}"), factor=factor, step=factor, gaps=[])
        about = json.loads((made[factor] / "export.json").read_text())
        files = {name: file for name, file in files_of(made[factor]).items() if name.startswith("saved_model/")}
        (made[factor] / "export.json").write_text(json.dumps({**about, "files": files}))
    return made


def put(s3, export, prefix):
    for file in sorted(path for path in export.rglob("*") if path.is_file()):
        s3.write(f"{prefix}/{file.relative_to(export)}", file.read_bytes())


def until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_highest_version_that_is_whole_is_served_also_after_an_outage(s3, exports, tmp_path, messages):
    with pytest.raises(DataMissing, match="holds no model"):
        stored_model(URL, None, every=None)
    put(s3, exports[2], "models/double/1")
    with served({None: URL}) as model:

        def answer():
            return model.post(PREDICT, {"instances": [[1, 1, 1]]}).json["predictions"][0][0]

        assert answer() == 2 and model.get("/v1/models/double").json["model_version_status"][0]["version"] == "1"
        plain = exports[3] / "saved_model"
        files = [file for file in plain.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: (file.suffix != ".index", ".data-" in file.name)):
            s3.write(f"models/double/2/{file.relative_to(plain)}", file.read_bytes())
            time.sleep(0.5)  # some looks: to the last file it isn't whole
        until(lambda: answer() == 3)
        assert "isn't served" not in messages.text
        damaged = shutil.copytree(exports[2], tmp_path / "damaged")
        with (damaged / "saved_model" / "saved_model.pb").open("ab") as file:
            file.write(b" ")
        put(s3, damaged, "models/double/3")
        until(lambda: "isn't what its export.json says" in messages.text)
        s3.stop()
        until(lambda: "the store can't be read" in messages.text)
        assert answer() == 3
        s3.start()
        for key in s3.keys("models/double/2"):
            s3.client.delete_object(Bucket=BUCKET, Key=key)
        until(lambda: answer() == 2)  # back to what is there
    assert "version 2 serves on" in messages.text and messages.text.count("can be looked at again") == 1


def test_damaged_and_out_of_reach_at_the_start(s3, exports, tmp_path):
    put(s3, exports[2], "models/double")
    s3.flip("models/double/saved_model/saved_model.pb")
    with pytest.raises(DataCorrupt, match=r"saved_model/saved_model\.pb isn't what its export.json says"):
        stored_model(URL, None, every=None)
    with pytest.raises(SecurityRefused):
        stored_model(f"s3://{BUCKET}/../double", None, every=None)
    with pytest.raises(UsageError, match=f"s3://{BUCKET} names no folder"):
        stored_model(f"s3://{BUCKET}", None, every=None)
    s3.stop()
    try:
        with pytest.raises(IOFailure, match="the store can't be read"):
            stored_model(URL, "double", every=None)
    finally:
        s3.start()


def test_a_model_of_mlflow_is_brought_with_all_its_files(s3, exports):
    put(s3, exports[2], "models/double/1")
    for name in ("MLmodel", "model.pkl", "code/own.py"):
        s3.write(f"models/double/2/{name}", name.encode())
    place = stored_model(URL, None, every=None)
    (version,) = place.versions()
    found = sorted(str(file.relative_to(version.folder)) for file in version.folder.rglob("*") if file.is_file())
    assert (version.number, version.is_mlflow, found) == (2, True, ["MLmodel", "code/own.py", "model.pkl"])
    place.close()


def test_the_newest_version_that_can_be_loaded_is_served_from_the_start(tf, exports, tmp_path, messages):
    versions = tmp_path / "double"
    tf.saved_model.save(tf.Module(), str(versions / "3"))  # whole, and without a signature
    shutil.copytree(versions / "3", versions / "2")
    with pytest.raises(DataCorrupt, match="no signature"), served({None: f"file://{versions}"}):
        pass
    shutil.copytree(exports[2], versions / "1")
    with served({None: f"file://{versions}"}) as model:

        def states():
            told = model.get("/v1/models/double").json["model_version_status"]
            return "".join(f"{one['version']}{one['state'][0]}" for one in told)

        assert model.post(PREDICT, {"instances": [[1, 1, 1]]}).json == {"predictions": [[2, 2, 2]]}
        time.sleep(0.5)  # some looks
        assert states() == "3E2E1A"
        shutil.copytree(versions / "3", tmp_path / "6").rename(versions / "6")  # and while it serves, all of it at once
        until(lambda: states().startswith("6E"))
        assert states() == "6E3E2E1A"
        shutil.copytree(exports[3], tmp_path / "5").rename(versions / "5")  # behind one that can't be loaded
        until(lambda: states() == "6E5A3E2E")
        assert model.post(PREDICT, {"instances": [[1, 1, 1]]}).json == {"predictions": [[3, 3, 3]]}
    for number in (6, 3, 2):
        assert messages.text.count(f"version {number} of double isn't served") == 1


def test_a_full_disk_is_not_the_stores_fault(exports, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(IOFailure, match="can't be copied: No space left") as caught:
            stored_model(f"file://{exports[2]}", "double", every=None)
        assert caught.value.where.startswith(str(disk)) and "TMPDIR" in caught.value.fix
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "url", ["http://me:hun'ter22@x", "http://me:hun=ter22@127.0.0.1:1/x", "http://127.0.0.1:1/x?sig=ter22"]
)
def test_no_message_shows_what_opens_an_address(url, capfd):
    assert main([f"model={url}"]) == 64
    told = capfd.readouterr().err
    assert "hun" not in told and "ter22" not in told


def test_a_web_server_whose_file_grew_while_it_was_sent():
    class Grown(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            self.wfile.write(b'{"step": 3}')

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Grown) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        with pytest.raises(IOFailure, match="the store can't be read: 400"):
            stored_model(f"http://127.0.0.1:{web.server_port}/double", "double", every=None)
        web.shutdown()


def test_an_export_behind_a_web_server_and_a_run_in_a_folder(exports, tmp_path, monkeypatch, messages):
    run = tmp_path / "recipe" / "abc"
    shutil.copytree(exports[2], run / "export")
    (run / "config.yaml").write_text("run: {recipe: digits}")
    version = shutil.copytree(exports[3] / "saved_model", tmp_path / "versions" / "3")
    shutil.copy2(exports[3] / "export.json", version)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{web.server_port}"
        places = {url: stored_model(url, None, every=None) for url in (
            f"{base}/recipe/abc", f"{base}/recipe/abc/export", f"{base}/versions/3", f"file://{tmp_path}/recipe/abc"
        )}  # fmt: skip
        found = [(place.name, place.versions()[0].number) for place in places.values()]
        assert found == [("digits", 2), ("digits", 2), ("3", 3), ("digits", 2)]
        with pytest.raises(DataMissing, match=r"has no export.json"):
            stored_model(f"{base}/versions", None, every=None)
        with served({"double": f"{base}/versions/3"}) as model:
            assert model.post(PREDICT, {"instances": [[1, 1, 1]]}).json == {"predictions": [[3, 3, 3]]}
            version_of = model.get("/v1/models/double").json["model_version_status"][0]["version"]
            shutil.rmtree(version)
            shutil.copytree(exports[2] / "saved_model", version)
            shutil.copy2(exports[2] / "export.json", version)
            until(lambda: model.get("/v1/models/double").json["model_version_status"][0]["version"] == "2")
            (version / "export.json").write_text("<html>try again later</html>")
            with pytest.raises(DataCorrupt, match="it is no JSON"):
                stored_model(f"{base}/versions/3", None, every=None)
            until(lambda: "it is no JSON" in messages.text)
            about = json.loads((exports[3] / "export.json").read_text())
            (version / "export.json").write_text(json.dumps({**about, "step": 4}))  # before the files that it tells of
            until(lambda: "isn't what its export.json says" in messages.text)
            assert model.post(PREDICT, {"instances": [[1, 1, 1]]}).json == {"predictions": [[2, 2, 2]]}
            shutil.copytree(exports[3] / "saved_model", version, dirs_exist_ok=True)
            until(lambda: model.get("/v1/models/double").json["model_version_status"][0]["version"] == "4")
        assert version_of == "3"
        web.shutdown()
    for place in places.values():
        place.close()
