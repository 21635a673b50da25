"""`tfscale data inspect`: the page of a data set, looked at in a browser where there is one."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from support.browser import loaded_from_outside, seen, width_on

from tfscale.__main__ import main


def test_a_page_of_a_table(tf, tmp_path, capsys):
    random = np.random.RandomState(0)
    rows = {
        "age": random.randint(20, 60, 400),
        "town": random.choice(["Bonn", "<b>Köln</b>", "Ulm"], 400, p=[0.6, 0.3, 0.1]),
        "joined": [f"2020-{month:02}-01" for month in random.randint(1, 13, 400)],
        "stays": random.choice(["yes", "no"], 400, p=[0.7, 0.3]),
    }
    file = tmp_path / "people.csv"
    with file.open("w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(rows)
        out.writerows(zip(*rows.values(), strict=True))
    folder = f"data.dir={tmp_path / 'data'}"
    assert main(["data", "import", str(file), "name=people", folder, "data.label=stays"]) == 0
    page = tmp_path / "people.html"
    assert main(["data", "inspect", "people", folder, f"output={page}", "examples=50"]) == 0
    html = page.read_text()
    assert not loaded_from_outside(html) and "<b>Köln" not in html and "&lt;b&gt;Köln" in html
    assert html.count("<svg") >= 3  # the classes, ages and towns
    for text in ("<td>320</td>", "<h3>joined</h3>", "2020-01-01 to 2020-12-01", "<dd>3</dd>"):
        assert text in html, text
    capsys.readouterr()
    assert main(["data", "inspect", "peopel", folder]) == 66 and "people" in capsys.readouterr().err
    assert main(["data", "inspect", "people", folder, "augment=foto"]) == 64
    shown = seen(page, tmp_path, "--dump-dom")
    assert "of 50 entries" in shown and "Add Condition" in shown  # sorted and filtered by DataTables
    body = shown.partition("Add Condition")[2].partition("<tbody>")[2].partition("</tbody>")[0]
    assert body.count("<tr") == 10 and "2020-" in body
    assert 300 < width_on(390, page, tmp_path) <= 390


@pytest.mark.parametrize("kind", ["classes", "boxes", "masks"])
def test_a_page_of_pictures(tf, tmp_path, kind):
    image = pytest.importorskip("PIL.Image")
    source, random = tmp_path / "source", np.random.RandomState(0)

    def draw(path, size=(40, 30)):
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(random.randint(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)

    if kind == "classes":
        for name in ("cat", "dog"):
            for number in range(10):
                draw(source / name / f"{number}.png")
    elif kind == "boxes":
        objects = [{"id": n, "image_id": n, "category_id": 1, "bbox": [10, 6, 20, 15]} for n in range(10)]
        images = [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in range(10)]
        for one in images:
            draw(source / "images" / one["file_name"])
        (source / "annotations").mkdir()
        about = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "hen"}]}
        (source / "annotations" / "instances_train.json").write_text(json.dumps(about))
    else:
        for number in range(10):
            draw(source / "images" / f"{number}.png")
            (source / "masks").mkdir(exist_ok=True)
            image.fromarray(np.ones((30, 40), np.uint8)).save(source / "masks" / f"{number}.png")
    folder, page = f"data.dir={tmp_path / 'data'}", tmp_path / "page.html"
    assert main(["data", "import", str(source), "name=pictures", folder]) == 0
    assert main(["data", "inspect", "pictures", folder, f"output={page}", "examples=6"]) == 0
    html = page.read_text()
    assert not loaded_from_outside(html)
    assert html.count("<figure>") == 6 and html.count("data:image/jpeg;base64,") == 18  # each, and two looks of it
    if kind == "classes":
        assert 300 < width_on(390, page, tmp_path) <= 390
        assert html.count("<b>cat</b>") == html.count("<b>dog</b>") == 3
        shown = ["data", "inspect", "pictures", folder, f"output={page}", "examples=2"]
        assert main([*shown, "augment=[photos,{colour:{hue:0.2}},erase]"]) == 0 and "hue:0.2" in page.read_text()
        assert main([*shown, "augment=[photos,mixup]"]) == 64
    if kind == "boxes":
        assert html.count("left:25.00%;top:20.00%;width:50.00%;height:50.00%") == 6 and "<span>hen</span>" in html
    if kind == "masks":
        assert main(["data", "inspect", "pictures", folder, f"output={page}", "examples=1", "augment=none"]) == 0
        assert page.read_text().count("data:image/jpeg;base64,") == 1
