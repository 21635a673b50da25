"""`tfscale report` on real run folders: one run, two beside each other, and what is torn, foreign or made to hurt."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support import warm
from support.browser import loaded_from_outside, width_on
from support.dense_models import environ
from support.fault_rows import tiny_job

from tfscale.__main__ import main
from tfscale.run_dir.folder import RunDir
from tfscale.run_folders.runs_table import figure
from tfscale.run_report import run_history
from tfscale.run_report.run_history import MOST_POINTS, RunHistory, Series, points

HOSTILE = "<script>alert(1)</script>"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """dense/quick and dense/slow: complete, of four epochs, evaluated in each."""
    root = tmp_path_factory.mktemp("reported") / "runs"
    root.mkdir()
    begun = []
    for name, more in (("quick", ()), ("slow", ("optimizer.learning_rate=0.01",))):
        job = tiny_job("run.recipe=dense", *more, steps=20, run_dir=root / "dense" / name)
        job = [f"eval.every={5}st" if word.startswith("eval.every") else word for word in job]
        command = [sys.executable, "-m", "tfscale.train", *job]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        begun.append(warm.Popen(command, cwd=root.parent, env=environ(), **quiet))
    assert [process.wait(120) for process in begun] == [0, 0]
    yield root


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The folder of one run, to be spoilt."""
    return shutil.copytree(root / "dense" / "quick", tmp_path / "runs" / "dense" / "quick")


def reported(page: Path, *words: object) -> str:
    """The page, once the program has ended well."""
    assert main(["report", *map(str, words), "--output", str(page)]) == 0
    text = page.read_text()
    assert not loaded_from_outside(text) and "<script" not in text and "\x1b" not in text
    return text


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def cells(text: str, title: str) -> list[str]:
    """Of the first row that begins so."""
    found = re.search(rf"<tr><th>{re.escape(html.escape(title))}</th>(.*?)</tr>", text, re.S)
    assert found, title
    return [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)(?:</td>|<div)", found[1], re.S)]


def figures(text: str) -> dict[str, str]:
    """The plots by their titles."""
    return dict(re.findall(r"<figure><figcaption>(.*?)</figcaption>(.*?)</figure>", text, re.S))


# -- one run


def test_a_page_of_a_run(root, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    text = reported(page, "quick", f"run.root={root}")
    said = capsys.readouterr().out
    assert str(page) in said and len(said.splitlines()) == 1
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]
    folder = root / "dense/quick"
    result, plan = (json.loads((folder / name).read_text()) for name in ("result.json", "plan.json"))
    assert cells(text, "best accuracy") == [figure(result["best"]["value"])]
    assert cells(text, "test loss") == [figure(result["metrics"]["loss"])]
    assert cells(text, "examples/s") == [figure(result["examples_per_second"])]
    assert cells(text, "state") == ["complete"] and cells(text, "step") == ["20/20"]
    assert cells(text, "strategy") == [plan["strategy"], plan["reasons"]["strategy"]]
    assert cells(text, "hardware") == [plan["reasons"]["accelerator"]]
    assert cells(text, "optimizer.learning_rate") == ["0.1"]
    assert cells(text, "folder") == [str(folder)] and cells(text, "last checkpoint")[0].endswith("step-000000020")
    assert cells(text, "1")[3:] == ["0 to 20", "0", "ended well"] and re.match(r"\d{4}-\d\d-\d\d ", cells(text, "1")[0])
    spent, goodput = cells(text, "training that was kept")[0], result["goodput"]
    seconds, _, share = spent.removesuffix(" %").partition(" s, ")
    assert seconds == figure(goodput["productive_seconds"])
    assert float(share) == pytest.approx(100 * goodput["share"], abs=2)  # the log goes on behind the result
    assert "bounded by " in text
    plots = figures(text)
    assert list(plots) == ["loss", "accuracy", "learning_rate", "examples/s", "share of the time that waits for input"]
    assert "training" in plots["loss"] and "test" in plots["loss"] and ">epoch<" in plots["loss"]
    assert ">0.10<" in plots["learning_rate"], "what stays the same is told by its own value"
    assert "not finite" not in text and "thinned" not in text


