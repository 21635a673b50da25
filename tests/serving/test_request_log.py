"""Some of the requests as lines of JSON: what stands in them, what doesn't, and that nobody waits or fails for them."""

from __future__ import annotations

import csv
import hashlib
import json
import time

import numpy as np
import pytest
from support.served_models import served, write_pictures, write_table

from tfscale.__main__ import main
from tfscale.config.serve_options import ServeOptions
from tfscale.errors import OutputError, UsageError

ROW = {"age": 31.5, "town": "Ulm", "Weight_kg": 70.0}
PREDICT = "/v1/models/table:predict"


@pytest.fixture(scope="module")
def models(tf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    encoded = tf.io.encode_png(np.full([20, 20, 3], 200, np.uint8)).numpy()
    return {"table": write_table(folder / "t"), "pictures": write_pictures(folder / "p", [encoded])}, encoded


def lines(file, count=None):
    """Of the file, once there are so many."""
    deadline = time.monotonic() + 30
    while count is not None and (not file.is_file() or file.read_bytes().count(b"\n") < count):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_is_written_and_what_is_hidden(models, tmp_path):
    (places, encoded), file = models, tmp_path / "logs" / "requests.jsonl"
    with served(places, log=str(file), log_share=1.0, log_redact="[Weight (kg)]", grpc_port=0) as client:
        rows = [ROW, {**ROW, "age": None, "town": "https://me:secret@host/a"}]
        assert client.post(PREDICT, {"instances": rows}).status == 200
        tensors = [
            {"name": name, "shape": [40], "datatype": kind, "data": [ROW[name]] * 40}
            for name, kind in (("age", "FP32"), ("town", "BYTES"), ("Weight_kg", "FP32"))
        ]
        assert client.post("/v2/models/table/infer", {"inputs": tensors}).status == 200
        own = {"age": 1.0, "town": "Ulm", "Weight (kg)": 70.0}
        refused = client.post(PREDICT, {"instances": [own]})
        assert refused.status == 400 and "'Weight (kg)' is called Weight_kg" in refused.json["error"]
        import base64

        asked = {"instances": [{"b64": base64.b64encode(encoded).decode()}]}
        assert client.post("/v1/models/pictures:predict", asked).status == 200
        client.get("/v1/models/table")  # which asks no model
        first, second, third, fourth = lines(file, 4)
        page = client.get("/metrics", port=client.probes).body.decode()
        assert 'tfscale_serve_log_requests_total{outcome="written"} 4.0' in page
    assert len(lines(file)) == 4 and file.stat().st_mode & 0o077 == 0
    about = {name: first[name] for name in ("model", "version", "protocol", "status", "examples")}
    assert about == {"model": "table", "version": 12, "protocol": "v1", "status": 200, "examples": 2}
    assert first["time"].endswith("Z") and 0 < first["seconds"] < 30
    assert first["inputs"] == [
        {"Weight (kg)": "<redacted>", "age": 31.5, "town": "Ulm"},
        {"Weight (kg)": "<redacted>", "age": None, "town": "https://<redacted>@host/a"},
    ]
    assert first["outputs"][0]["class"] == 1 and sum(first["outputs"][0]["probabilities"]) == pytest.approx(1)
    assert (second["protocol"], second["examples"], len(second["inputs"])) == ("v2", 40, 32)
    assert (third["status"], "inputs" in third, "old" in json.dumps(third)) == (400, False, False)
    digest = hashlib.sha256(encoded).hexdigest()
    assert fourth["inputs"] == [{"image": {"bytes": len(encoded), "sha256": digest}}]
    assert set(fourth["outputs"][0]["mask"]) == {"bytes", "sha256"}


def test_a_full_disk_fails_no_request_and_is_said_once(models, tmp_path, messages):
    full = tmp_path / "full.jsonl"
    full.symlink_to("/dev/full")
    with served({"table": models[0]["table"]}, log=str(full), log_share=1.0) as client:
        for _ in range(3):
            assert client.post(PREDICT, {"instances": [ROW]}).status == 200
        failed, deadline = b'tfscale_serve_log_requests_total{outcome="failed"} 3.0', time.monotonic() + 30
        while failed not in client.get("/metrics", port=client.probes).body:
            assert time.monotonic() < deadline
    assert messages.text.count("requests aren't logged") == 1 and "No space left" in messages.text


def test_its_files_are_bounded_and_a_share_is_drawn(models, tmp_path):
    file = tmp_path / "requests.jsonl"
    file.write_text('{"half a line')  # of a server that was killed
    rows = [{**ROW, "town": f"{number} {'x' * 90}"} for number in range(32)]
    with served({"table": models[0]["table"]}, log=str(file), log_share=0.5, log_bytes=100_000) as client:
        for _ in range(80):
            assert client.post(PREDICT, {"instances": rows}).status == 200
    files = sorted(tmp_path.iterdir())
    assert [one.name for one in files] == ["requests.1.jsonl", "requests.jsonl"]
    before, present = (one.stat().st_size for one in files)
    assert 40_000 < before <= 50_000 and present <= 50_000  # which was begun a moment ago or long ago, as it was drawn
    for one in files:
        assert all(len(line["inputs"]) == 32 for line in lines(one))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"log_redact": "[agee]"}, UsageError, "no model takes or answers agee; did you mean 'age'"),
        ({"log": "/proc/none/requests.jsonl"}, OutputError, "can't be written"),
    ],
)
def test_a_column_that_is_not_there_and_a_file_that_cannot_be(models, tmp_path, options, error, said):
    given = {"log": str(tmp_path / "requests.jsonl"), **options}
    with pytest.raises(error, match=said), served({"table": models[0]["table"]}, **given):
        pass


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"log_redact": "age"}, "without a log has no effect"),
        ({"log": "requests.csv"}, "is no .jsonl"),
        ({"log": "a.jsonl", "log_share": 0.0}, "log_share is 0"),
        ({"log": "a.jsonl", "log_redact": "{a: b}"}, "are no names"),
        ({"log": "a.jsonl", "log_bytes": 10}, "hold few requests"),
    ],
)
def test_options_of_a_log_that_cannot_be(options, said):
    with pytest.raises(UsageError, match=said):
        ServeOptions(**options).check()
    assert ServeOptions(log="a.jsonl", log_redact="age, town").redacted == {"age", "town"}


