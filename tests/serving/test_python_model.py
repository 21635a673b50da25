"""Python models of MLflow behind a real `tfscale serve`: what they answer by every protocol, which may be read, and how
they fail."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from support.python_models import MOODY, RANK, write_churn, write_code
from support.served_models import Client, served

from tfscale.errors import DataCorrupt, DataMissing, UsageError
from tfscale.serving.__main__ import main
from tfscale.serving.model_kinds import load_model
from tfscale.serving.model_place import ModelPlace
from tfscale.serving.pickles import code_in, other_versions, read_about

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and scikit-learn's own
CHURN, INFER = "/v1/models/churn:predict", "/v2/models/churn/infer"
ROWS = [{"age": 31.0, "town": "Ulm", "visits": 3}, {"age": None, "town": "Bonn", "visits": 0}]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    import pandas as pd

    folder = tmp_path_factory.mktemp("models")
    pipeline, table = write_churn(folder / "churn" / "1", requirement="scikit-learn==0.1")
    write_churn(folder / "flipped", flipped=True)
    write_churn(folder / "pickled", form="cloudpickle")
    ranked = pd.DataFrame({"rank": [1.0], "first": [True], "of": ["1"]})
    write_code(folder / "rank", RANK, pd.DataFrame({"x": [1.0]}), ranked)
    moods = pd.DataFrame({"mood": ["glad"], "at": pd.to_datetime(["2026-01-31"])})
    write_code(folder / "moody", MOODY, moods, ["text"], input_example=moods)
    return folder, pipeline, table


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    """A process, with all that it says at its start."""
    folder, here = models[0], tmp_path_factory.mktemp("served")
    named = ",".join(f"{name}={folder / name}" for name in ("churn", "rank", "moody"))
    words = ["serve.port=0", "serve.probes_port=0", "serve.reload=0.1", "serve.log=log.jsonl", "serve.log_share=1"]
    command = [sys.executable, "-m", "tfscale", "serve", f"model={named}", "serve.pickles=[rank, moody]", *words]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (here / "said").open("wb") as file:
        process = subprocess.Popen(command, cwd=here, stdout=file, stderr=file, env=environ)
    try:
        deadline = time.monotonic() + 200
        while not (found := re.search(r"POST http://127\.0\.0\.1:(\d+)", (here / "said").read_text())):
            assert process.poll() is None and time.monotonic() < deadline, (here / "said").read_text()
            time.sleep(0.05)
        yield Client(int(found[1]), 0), process, here
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (here / "said").read_text()


def tensor(name, kind, values, **more):
    return {"name": name, "datatype": kind, "shape": [len(values), 1], "data": values, **more}


def test_both_protocols_answer_as_the_pipeline_does(models, server):
    (_, pipeline, table), (client, process, here) = models, server
    expected = pipeline.predict(table).tolist()
    assert set(expected) == {"yes", "no"}
    columns = {"age": [31.0, None, 40, 22, 50, 61], "town": table["town"].tolist(), "visits": table["visits"].tolist()}
    assert client.post(CHURN, {"inputs": columns}).json == {"outputs": expected}
    assert client.post(CHURN, {"instances": ROWS}).json == {"predictions": expected[:2]}
    holed = json.dumps({"inputs": {**columns, "age": [float("nan")] * 6}}).encode()
    assert client.post(CHURN, holed).json == {"outputs": pipeline.predict(table.assign(age=float("nan"))).tolist()}
    tensors = [tensor("age", "FP64", columns["age"]), tensor("visits", "INT64", columns["visits"])]
    towns = tensor("town", "BYTES", columns["town"], parameters={"content_type": "str"})  # as MLServer's codecs write
    (found,) = client.post(INFER, {"inputs": [*tensors, towns]}).json["outputs"]
    assert found == {"name": "predictions", "datatype": "BYTES", "shape": [6], "data": expected}
    told = client.get("/v2/models/churn").json
    assert told["platform"] == "mlflow_pyfunc" and told["inputs"] == [
        {"name": "age", "datatype": "FP64", "shape": [-1]},
        {"name": "town", "datatype": "BYTES", "shape": [-1]},
        {"name": "visits", "datatype": "INT64", "shape": [-1]},
    ]
    page = client.get("/page/models/churn").json
    assert page["row_wise"] and [one["example"] for one in page["inputs"]] == [31.0, "Ulm", 3]
    rows = client.get("/openapi.json").json["paths"][CHURN]["post"]["requestBody"]["content"]["application/json"]
    assert rows["schema"]["properties"]["instances"]["items"]["required"] == ["town", "visits"]
    said = (here / "said").read_text()
    assert said.count("wants other packages") == 1 and re.search(r"scikit-learn [\d.]+ \(==0\.1\)", said)
    deadline = time.monotonic() + 30
    while not (lines := (here / "log.jsonl").read_text().splitlines()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert json.loads(lines[0])["inputs"][1] == {"age": None, "town": "Bonn", "visits": 0}
    assert sorted(one.name for one in here.iterdir()) == ["log.jsonl", "said"]  # MLflow leaves nothing
    assert "libtensorflow" not in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.parametrize(
    ("column", "status", "what"),
    [
        ({"visits": None}, 400, "missing"),
        ({"visits": [1.5]}, 400, "takes int64, and was given a fraction"),
        ({"town": [None]}, 400, "town takes texts"),
        ({"age": ["old"]}, 400, "takes float64, and was given a text"),
        ({"age": None}, 422, "columns are missing"),  # which the signature allows, and this pipeline doesn't
        ({"town": [{"b64": "/wA="}]}, 422, "can't decode byte 0xff"),
    ],
)
def test_what_a_signature_doesnt_take_is_refused(server, column, status, what):
    columns = {"age": [1.0], "town": ["Ulm"], "visits": [1], **column}
    answer = server[0].post(CHURN, {"inputs": {name: one for name, one in columns.items() if one is not None}})
    assert answer.status == status and what in answer.json["error"]


def test_a_model_that_looks_at_all_rows_is_asked_about_each_request_alone(server):
    client = server[0]
    assert client.post("/v1/models/rank:predict", {"instances": [{"x": 7.0}, {"x": 5.0}]}).json == {
        "predictions": [{"rank": 2.0, "first": False, "of": "2"}, {"rank": 1.0, "first": True, "of": "2"}]
    }
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda x: client.post("/v1/models/rank:predict", {"inputs": [float(x)]}).json, range(8))
        assert [one["outputs"]["of"] for one in found] == [["1"]] * 8


@pytest.mark.parametrize(
    ("mood", "status", "what"),
    [
        ("value", 422, "the model can't take these examples: no such mood"),
        ("key", 500, "the model failed; the server's log says how"),
        ("exit", 500, "the model failed; the server's log says how"),
        ("other", 500, "the model failed; the server's log says how"),
    ],
)
def test_a_model_that_fails_is_told_in_one_line_and_answers_on(server, mood, status, what):
    client, _, here = server
    moody = "/v1/models/moody:predict"
    answer = client.post(moody, {"instances": [{"mood": mood, "at": "2026-01-31"}]})
    assert (answer.status, answer.json) == (status, {"error": what})
    good = client.post(moody, {"instances": [{"mood": "glad", "at": "2026-01-31T10:00:00"}]})
    assert good.json == {"predictions": ["glad on 01 February"]}
    said = {
        "key": "KeyError: 'secret'",
        "exit": "sys.exit(3)",
        "other": "predictions has np.float64(1.5) among its texts",
    }
    assert said.get(mood, "") in (here / "said").read_text()
    late = client.post(moody, {"instances": [{"mood": "glad", "at": "2026-01-31T10:00:00+01:00"}]})
    assert late.status == 422 and "has an offset" in late.json["error"]


def test_a_newer_version_takes_over(models, server):
    (folder, *_), (client, *_) = models, server
    assert client.post(CHURN, {"instances": ROWS}).json == {"predictions": ["yes", "no"]}
    shutil.copytree(folder / "pickled", folder / "churn" / "2")
    deadline = time.monotonic() + 60

    def states():
        return [(one["version"], one["state"]) for one in client.get("/v1/models/churn").json["model_version_status"]]

    while states() != [("2", "END"), ("1", "AVAILABLE")]:  # a pickle, which nobody allowed
        assert time.monotonic() < deadline, states()
        time.sleep(0.05)
    shutil.copytree(folder / "flipped", folder / "churn" / "3")
    while client.post(CHURN, {"instances": ROWS}).json != {"predictions": ["no", "yes"]}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_grpc_and_what_smoke_asks(tf, models):
    import grpc

    from tfscale.serving.inference_messages import inference

    folder = models[0]
    with served({"flipped": folder / "flipped"}, grpc_port=0) as client:
        with grpc.insecure_channel(f"127.0.0.1:{client.grpc}") as channel:
            call = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=inference("ModelInferResponse").FromString,
            )
            request = inference("ModelInferRequest")(model_name="flipped")
            for name, kind in (("age", "FP64"), ("town", "BYTES"), ("visits", "INT64")):
                request.inputs.add(name=name, datatype=kind, shape=[2])
            raw = [struct.pack("<2d", 31, float("nan")), b"\3\0\0\0Ulm\4\0\0\0Bonn", struct.pack("<2q", 3, 0)]
            request.raw_input_contents.extend(raw)
            assert call(request, timeout=20).raw_output_contents == [b"\2\0\0\0no\3\0\0\0yes"]
        command = [sys.executable, "-m", "tfscale", "smoke", f"model={folder / 'flipped'}"]  # in a process of its own,
        command += [f"url=http://127.0.0.1:{client.port}", "tolerance=0"]  # from which imports of pandas may be kept
        ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert ended.returncode == 0 and "answers 3 examples" in ended.stdout + ended.stderr, ended.stderr


class _Evil:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_a_pickle_is_read_only_where_its_name_is_allowed(models, tmp_path, capsys):
    folder, ran, words = models[0], tmp_path / "ran", ("serve.port=0", "serve.probes_port=0")
    evil = shutil.copytree(folder / "pickled", tmp_path / "evil")
    (evil / "model.pkl").write_bytes(pickle.dumps(_Evil(ran)))
    assert main([f"model={evil}", *words]) == 64
    said = capsys.readouterr().err
    assert "evil is a pickle (cloudpickle): reading it runs whatever its author wrote" in said
    assert "serve.pickles=[evil] where you trust who made it" in said and not ran.exists()
    assert main([f"model={evil}", *words, "serve.pickles=[evli]"]) == 64
    assert "no model is served as evli; did you mean 'evil'?" in capsys.readouterr().err
    version = ModelPlace.of(evil).versions()[0]
    about = yaml.safe_load((evil / "MLmodel").read_text())
    about["flavors"]["sklearn"]["serialization_format"] = "skops"  # which it isn't
    (evil / "MLmodel").write_text(yaml.safe_dump(about))
    with pytest.raises(DataCorrupt, match="the model can't be read"):
        load_model(version, "evil", ())
    assert not ran.exists()
    about["flavors"]["sklearn"]["serialization_format"] = "pickle"
    (evil / "MLmodel").write_text(yaml.safe_dump(about))
    with pytest.raises(DataCorrupt):  # it is read, and isn't a model
        load_model(version, "evil", {"evil"})
    assert ran.exists()
    assert load_model(ModelPlace.of(folder / "pickled").versions()[0], "it", {"it"}).examples


@pytest.mark.parametrize(
    ("own", "flavor", "what"),
    [
        ({"loader_module": "mlflow.sklearn"}, {"serialization_format": "skops"}, ""),
        ({"loader_module": "mlflow.sklearn"}, {"skops_trusted_types": ["numpy.dtype"]}, "a pickle (pickle)"),
        (
            {"loader_module": "mlflow.sklearn"},
            {"serialization_format": "skops", "skops_trusted_types": ["os.system", "numpy.dtype"]},
            "a skops file with types that only its author trusts (os.system)",
        ),
        ({"loader_module": "mlflow.sklearn", "code": "code"}, {"serialization_format": "skops"}, "code of its own"),
        ({"loader_module": "mlflow.sklearn", "data": "x"}, {"serialization_format": "skops"}, "a folder of its own"),
        ({"loader_module": "mlflow.xgboost", "data": "MLmodel"}, {"model_class": "xgboost.sklearn.XGBRegressor"}, ""),
        ({"loader_module": "mlflow.xgboost", "data": "MLmodel"}, {"model_class": "os.system"}, "a model of os.system"),
        ({"loader_module": "mlflow.xgboost", "data": "../MLmodel"}, {}, "a model of"),
        ({"loader_module": "mlflow.lightgbm", "data": "MLmodel"}, {}, ""),
        (
            {"loader_module": "mlflow.lightgbm", "data": "MLmodel"},
            {"model_class": "lightgbm.sklearn.A"},
            "(cloudpickle)",
        ),
        ({"loader_module": "mlflow.onnx", "data": "MLmodel"}, {}, ""),
        ({"loader_module": "mlflow.pyfunc.model"}, {}, "a pickled Python class"),
        ({"loader_module": "mlflow.pytorch"}, {}, "read by mlflow.pytorch, which may run code"),
        ({"loader_module": "os"}, {}, "read by os, which may run code"),
    ],
)
def test_which_flavours_run_code(tmp_path, own, flavor, what):
    (tmp_path / "MLmodel").touch()
    found = code_in(tmp_path, {"python_function": own, own["loader_module"].removeprefix("mlflow."): flavor})
    assert (what in found) if what else not found


def test_what_is_no_model_to_serve_is_told(models, tmp_path):
    bare = shutil.copytree(models[0] / "flipped", tmp_path / "bare")
    about = read_about(bare)
    objects = '[{"type": "object", "name": "who", "required": true, "properties": {"a": {"type": "string"}}}]'
    signature = {**about["signature"], "inputs": objects}
    for changed, what in (
        ({"signature": None}, "the model has no signature"),
        ({"signature": signature}, "who is .*, which no protocol has"),
        ({"flavors": {"sklearn": {}}}, "has no flavour python_function"),
    ):
        (bare / "MLmodel").write_text(yaml.safe_dump({**about, **changed}))
        with pytest.raises(DataCorrupt, match=what):
            load_model(ModelPlace.of(bare).versions()[0], "bare", ())
    (bare / "requirements.txt").write_text("numpy\n--hash=x\nno-such-package==1\n# a remark\nmlflow<1\n")
    about["flavors"]["python_function"]["python_version"] = "3.1.0"
    told = other_versions(bare, about)
    assert re.fullmatch(r"Python [\d.]+ \(3\.1\.0\), no-such-package missing \(==1\), mlflow [\d.]+ \(<1\)", told)


@pytest.mark.filterwarnings("ignore")  # MLflow's own
@pytest.mark.parametrize("ending", ["joblib", "pkl", "skops"])
def test_a_bare_file_is_refused_with_python_that_mends_it(tmp_path, ending):
    import joblib
    import numpy as np
    import pandas as pd
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    rows = pd.DataFrame({"age": [20.0, 30.0, 50.0, 60.0]})
    kind = LogisticRegression if ending == "skops" else DecisionTreeClassifier  # of which skops trusts no trees
    model, file = kind().fit(rows, ["no", "no", "yes", "yes"]), tmp_path / f"my model.{ending}"
    {"joblib": joblib.dump, "skops": skops.io.dump}.get(ending, lambda *both: file.write_bytes(pickle.dumps(both[0])))(
        model, file
    )
    with pytest.raises(DataMissing, match="doesn't say which columns it takes") as refused:
        ModelPlace.of(file, "it")
    lines = refused.value.fix.partition("run this Python: ")[2].partition("; then model=")
    exec(lines[0], {"X": rows})
    place = ModelPlace.of(tmp_path / "my_model")
    assert lines[2].split(" '")[0] == str(place.path) and ("serve.pickles=[my_model]" in lines[2]) == (
        ending != "skops"
    )
    loaded = load_model(place.versions()[0], "my_model", () if ending == "skops" else {"my_model"})
    assert list(loaded({"age": np.array([55.0, 22.0])})["predictions"]) == [b"yes", b"no"]


def test_each_version_has_its_own_code(tmp_path):
    """Python keeps modules by their names, which versions share."""
    import numpy as np
    import pandas as pd

    code = RANK.replace("import time", "from own_words import WORD").replace("time.sleep(0.05)", "return [WORD]")
    versions, x = [], pd.DataFrame({"x": [1.0]})
    for word in ("old", "new"):
        own = tmp_path / word / "own_words.py"
        own.parent.mkdir()
        own.write_text(f"WORD = {word!r}\n")
        sys.path.insert(0, str(own.parent))
        try:
            folder = write_code(tmp_path / f"{word}_model", code, x, ["text"], code_paths=[str(own)])
        finally:
            sys.path.remove(str(own.parent))
            sys.modules.pop("own_words", None)
        versions += ModelPlace.of(folder).versions()
    with pytest.raises(UsageError, match="a model with code of its own"):
        load_model(versions[0], "it", ())
    models = [load_model(version, "it", {"it"}) for version in versions]
    assert [one({"x": np.ones(1)})["predictions"].tolist() for one in models] == [[b"old"], [b"new"]]
