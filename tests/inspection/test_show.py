"""`tfscale data show` and `tfscale.inspect_data`: the page's figures in a terminal, a program and a notebook."""

from __future__ import annotations

import os
import re
import sys
import threading

import numpy as np
import pytest

import tfscale
from tfscale.__main__ import main
from tfscale.errors import DataMissing, UsageError

TOWNS = ["Bonn", "<b>Köln</b>", "\x1b[31mUlm\x1b]0;x\x07"]  # the last would colour the terminal, and name its window


@pytest.fixture(scope="module")
def people(tf, made_once):
    """A folder of data with a table in it: 400 rows of six columns."""

    def make(folder):
        import pandas as pd

        random = np.random.RandomState(0)
        frame = pd.DataFrame(
            {
                "id": np.arange(400),
                "age": random.randint(20, 60, 400),
                "income": np.where(np.arange(400) % 10, random.lognormal(10, 1, 400), np.nan),
                "town": random.choice(TOWNS, 400, p=[0.6, 0.3, 0.1]),
                "joined": [f"2020-{month:02}-01" for month in random.randint(1, 13, 400)],
                "planet": "Earth",
                "stays": random.choice(["yes", "no"], 400, p=[0.7, 0.3]),
            }
        )
        tfscale.import_table(frame, "people", label="stays", dir=str(folder))

    return made_once("shown-people", make)


def shown(capsys, *words):
    """What the program prints, once it has ended well."""
    code = main(["data", "show", *words])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def test_a_table_in_a_terminal_of_80_columns(tf, people, capsys):
    folder = f"data.dir={people}"
    text = shown(capsys, "people", folder, "examples=2")
    assert (
        max(len(line) for line in text.splitlines() if str(people) not in line) <= 80
        and "\x1b" not in text
        and "\x07" not in text
    )
    for line in (
        r"people: 400 rows of a table\n",
        r"│ train +│ 320 +│",
        r"┃ stays ┃ train",  # the shares of the classes
        r"│ yes +│ 6\d\.\d%",
        r"│ age +│ number +│ mean 3\d.*[▁-█]{5}",
        r"│ town +│ category +│ values 3, Bonn \d+, <b>Köln</b> \d+",
        r"│ joined +│ date +│ 2020-01-01 to 2020-12-01",
        r"│ planet +│ constant +│ Earth",
        r"examples of train: 2 of 320",
        r"│ label +│ (yes|no) +│",
    ):
        assert re.search(line, text), line
    chosen = shown(
        capsys, "people", folder, "split=test", "label=yes", "where=age > 30 AND income IS NULL", "examples=50"
    )
    told = re.search(r"examples of test with label=yes where=age > 30 AND income IS NULL: (\d+) of (\d+)", chosen)
    assert told and told[1] == told[2] and 0 < int(told[1]) < 40
    assert set(re.findall(r"│ label +│(.*)│", chosen)[0].replace("│", " ").split()) == {"yes"}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["peopel"], 66, "did you mean 'people'"),
        ([], 64, "no data set was named"),
        (["people", "other"], 64, "one is looked at"),
        (["people", "splitt=test"], 64, "did you mean 'split'"),
        (["people", "split=tset"], 64, "did you mean 'test'"),
        (["people", "label=ye"], 64, "did you mean 'yes'"),
        (["people", "where=agee > 3"], 64, "agee"),
        (["people", "where=age > 3 FROM x"], 64, "where"),
        (["people", "where=age IN (SELECT 1 FROM read_csv('/etc/passwd'))"], 64, "where"),
        (["people", "where=age > 300"], 66, "no example of the split train fits where=age > 300"),
        (["people", "examples=0"], 64, "examples=100"),
        (["people", "augment=photos"], 64, "unknown key"),
    ],
)
def test_what_it_refuses(tf, people, capsys, words, code, says):
    assert main(["data", "show", *words, f"data.dir={people}"]) == code
    assert says in capsys.readouterr().err