def test_data_validate_compares_a_log_with_the_baseline_of_the_training(models, tf, tmp_path, capsys):
    random = np.random.RandomState(0)
    table = {
        "age": random.randint(20, 60, 400),
        "town": random.choice(["Bonn", "Ulm"], 400, p=[0.7, 0.3]),
        "Weight (kg)": np.round(random.normal(70, 9, 400), 1),
    }
    says_yes = 0.1 * (table["age"] - 40) + 0.01 * (table["Weight (kg)"] - 70) + (table["town"] == "Ulm") > 0
    table["stays"] = np.where(says_yes ^ (random.rand(400) < 0.1), "yes", "no")  # as the model, for nine of ten
    with (tmp_path / "people.csv").open("w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(table)
        out.writerows(zip(*table.values(), strict=True))
    folder = f"data.dir={tmp_path / 'data'}"
    assert main(["data", "import", str(tmp_path / "people.csv"), "name=people", folder, "data.label=stays"]) == 0

    def asked(name, older, **options):
        log = tmp_path / f"{name}.jsonl"
        with served({"table": models[0]["table"]}, log=str(log), log_share=1.0, **options) as client:
            for first in range(0, 320, 32):
                rows = [
                    {"age": float(table["age"][i]) + older, "town": str(table["town"][i]), "Weight_kg": float(table["Weight (kg)"][i])}
                    for i in range(first, first + 32)
                ]  # fmt: skip
                assert client.post(PREDICT, {"instances": rows}).status == 200
        capsys.readouterr()
        code = main(["data", "validate", str(log), "against=people", folder])
        return code, capsys.readouterr()

    code, told = asked("alike", 0)
    assert code == 0, told
    assert (
        "10 requests, 320 examples" in told.err + told.out and "320 answers, beside the labels" in told.err + told.out
    )
    code, told = asked("older", 25, log_redact="[town]")
    said = told.err + told.out
    assert code == 1 and "age" in said and "drift" in said and "missing column" not in said
    assert "hidden or no values: town" in said and "prediction drift" in said
    code = main(["data", "validate", str(tmp_path / "older.jsonl"), folder])
    assert code == 64 and "against=RUN" in capsys.readouterr().err
