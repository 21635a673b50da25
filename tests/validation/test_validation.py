"""`tfscale data validate`: every kind of finding is named, and equal data pass."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from tfscale.__main__ import main
from tfscale.statistics.findings import ks_distance
from tfscale.validation.leakage import told_by

ROWS = 2000


def rows(seed=0, **changed):
    """Columns of a small table of flights."""
    random = np.random.RandomState(seed)
    delay = random.exponential(20, ROWS) - 10
    found = {
        "delay": delay.round(1),
        "distance": random.randint(100, 3000, ROWS),
        "carrier": random.choice(["AA", "BB", "CC"], ROWS, p=[0.5, 0.3, 0.2]),
        "when": [f"2013-01-{day:02}" for day in random.randint(1, 29, ROWS)],
        "place": ["LGA"] * ROWS,
        "late": np.where(delay + random.normal(0, 30, ROWS) > 15, "late", "on time"),
    }
    return {**found, **changed}


def written(path, columns):
    with path.open("w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    return str(path)


def found(*words, folder):
    """(the exit code, {(column, kind): text} of what fails, the same of what is only told)."""
    output = folder / "findings.json"
    output.unlink(missing_ok=True)
    code = main(
        ["data", "validate", *words, "noise=none", f"output={output}", "data.label=late", f"data.dir={folder / 'data'}"]
    )
    told = json.loads(output.read_text())
    return code, *(
        {(o["column"], o["kind"]): o["text"] for o in told if o["fails"] is fails} for fails in (True, False)
    )


def test_each_difference_is_named(tf, tmp_path, capsys):
    base = written(tmp_path / "base.csv", rows())
    assert found(written(tmp_path / "same.csv", rows(1)), f"against={base}", folder=tmp_path)[:2] == (0, {})

    new = rows(2)
    gaps = np.where(np.arange(ROWS) % 5 == 0, "", new["distance"].astype(str))
    renamed = {("delays" if name == "delay" else name): value for name, value in new.items()}
    carriers = np.where(new["carrier"] == "CC", "DD", new["carrier"])
    changed = {
        **renamed,
        "distance": gaps,
        "carrier": carriers,
        "place": ["JFK"] * ROWS,
        "late": ["on time", "maybe"] * 1000,
    }
    changed["when"] = ["2013-07-04", "2013-07-05"] * 1000
    code, failing, told = found(written(tmp_path / "new.csv", changed), f"against={base}", folder=tmp_path)
    assert code == 1
    assert set(failing) == {
        ("delay", "missing column"), ("delays", "new column"), ("distance", "gaps"),
        ("carrier", "unseen values"), ("carrier", "drift"), ("place", "drift"), ("late", "class"),
    }  # fmt: skip
    assert "did you mean 'delays'?" in failing["delay", "missing column"]
    assert "'JFK'" in failing["place", "drift"] and "'DD'" in failing["carrier", "unseen values"]
    assert "20.0% are missing" in failing["distance", "gaps"] and set(told) == {("when", "range")}
    classes = (tmp_path / "findings.json").read_text()
    assert "the class 'late' has no example" in classes and "the class 'maybe' is none of the base's" in classes
    assert "'CC' has a share of 0.0%" in failing["carrier", "drift"]
    assert "fails: 8 findings" in capsys.readouterr().out


def test_a_label_that_a_column_tells_and_a_type_that_changed(tf, tmp_path):
    base = rows()
    code, failing, _ = found(written(tmp_path / "base.csv", base), folder=tmp_path)
    assert (code, failing) == (0, {})
    leaky = {**base, "note": np.where(base["late"] == "late", "claim paid", "nothing")}
    code, failing, _ = found(written(tmp_path / "leaky.csv", leaky), folder=tmp_path)
    assert code == 1 and set(failing) == {("note", "leak")} and "100.0%" in failing["note", "leak"]
    assert found(str(tmp_path / "leaky.csv"), "leak=1.1", folder=tmp_path)[0] == 0

    broken = (tmp_path / "base.csv").read_text() + "1,2,3,4,5,6,7,8,9\n"
    (tmp_path / "broken.csv").write_text(broken)
    code, failing, _ = found(str(tmp_path / "broken.csv"), folder=tmp_path)
    assert code == 1 and "line 2002" in failing["", "bad rows"]
    texts = {**base, "delay": [f"{one} min" for one in base["delay"]]}
    few = {name: value[:30] for name, value in base.items()}  # too few rows to see what a column is
    against = f"against={tmp_path / 'base.csv'}"
    code, failing, _ = found(written(tmp_path / "texts.csv", texts), against, folder=tmp_path)
    assert code == 1 and ("delay", "type") in failing
    _, failing, _ = found(written(tmp_path / "few.csv", few), against, "drift=0.5", folder=tmp_path)
    assert not [key for key in failing if key[1] == "type"]


def test_the_splits_of_a_data_set_are_compared_with_its_training_split(tf, tmp_path, capsys):
    data = rows()
    data["month"] = np.repeat([1, 2, 3, 4], ROWS // 4)
    data["delay"] = data["delay"] + 100 * (data["month"] == 4)
    path, folder = written(tmp_path / "flights.csv", data), f"data.dir={tmp_path / 'data'}"
    split = ["data.split.train=month <= 2", "data.split.validation=month = 3", "data.split.test=month = 4"]
    assert (
        main(["data", "import", path, "name=flights", folder, "data.label=late", "data.exclude=[month]", *split]) == 0
    )
    code, failing, _ = found("flights", folder=tmp_path)
    assert code == 1 and set(failing) == {("delay", "drift")} and "split test" in failing["delay", "drift"]
    code, failing, _ = found(path, "against=flights", folder=tmp_path)
    assert code == 1 and set(failing) == {("delay", "drift")}  # the label and month are left out, as by the import
    named = written(tmp_path / "rowid.csv", {"rowid": range(30), "late": ["yes", "no"] * 15})
    assert main(["data", "import", named, "name=rowid", folder]) == 64 and "rowid" in capsys.readouterr().err
    assert main(["data", "validate", "flihgts", folder]) == 64
    assert "did you mean 'flights'?" in capsys.readouterr().err


def test_the_measures():
    random = np.random.RandomState(0)
    grid = np.linspace(0, 1, 101)
    a, b = random.normal(size=20000), random.normal(0.5, size=20000)
    exact = max(abs((a <= x).mean() - (b <= x).mean()) for x in np.linspace(-4, 4, 400))
    assert ks_distance(np.quantile(a, grid), np.quantile(b, grid)) == pytest.approx(exact, abs=0.015)
    assert ks_distance([1.0] * 101, [1.0] * 101) == 0 and ks_distance([1.0] * 101, [2.0] * 101) == 1

    label = random.randint(0, 2, 4000)
    assert told_by(np.array(["a", "b"], object)[label], label, classes=2) == 1
    assert told_by(np.arange(4000).astype(str).astype(object), label, classes=2) < 0.05  # a name of each row
    assert told_by(random.normal(size=4000), label, classes=2) < 0.1
    noisy = np.where(random.uniform(size=4000) < 0.1, 1 - label, label).astype(float)
    assert told_by(noisy, label, classes=2) == pytest.approx(0.8, abs=0.05)
    number = random.normal(size=4000)
    assert told_by(np.where(number > 0, np.nan, number * 3), number) > 0.6 and told_by(number * 2, number) > 0.99


def test_several_labels_and_a_column_that_records_call_otherwise(tf, tmp_path):
    random = np.random.RandomState(3)
    table = {"km/h": random.rand(400) * 50, "wet": random.rand(400) > 0.5, "cold": random.rand(400) > 0.7}
    label, folder = "data.label=[wet, cold]", f"data.dir={tmp_path / 'data'}"
    assert main(["data", "import", written(tmp_path / "it.csv", table), "name=it", label, folder]) == 0
    assert main(["data", "validate", "it", folder, "drift=0.5", "noise=none"]) == 0
    other = written(tmp_path / "other.csv", {**table, "km/h": random.choice(["slow", "fast"], 400)})
    output = tmp_path / "told.json"
    assert main(["data", "validate", other, "against=it", folder, "noise=none", f"output={output}"]) == 1
    assert [(o["column"], o["kind"]) for o in json.loads(output.read_text()) if o["fails"]] == [("km_h", "type")]