def test_curves_hold_what_was_reported(root):
    history = RunHistory.read(root / "dense/quick")
    rows = rows_of(root / "dense/quick")
    for part, name in (("train", "loss"), ("test", "accuracy"), ("train", "learning_rate")):
        told = [(row["epoch"], row[name]) for row in rows if row["kind"] == part]
        assert points(history.series[part, name], "epoch", None) == told and told
    assert len(history.series["train", "loss"].values) == 20 and len(history.series["test", "loss"].values) == 4
    assert history.remarks == []


def test_no_tensorflow_and_a_name_of_its_own(root, cli, tmp_path):
    program = ("-c", f"{warm.LIGHT}from tfscale.__main__ import main; sys.exit(main())")
    ended = cli("report", f"run.dir={root / 'dense/quick'}", program=program, cwd=tmp_path)
    assert ended.code == 0 and "dense-quick.html" in ended.out, ended.err
    assert "<h1>dense/quick</h1>" in (tmp_path / "dense-quick.html").read_text()


# -- several


def test_two_runs_beside_each_other(root, tmp_path):
    page = tmp_path / "page.html"
    text = reported(page, "quick", root / "dense/slow", f"run.root={root}")
    results = [json.loads((root / "dense" / name / "result.json").read_text()) for name in ("quick", "slow")]
    assert cells(text, "test loss") == [figure(result["metrics"]["loss"]) for result in results]
    differing = text.partition("<h2>Configuration</h2>")[2].partition("<details>")[0]
    assert re.findall(r"<tr><th>([\w.]+)</th>", differing) == ["key", "optimizer.learning_rate"]
    assert cells(differing, "optimizer.learning_rate") == ["0.1", "0.01"]
    assert "They were planned alike" in text and text.count("with its reasons</summary>") == 2
    loss = figures(text)["loss"]
    assert "dense/quick" in loss and "dense/slow" in loss
    lines = re.findall(r'<path[^>]*aria-roledescription="line mark"[^>]*>', loss)
    looks = [tuple(_of(name, line) for name in ("stroke", "stroke-dasharray", "stroke-width")) for line in lines]
    colours, dashes, widths = (set(found) for found in zip(*looks, strict=True))
    assert len(set(looks)) == len(looks) == 4 and len(colours) == len(dashes) == len(widths) == 2, looks
    assert 300 < width_on(390, page, tmp_path) <= 390


def _of(name: str, element: str) -> str:
    found = re.search(rf'(?<![\w-]){name}="([^"]*)"', element)
    return found[1] if found else ""


def test_one_run_named_twice_has_two_names(root, tmp_path):
    text = reported(tmp_path / "page.html", "quick", "quick", f"run.root={root}")
    assert "<th>dense/quick (2)</th>" in text and "They were configured alike" in text


# -- what is unfinished, torn or made to hurt


def test_a_run_that_has_reported_nothing_yet(copy, tmp_path):
    for name in ("metrics.jsonl", "result.json", "plan.json"):
        (copy / name).unlink()
    shutil.rmtree(copy / "checkpoints")
    log = (copy / "attempts.jsonl").read_text().splitlines()[0]
    (copy / "attempts.jsonl").write_text(f"{log}\n")
    text = reported(tmp_path / "page.html", copy)
    assert "Nothing was reported that can be read" in text and "There is no plan" in text and "<svg" not in text
    assert cells(text, "state")[0].startswith("stopped: killed; begins again")
    assert cells(text, "1")[4:] == ["", "killed, out of memory, or its machine is gone"]