def test_the_same_figures_in_a_program(tf, people, capsys):
    seen = tfscale.inspect_data("people", dir=str(people), where="town = 'Bonn'", examples=3)
    figures = seen.figures
    assert figures["kind"] == "table" and figures["splits"]["train"] == {"examples": 320, "files": 1}
    assert sum(figures["classes"]["train"].values()) == 320
    ages = figures["columns"]["age"]
    assert 38 < ages["mean"] < 42 and sum(ages["chart"]["counts"]) == 320 and len(ages["chart"]["edges"]) == 31
    assert figures["columns"]["income"]["missing"] == 320 - sum(figures["columns"]["income"]["chart"]["counts"])
    assert [one["town"] for one in seen.examples] == ["Bonn"] * 3
    assert str(seen) == shown(capsys, "people", f"data.dir={people}", "where=town = 'Bonn'", "examples=3")
    html = seen._repr_html_()
    assert html.count("<svg") == 4 and "<b>Köln" not in html and "&lt;b&gt;Köln" in html  # classes, age, income, town
    assert html.count("<td>Bonn</td>") == 3
    # Nothing that reaches beyond it in a notebook: no script, no id, no link, no style of others
    assert not re.search(r"<script|<link|\bid=|\bon\w+=|@import|url\(", html)
    [style] = re.findall(r"<style>(.*?)</style>", html, re.S)
    assert all(".tfscale-figures" in rule for rule in re.findall(r"([^{}]+)\{", style))
    with pytest.raises(DataMissing):
        tfscale.inspect_data("nobody", dir=str(people))
    with pytest.raises(UsageError):
        tfscale.inspect_data("people", dir=str(people), augment="foto")


def test_several_labels_at_once(tf, tmp_path, capsys):
    source = tmp_path / "days.csv"
    source.write_text("temperature,rain,wind\n" + "".join(f"{n}.5,{n % 2},{int(n % 5 == 0)}\n" for n in range(40)))
    folder = f"data.dir={tmp_path / 'data'}"
    assert main(["data", "import", str(source), "name=days", folder, "data.label=[rain, wind]", "split.train=1"]) == 0
    capsys.readouterr()
    text = shown(capsys, "days", folder, "label=wind", "examples=1", "where=list_contains(label, 'rain')")
    assert re.search(r"│ rain +│ 50.0% │\n│ wind +│ 20.0% │", text) and ": 1 of 4\n" in text
    assert re.search(r"│ label +│ rain, wind │", text)
    assert tfscale.inspect_data("days", dir=str(tmp_path / "data")).figures["classes"]["train"] == {
        "rain": 20,
        "wind": 8,
    }


def test_pictures_in_a_terminal(tf, tmp_path, capsys, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    for name, colour in (("cat", (200, 10, 10)), ("dog", (10, 10, 200))):
        (tmp_path / "source" / name).mkdir(parents=True)
        for number in range(10):
            image.new("RGB", (60, 40), colour).save(tmp_path / "source" / name / f"{number}.png")
    folder = f"data.dir={tmp_path / 'data'}"
    assert main(["data", "import", str(tmp_path / "source"), "name=pets", folder, "data.duplicates=keep"]) == 0
    capsys.readouterr()
    text = shown(capsys, "pets", folder, "label=dog", "examples=2")
    assert re.search(r"examples of train with label=dog: 2 of 8\b", text) and "widths 60 to 60" in text
    assert len(re.findall(r"│ dog +│ dog/\d\.png +│ 60 x 40 │", text)) == 2 and "▄" not in text
    assert main(["data", "show", "pets", folder, "where=1=1"]) == 64
    [first, *_] = tfscale.inspect_data("pets", dir=str(tmp_path / "data"), label="cat").examples
    assert first["label"] == "cat" and first["size"] == (60, 40) and first["image"][0, 0].tolist() == [200, 10, 10]
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    coloured = on_terminal(lambda: main(["data", "show", "pets", folder, "label=dog", "examples=2"]), monkeypatch)
    assert coloured.count("▄") == 2 * 24 * 8 and "48;2;10;10;200" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "▄" not in on_terminal(lambda: main(["data", "show", "pets", folder, "examples=1"]), monkeypatch)


def on_terminal(call, monkeypatch):
    """What it writes where standard output is a terminal."""
    master, slave = os.openpty()
    seen = []

    def read():
        while chunk := os.read(master, 65536):
            seen.append(chunk)
            if b"\x04end" in chunk:
                return

    reader = threading.Thread(target=read)
    reader.start()
    with open(slave, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert call() == 0
        stream.write("\x04end")
        stream.flush()
        reader.join(20)
    os.close(master)
    return b"".join(seen).decode(errors="replace")


@pytest.mark.slow
def test_a_notebook_shows_charts(people, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat

    book = nbformat.v4.new_notebook()
    first = f"import tfscale\nseen = tfscale.inspect_data('people', dir={str(people)!r}, examples=4)\nseen"
    book.cells = [nbformat.v4.new_code_cell(text) for text in (first, "seen", "seen.figures['splits']")]
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown_first, shown_again, numbers = (cell.outputs[-1].data for cell in book.cells)
    html = shown_first["text/html"]
    assert html.count("<svg") == 4 and html.count("<tr>") >= 4 + 5 and html == shown_again["text/html"]
    assert shown_first["text/plain"] == "<tfscale data set people: train 320, validation 40, test 40>"
    assert "'train': {'examples': 320, 'files': 1}" in numbers["text/plain"]
