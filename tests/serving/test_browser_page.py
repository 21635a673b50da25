"""The page on which people ask a model, in a real browser where there is one, and what it lets nobody do."""

from __future__ import annotations

import json
import re
import subprocess

import numpy as np
import pytest
from support.browser import loaded_from_outside, tab
from support.served_models import served, write_double, write_pictures, write_table, write_texts, write_whole

from tfscale.config.serve_options import ServeOptions
from tfscale.serving.browser_page import page, refuse_foreign_pages
from tfscale.serving.refusal import Refusal

TOKEN = "a-token-that-nobody-guesses-0123456789"


def png(pixels):
    import tensorflow as tf

    return tf.io.encode_png(np.uint8(pixels)).numpy()


@pytest.fixture(scope="module")
def pictures(tf):
    """(one with a light square on a dark ground, all white but for a corner), as files."""
    dark, light = np.zeros([40, 60, 3]), np.full([40, 60, 3], 255)
    dark[10:20, 15:30], light[:4, :4] = 255, 0
    return png(dark), png(light)


@pytest.fixture(scope="module")
def server(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models = {"pictures": write_pictures(folder / "p", [pictures[0]]), "table": write_table(folder / "t")}
    models |= {"texts": write_texts(folder / "x"), "double": write_double(folder / "d", step=5, gaps=[])}
    models["whole"] = write_whole(folder / "w")
    with served(models) as client:
        yield client


def address(client):
    return f"http://127.0.0.1:{client.port}/"


def test_a_dropped_picture_is_answered_on_a_desk_and_on_a_telephone(server, pictures, tmp_path):
    file = tmp_path / "it's <b>light.png"
    file.write_bytes(pictures[1])
    with tab(tmp_path) as page:
        page.open(address(server))
        page.until("!document.querySelector('#whole').hidden && document.querySelector('.drop img').naturalWidth")
        page.until(
            "document.querySelector('.drop').innerText.startsWith('example.png (60 x 40, ')"
        )  # told once it is read
        page.drop(".drop", file)
        page.until("document.querySelector('.drop').innerText.startsWith(\"it's <b>light.png\")")
        page.click("#send")
        page.until("document.querySelector('#answer dd.large')")
        assert page.text("#answer dd.large") == "light"
        assert re.sub(r"\s+", " ", page.text("#answer .bars")).startswith("light 9")
        page.until("document.querySelectorAll('#answer canvas').length === 2")  # the mask, and the boxes on the picture
        assert "ms from here to there and back" in page.text("#answer") and '"probabilities":' in page.run(
            "document.querySelector('#answer pre').textContent"
        )
        command = page.run("document.querySelector('#command pre').textContent")
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert json.loads(done.stdout)["predictions"][0]["class"] == 1, (command, done)
        assert "/v1/models/pictures:predict" in page.run("document.querySelector('#paths').textContent")
        assert page.run("document.documentElement.scrollWidth") <= 1200
        assert page.narrow(360) == 360
        assert not page.errors


def test_a_row_is_typed_and_what_is_wrong_is_said(server, tmp_path):
    with tab(tmp_path) as page:
        page.open(address(server))
        page.until("!document.querySelector('#whole').hidden")

        def choose(name):
            page.run(f"(one => {{ one.value = '{name}'; one.dispatchEvent(new Event('change')) }})"
                     "(document.querySelector('#models'))")  # fmt: skip
            page.until(f"model.name === '{name}'")

        choose("table")
        assert page.run("[...document.querySelectorAll('#fields input')].map(one => one.value)") == [
            "71.3",
            "31",
            "Köln",
        ]
        assert "Weight (kg)" in page.text("#fields") and "may be empty" in page.text("#fields")
        page.write("#field-age", "")
        page.write("#field-town", "Ulm")
        page.click("#send")
        page.until("document.querySelector('#answer dd.large')")
        assert page.text("#answer dd.large") == "yes"
        assert json.loads(re.search(r"-d '(.*)'", page.text("#command"))[1]) == {
            "instances": [{"Weight_kg": 71.3, "age": None, "town": "Ulm"}]
        }
        page.write("#field-Weight_kg", "much")
        page.click("#send")
        assert "is a number, and much is none" in page.text("#wrong")
        assert page.narrow(360) == 360
        choose("whole")  # which takes no rows
        page.write("#field-x", "[1, 2, 6]")
        page.write("#field-scale", "10")
        page.click("#send")
        page.until("document.querySelectorAll('#answer dt').length")
        assert page.text("#answer dl") == "mean\n3\ny\n10, 20, 60"
        choose("double")
        page.write("#field-x", "[1, 2]")
        page.click("#send")
        assert "takes [n, 3]" in page.until("document.querySelector('#answer .error')?.innerText")
        assert [one for one in page.errors if "422" not in one] == []


def test_a_token_is_asked_for_and_kept_in_memory_alone(server, tmp_path):
    double = write_double(tmp_path / "m", step=5, gaps=[])
    with served({"double": double}, token=TOKEN) as client, tab(tmp_path) as page:
        assert TOKEN.encode() not in client.ask("GET", "/", None, {"Authorization": ""}).body
        for path in ("/page/models/double", "/openapi.json", "/v1/models"):
            assert client.ask("GET", path, None, {"Authorization": ""}).status == 401
        page.open(address(client))
        page.until("!document.querySelector('#asking').hidden")
        for token, seen in (
            ("another", "!document.querySelector('#wrong').hidden"),
            (TOKEN, "!document.querySelector('#whole').hidden"),
        ):
            page.write("#token", token)
            page.click("#entry button")
            page.until(seen)
        page.write("#field-x", "[1, 2, 3]")
        page.click("#send")
        page.until("document.querySelector('#answer dd')")
        assert page.text("#answer dd") == "2, 4, 6" and "$TFSCALE_SERVE_TOKEN" in page.text("#command")
        kept = page.run("location.href + document.cookie + JSON.stringify({...localStorage, ...sessionStorage})")
        assert TOKEN not in kept + page.run("document.documentElement.outerHTML")


def test_the_page_runs_its_own_script_alone_and_asks_nobody_else(server):
    answer = server.get("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(one.split(" ", 1) for one in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert "unsafe" not in answer.headers["Content-Security-Policy"] and policy["connect-src"] == "'self'"
    html = answer.body.decode()
    assert not loaded_from_outside(html) and not re.search(r"innerHTML|insertAdjacent|document\.write|\bon\w+=", html)
    assert answer.headers["X-Frame-Options"] == "DENY" and len(answer.body) < 40_000
    assert page()[0] == answer.body
    assert server.post("/", {}).status == 405 and server.get("/page/models/none").status == 404


def test_what_the_page_is_told(server, pictures):
    told = server.get("/page/models/pictures").json
    (image,) = told["inputs"]
    assert (image["kind"], image["label"], told["classes"]) == ("picture", "image", ["dark", "light"])
    assert set(image["example"]) == {"b64"} and told["row_wise"]
    kinds = {one["name"]: (one["kind"], one["gaps"]) for one in server.get("/page/models/table").json["inputs"]}
    assert kinds == {"Weight_kg": ("number", False), "age": ("number", True), "town": ("text", False)}
    texts = {one["name"]: (one["kind"], one["example"]) for one in server.get("/page/models/texts").json["inputs"]}
    assert texts == {"count": ("number", None), "texts": ("values", None)}
    assert not server.get("/page/models/whole").json["row_wise"]


def test_pages_of_other_sites_are_refused(server, tmp_path):
    here, asked = f"127.0.0.1:{server.port}", {"instances": [[1, 2, 3]]}
    for headers, status in (
        ({"Host": "attacker.example"}, 421),
        ({"Host": f"attacker.example:{server.port}", "Origin": f"http://attacker.example:{server.port}"}, 421),
        ({"Host": "[::1"}, 421),
        ({"Host": here, "Origin": "https://attacker.example"}, 403),
        ({"Host": here, "Origin": "null"}, 403),
        ({"Host": here, "Origin": f"http://{here}"}, 200),
        ({"Host": f"localhost:{server.port}"}, 200),
        ({"Host": here}, 200),
    ):
        answer = server.post("/v1/models/double:predict", asked, **headers)
        assert answer.status == status, (headers, answer.body)
        assert "Access-Control-Allow-Origin" not in answer.headers
    for options in (ServeOptions(token="x" * 32), ServeOptions(auth="none"), ServeOptions(host="::", auth="none")):
        refuse_foreign_pages("models.example", "https://another.example", options)
    with pytest.raises(Refusal):
        refuse_foreign_pages("models.example", None, ServeOptions(host="::1"))
    with served({"double": write_double(tmp_path / "m")}, page="false") as client:
        assert client.get("/").status == client.get("/page/models/double").status == 404
        assert client.get("/openapi.json").status == 200


def test_the_openapi_document_is_valid_and_says_what_the_models_take(server):
    validate = pytest.importorskip("openapi_spec_validator").validate
    found = server.get("/openapi.json").json
    validate(found)
    asked = found["paths"]["/v1/models/table:predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    check = pytest.importorskip("jsonschema").Draft202012Validator({**asked, "components": found["components"]})
    row = {"age": None, "town": "Ulm", "Weight_kg": 1.5}
    assert check.is_valid({"instances": [row]}) and check.is_valid(
        {"inputs": {name: [one] for name, one in row.items()}}
    )
    for wrong in ({}, {"instances": []}, {"instances": [{**row, "Weight_kg": None}]}, {"instances": [{"town": "Ulm"}]}):
        assert not check.is_valid(wrong), wrong
    tensor = found["paths"]["/v2/models/double/infer"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    (x,) = tensor["properties"]["inputs"]["items"]["anyOf"]
    assert x["properties"]["datatype"] == {"const": "FP32"} and x["properties"]["shape"]["prefixItems"][1] == {
        "const": 3
    }
    assert "security" not in found