def test_a_run_that_trains_now(copy, tmp_path):
    log = [line for line in (copy / "attempts.jsonl").read_text().splitlines() if '"ended"' not in line]
    (copy / "attempts.jsonl").write_text("".join(f"{line}\n" for line in log))
    (copy / "result.json").unlink()
    with RunDir(copy).claimed():
        text = reported(tmp_path / "page.html", copy)
    assert cells(text, "state") == ["training"] and cells(text, "epochs") == ["4"]
    assert cells(text, "1")[1] == "" and cells(text, "1")[3:] == ["0 to 20", "", "at work now"]


def test_a_loss_that_is_not_finite(copy, tmp_path):
    rows = rows_of(copy)
    for row in rows:
        if row["kind"] == "train":
            row |= {"loss": "NaN" if row["step"] in (8, 9) else row["loss"], "penalty": "Infinity"}
    (copy / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    text = reported(tmp_path / "page.html", copy)
    assert "<li>train loss is not finite in 2 of 20 reports, first at step 8</li>" in text
    plots = figures(text)
    assert "No value of it is finite" in plots["penalty"] and "NaN" not in plots["loss"]
    longest = max(re.findall(r' d="(M[^"]*)"', plots["loss"]), key=len)
    assert longest.count("M") == 2, "the line has one gap"


def test_a_long_history_is_thinned(copy, tmp_path):
    def value(step: int) -> float:
        return 99.0 if step == 61_234 else math.exp(-step / 3e4) + 0.01 * math.sin(step)

    with (copy / "metrics.jsonl").open("w") as stream:
        for step in range(1, 100_001):
            row = {"step": step, "epoch": step / 5, "kind": "train", "loss": value(step), "examples_per_second": 1e3}
            stream.write(f"{json.dumps(row)}\n")
    text = reported(tmp_path / "page.html", copy)
    assert "The longest curve has 100,000 points" in text and len(text) < 500_000
    shown = points(RunHistory.read(copy).series["train", "loss"], "step", None)
    assert 300 < len(shown) <= MOST_POINTS and (61_234, 99.0) in shown
    assert shown == sorted(shown) and (shown[0][0], shown[-1][0]) == (1, 100_000)


class Seen(HTMLParser):
    """Tags and attributes as a browser finds them."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_hostile_names_and_texts_are_text(copy, tmp_path):
    folder = copy.rename(copy.with_name('<b onclick="x">\x1b[31m'))
    for name in ("metrics.jsonl", "attempts.jsonl"):
        lines = (folder / name).read_text()
        (folder / name).write_text(
            lines.replace('"accuracy"', json.dumps(HOSTILE)).replace('"what": ""', '"what": "\\u001b<i>"')
        )
    log = (folder / "attempts.jsonl").read_text()
    (folder / "attempts.jsonl").write_text(log.replace('"code": 0', '"code": 70'))
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**plan, HOSTILE: [HOSTILE], "reasons": {"strategy": HOSTILE}}))
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(
        f"{config}\nextra: {{'{HOSTILE}': 'https://me:geheim12@host/x', password: hunter2}}\n"
    )
    (folder / "shown").mkdir()
    (folder / "shown" / "<u>.png").write_bytes(PNG)
    (folder / "shown" / "page.svg").write_text("<svg onload='alert(1)'/>")
    text = reported(tmp_path / "page.html", folder)
    found = Seen(text)
    assert not found.tags & {"script", "b", "i", "u", "iframe", "link"}, found.tags
    assert not {name for name in found.attributes if name.startswith("on")}
    assert text.count(html.escape(HOSTILE)) >= 4 and "\\x1b&lt;i&gt;" in text and "\\x1b[31m" in text
    assert "hunter2" not in text and "geheim12" not in text
    assert text.count('src="data:image/png;base64,') == 1 and text.count("<img") == 1
    assert cells(text, "strategy")[1] == HOSTILE


@pytest.mark.parametrize("kind", ["torn", "links", "nothing", "odd"])
def test_a_damaged_run(copy, tmp_path, kind):
    outside = tmp_path / "precious"
    outside.write_text('{"password": "hunter2hunter2"}\n')
    if kind == "torn":
        (copy / "result.json").write_text('{"status": "comp')
        (copy / "plan.json").write_text("[1]")
        with (copy / "metrics.jsonl").open("a") as stream:
            stream.write('\xff\n[]\n{"step": "x", "kind": "train"}\n{"step": 1e999, "kind": "train"}\n{"step": 21, "ki')
    elif kind == "links":
        for name in ("metrics.jsonl", "plan.json", "attempts.jsonl"):
            (copy / name).unlink()
            (copy / name).symlink_to(outside)
    elif kind == "nothing":
        (copy / "result.json").write_text("[]")
        (copy / "config.yaml").write_text("- 1\n")
    else:
        odd = {"status": ["x"], "best": {"step": 1, "value": 10**400}, "verdict": {"share": "x"}, "seconds": [1]}
        (copy / "result.json").write_text(json.dumps({**odd, "data": [1], "experiment": 3}))
        (copy / "plan.json").write_text(
            json.dumps({"reasons": [], "input_ram_bytes": 10**400, "prefetch": {"a": None}})
        )
        (copy / "attempts.jsonl").write_text(
            '{"kind": "ended", "attempt": 1, "wall": 1e300, "elapsed": -1e300, "code": 1, "step": 2}\n'
        )
    text = reported(tmp_path / "page.html", copy)
    assert "hunter2" not in text
    if kind != "odd":
        assert cells(text, "state")[0].startswith("damaged: ")
    if kind == "torn":
        assert "4 lines of metrics.jsonl say nothing that can be read" in text and "plan.json is no JSON object" in text
        assert "loss" in figures(text)
    if kind == "links":
        assert (
            text.count("a run folder holds plain files only") >= 3 and "Nothing was reported that can be read" in text
        )
    if kind == "odd":
        assert cells(text, "1")[:2] == ["unknown", "unknown"]


def test_an_evaluator_beside_the_training_is_a_curve_too(copy):
    (copy / "evaluator.jsonl").write_text(
        '{"step": 20, "kind": "evaluator", "loss": 0.5}\n{"step": 10, "kind": "evaluator", "loss": 0.7}\n'
    )
    history = RunHistory.read(copy)
    assert points(history.series["evaluator", "loss"], "epoch", history.epochs_per_step) == [(2.0, 0.7), (4.0, 0.5)]
    assert history.series["evaluator", "loss"].last == 0.5


def test_bounds_of_what_is_read(copy, monkeypatch):
    monkeypatch.setattr(run_history, "_MOST_LINES", 3)
    monkeypatch.setattr(run_history, "_MOST_SERIES", 2)
    history = RunHistory.read(copy)
    assert len(history.series) == 2 and len(history.series["train", "loss"].values) == 3
    assert history.remarks == [
        "more than 2 figures are told; the first are shown",
        "metrics.jsonl has more than 3 lines; the first are shown",
    ]


def test_thinning_keeps_gaps():
    series = Series()
    for step in range(5000):
        series.add(step, math.nan, math.nan if 1000 <= step < 1003 else float(step))
    shown = points(series, "step", None)
    assert (1000, None) in shown and len(shown) <= MOST_POINTS


# -- what is refused


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 64, "no run is named"),
        (["quik"], 66, "did you mean 'quick'?"),
        (["quick", "run.root=none"], 66, "can't be read: No such file"),
        (["quick", "output=page.txt"], 64, "page.txt is no page's name"),
        (["quick", "--output", "config.yaml/page.html"], 73, "can't be written"),
        (["quick"] * 65, 64, "65 runs are more than one page can tell apart"),
        (["quick", "--outptu=x"], 64, "did you mean '--output'?"),
    ],
)
def test_what_is_refused(copy, capsys, monkeypatch, words, code, said):
    monkeypatch.chdir(copy.parents[2])
    Path("config.yaml").touch()
    assert main(["report", *words]) == code and said in capsys.readouterr().err
    assert not list(Path().glob("*.html"))
