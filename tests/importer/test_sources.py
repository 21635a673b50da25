"""Which files of a source are read, and what is said of the others: names, patterns, folders, packings, stores."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from pathlib import Path

import pytest

from tfscale.errors import DataCorrupt, DataMissing, UsageError
from tfscale.importer.dataset import import_data
from tfscale.importer.file_splits import splits_of
from tfscale.importer.import_request import parse_request
from tfscale.importer.recognise import look


def imported(tmp_path: Path, *words: str) -> Path:
    return import_data(parse_request([*words, "name=it", f"dir={tmp_path / 'data'}"]))


def rows(mark: str, count: int = 30) -> str:
    return "name,x\n" + "".join(f"{mark},{i}.5\n" for i in range(count))


def about(folder: Path) -> dict:
    return json.loads((folder / "import.json").read_text())


def columns(folder: Path) -> dict:
    return json.loads((folder / "columns.json").read_text())["columns"]


def count(folder: Path) -> int:
    return sum(split["examples"] for split in about(folder)["splits"].values())


def test_splits_by_the_names_of_files_or_a_word_why_not(messages):
    assert splits_of(["train.csv", "val.csv"]) == ["train", "validation"]
    assert splits_of(["flights_train-00000-of-00002.parquet", "flights_test.parquet"]) == ["train", "test"]
    assert splits_of(["eval/train.csv", "eval/test.csv"]) == ["train", "test"]  # both lie in eval/
    assert splits_of(["train/dev_notes.txt", "test/a.txt"]) == ["train", "test"]
    for names in (["a.csv", "b.csv"], ["test.csv"], ["test/1.csv", "test/2.csv"]):
        assert splits_of(names) is None
    assert splits_of(["the-training-of-horses.txt", "emma.txt"]) is None
    assert "no others are named so: the-training-of-horses.txt" in messages.text
    for names, told in (
        (
            ["train.csv", "test.csv", "extra.csv"],
            r"train.csv, test.csv are named like a split .*, and extra.csv is not",
        ),
        (["train/a.csv", "b.csv"], "train/a.csv is named like a split"),
        (["val.csv", "test.csv"], "named like test and validation, and none like train"),
    ):
        with pytest.raises(UsageError, match=told) as error:
            splits_of(names)
        assert "data.split.train=0.8" in error.value.fix


def test_files_beside_a_table_are_no_rows_of_it(tf, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "data.csv").write_text(rows("here", 10))
    (source / "more.csv").write_text(rows("here", 20))
    for name in ("README.txt", "LICENSE.txt", "notes.txt", "about.json"):
        (source / name).write_text("name,x\nnot a row,1\n")
    told = "files that are none of these tables: LICENSE.txt, README.txt, about.json, notes.txt"
    folder = imported(tmp_path, str(source))
    assert count(folder) == 30 and columns(folder)["name"]["type"] == "constant" and told in about(folder)["left_out"]
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        for file in sorted(source.iterdir()):
            packed.write(file, file.name)
    folder = imported(tmp_path, f"{tmp_path}/packed.zip", "fresh=true")
    assert count(folder) == 30 and told in about(folder)["left_out"]
    for extra in ("train.csv", "test.csv"):
        (source / extra).write_text(rows(extra))
    with pytest.raises(UsageError, match="and data.csv, more.csv are not"):
        imported(tmp_path, str(source), "fresh=true")
    pooled = imported(tmp_path, str(source), "fresh=true", "split.train=0.5", "split.test=0.5")
    assert count(pooled) == 90
    (source / "_delta_log").mkdir()
    (source / "_delta_log/0.json").touch()
    with pytest.raises(UsageError, match="a table of Delta Lake"):
        imported(tmp_path, str(source), "fresh=true")


def test_files_beside_texts_are_no_texts(tf, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("README.md", "a.txt", "b.txt", "c.pdf"):
        (source / name).write_text(f"this is {name}")
    folder = imported(tmp_path, str(source), "split.train=1")
    assert count(folder) == 2 and about(folder)["left_out"] == ["files that are none with texts: README.md, c.pdf"]
    (source / "c.jsonl").write_text('{"text": "one"}\n{"text": "other"}\n')
    folder = imported(tmp_path, str(source / "*l"), "split.train=1", "fresh=true")
    assert count(folder) == 2
    with pytest.raises(UsageError, match="take no effect|takes no effect without a label"):
        imported(tmp_path, str(source / "c.jsonl"), "drop_unlabelled=true", "fresh=true")


def test_no_file_of_a_folder_is_lost(tmp_path):
    folder = tmp_path / "many"
    (folder / "deep").mkdir(parents=True)
    for i in range(20_050):
        (folder / f"{i}.txt").touch()
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "linked.csv").touch()
    (other / "back").symlink_to(other)
    (folder / "deep/link").symlink_to(other)
    (folder / "again").symlink_to(folder / "deep")
    (folder / ".hidden").mkdir()
    (folder / ".hidden/no.csv").touch()
    names = look(str(folder)).names
    assert len(names) == 20_051 and "deep/link/linked.csv" in names


def test_signs_of_patterns_in_the_names_of_files(tf, tmp_path):
    source = tmp_path / "data[1]"
    source.mkdir()
    for name, mark in (("f[1].csv", "this"), ("f1.csv", "other"), ("a*?.csv", "star"), ("ab?.csv", "no")):
        (source / name).write_text(rows(mark))
    for name, mark in (("f[1].csv", "this"), ("a*?.csv", "star")):
        folder = imported(tmp_path, str(source / name), "fresh=true")
        assert count(folder) == 30
        shard = b"".join(file.read_bytes() for file in folder.glob("*.tfrecord*"))
        assert shard.count(mark.encode()) == 30


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl", "zip"])
def test_columns_that_folders_name(tf, tmp_path, form):
    import pyarrow as pa
    import pyarrow.parquet as pq

    ending = "csv" if form == "zip" else form
    for year, place in ((2012, "a b"), (2013, "c")):
        at = tmp_path / f"run=7/tables/year={year}/place={place.replace(' ', '%20')}"
        at.mkdir(parents=True)
        values = [year + i / 70 for i in range(20)]
        if form == "parquet":
            pq.write_table(pa.table({"x": values}), at / "part-0.parquet")
        elif ending == "csv":
            (at / "part-0.csv").write_text("x\n" + "".join(f"{one}\n" for one in values))
        else:
            (at / "part-0.jsonl").write_text("".join(json.dumps({"x": one}) + "\n" for one in values))
    source = tmp_path / "run=7/tables"
    words = [str(source), f"{source}/**/*.{ending}", f"{source}/*/*/part-0.{ending}"]
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
            for file in sorted(source.rglob("*.csv")):
                packed.write(file, str(file.relative_to(source)))
        words = [str(tmp_path / "packed.zip")]
    for one in words:
        folder = imported(tmp_path, one, "fresh=true")
        found = columns(folder)
        assert list(found) == ["x", "year", "place"] and count(folder) == 40, one
        assert found["year"]["quantiles"][0] == 2012 and found["year"]["quantiles"][-1] == 2013
        assert sorted(value for value, _ in found["place"]["vocabulary"]) == ["a b", "c"]
        assert all(int(value) == x for value, x in _records(tf, folder, "year", "x")), one


def _records(tf, folder: Path, *names: str):
    for file in folder.glob("*.tfrecord*"):
        for raw in tf.data.TFRecordDataset(str(file)):
            one = tf.io.parse_single_example(raw, {name: tf.io.FixedLenFeature([], tf.float32) for name in names})
            yield tuple(int(one[name].numpy()) for name in names)


def test_a_store_s_files_keep_their_folders(tf, tmp_path, messages):
    for split in ("train", "test"):
        at = tmp_path / f"bucket/{split}"
        at.mkdir(parents=True)
        (at / "part.csv").write_text(rows(split))
    for one in ("bucket/*/part.csv", "bucket/**", "bucket/**/*.csv", "bucket", "bucket/t*/*"):
        folder = imported(tmp_path, f"file://{tmp_path}/{one}", "fresh=true")
        splits = about(folder)["splits"]
        assert {name: split["examples"] for name, split in splits.items()} == {"train": 30, "test": 30}, one
        assert sorted(about(folder)["files"]["sha256"]) == ["test/part.csv", "train/part.csv"]
    with pytest.raises(DataMissing):
        imported(tmp_path, f"file://{tmp_path}/bucket/*/none.csv", "fresh=true")
    # What was imported before isn't copied again, unless somebody has written it since, or other keys are given
    source = f"file://{tmp_path}/bucket/t*/*"
    messages.clear()
    imported(tmp_path, source)
    assert "is there already" in messages.text and "copied" not in messages.text
    os.utime(tmp_path / "bucket/test/part.csv", (1, 1))
    imported(tmp_path, source)
    assert "copied 2 files" in messages.text and messages.text.count("is there already") == 2
    (tmp_path / "bucket/test/part.csv").write_text(rows("test") + rows("test").partition("\n")[2])
    with pytest.raises(UsageError, match="the files have changed"):
        imported(tmp_path, source)


def test_zst_is_read_as_gz_is(tf, tmp_path):
    import pyarrow as pa

    text = ",name\n" + "".join(f"{i},café {i % 3}\n" for i in range(30))
    for encoding in ("utf-8", "latin-1"):
        with pa.output_stream(str(tmp_path / "it.csv.zst"), compression="zstd") as out:
            out.write(text.encode(encoding))
        with gzip.open(tmp_path / "it.csv.gz", "wb") as out:
            out.write(text.encode(encoding))
        found = [columns(imported(tmp_path, f"{tmp_path}/it.csv.{end}", "fresh=true")) for end in ("zst", "gz")]
        assert found[0] == found[1] and found[0]["Unnamed: 0"]["type"] == "id"
        assert sorted(value for value, _ in found[0]["name"]["vocabulary"]) == ["café 0", "café 1", "café 2"]


def test_lines_of_json_that_are_not_alike(tf, tmp_path):
    lines = [{"x": i + 0.5, "code": i if i % 2 else "one, two", "any": [i] if i % 3 else i} for i in range(30)]
    file = tmp_path / "it.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = imported(tmp_path, str(file))
    assert set(columns(folder)) == {"x", "code"} and columns(folder)["code"]["type"] == "category"
    assert "one, two" in [value for value, _ in columns(folder)["code"]["vocabulary"]]  # without JSON's quotes
    assert about(folder)["left_out"] == ["the column any: it is JSON, and a table has one value a cell"]
    with file.open("a") as stream:
        stream.write("[1, 2]\n")
    with pytest.raises(DataCorrupt, match="a line is no JSON object"):
        imported(tmp_path, str(file), "fresh=true")


def test_names_of_classes_are_of_one_line(tf, tmp_path):
    (tmp_path / "it.csv").write_text("x,label\n" + "".join(f'{i},"two\nlines"\n{i},one\n' for i in range(20)))
    with pytest.raises(DataCorrupt, match="names are kept a line each"):
        imported(tmp_path, f"{tmp_path}/it.csv", "label=label")


def test_types_follow_from_the_rows_that_are_kept(tf, tmp_path):
    text = "kind,value\n" + "".join(f"{'ab'[i % 2]},{i}.5\n" for i in range(30)) + "total,many\n"
    (tmp_path / "it.csv").write_text(text)
    assert columns(imported(tmp_path, f"{tmp_path}/it.csv"))["value"]["type"] == "id"
    folder = imported(tmp_path, f"{tmp_path}/it.csv", "where=kind <> 'total'", "label=kind", "fresh=true")
    assert columns(folder)["value"]["type"] == "number" and count(folder) == 30
    assert about(folder)["left_out"] == ["1 rows for which data.where doesn't hold"]
    with pytest.raises(UsageError, match="takes no effect without a label"):
        imported(tmp_path, f"{tmp_path}/it.csv", "drop_unlabelled=true", "fresh=true")


def test_a_second_import_says_that_it_waits_and_a_killed_replacement_is_mended(cli, tf, tmp_path):
    (tmp_path / "it.csv").write_text(rows("first"))
    first = imported(tmp_path, f"{tmp_path}/it.csv")
    before = {file.name: file.read_bytes() for file in first.iterdir()}
    (tmp_path / "it.csv").write_text(rows("second"))
    command = ("data", "import", f"{tmp_path}/it.csv", "name=it", f"dir={tmp_path}/data")
    for fault, there in (("import.before_move:kill", True), ("import.between_names:kill", False)):
        done = cli(*command, "fresh=true", program=("-m", "tfscale"), environ={"TFSCALE_FAULT": fault})
        assert done.code == -9 and first.exists() is there, done.err
        assert there or "goes on: 3 of 3 files" in done.out
    done = cli(*command, program=("-m", "tfscale"))  # refused, since the files have changed; mended all the same
    assert done.code == 64 and "is there again" in done.out
    assert {file.name: file.read_bytes() for file in first.iterdir()} == before
    imported(tmp_path, f"{tmp_path}/it.csv", "fresh=true")
    assert sorted(os.listdir(tmp_path / "data")) == [".it.lock", "it"]


def test_rows_to_predict_are_read_as_the_training_s(tf, tmp_path):
    from tfscale.importer.raw_rows import RawRows

    file = tmp_path / "new.csv"
    told = {"columns": {"price": {"type": "number", "format": "1.234,5"}, "open": {"type": "boolean"},
                        "the_day": {"type": "date", "format": "%d.%m.%Y", "column": "the/day"}, "town": {"type": "category"}},
            "missing": ["", "none"]}  # fmt: skip
    used = ("price", "open", "town", "the_day")
    file.write_text("town;the/day;price;open;more\nKöln;03.02.2024;1.250,5;yes;1\nNA;none;;no;2\n")
    source = RawRows.of(str(file), told, used)
    source.check()
    indices = tf.data.Dataset.range(2).batch(2)
    first, second = source.read("test", indices, ram_bytes=0).as_numpy_iterator()
    assert (first["price"], first["open"]) == (1250.5, 1) and first["town"].decode() == "Köln"
    assert (first["the_day"], second["the_day"], second["town"], second["open"]) == (b"2024-02-03", b"", b"NA", 0)
    assert second["price"] != second["price"] and source.remarks() == ["columns that the model doesn't take: more"]
    file.write_text("town,the/day,price,open\nBonn,03.02.2024,5,yes\n")  # all of it texts, but for the names
    assert RawRows.of(str(file), told, used).num_examples("test") == 1
    for text, words in (
        ("town,the/day,price,opne\nBonn,03.02.2024,5,yes\n", "it has no column open; did you mean 'opne'"),
        ("town,the/day,price,open\nBonn,2024-02-03,much,maybe\n", 'row 1: column price: "much" is no number'),
        ("town,the/day,price,open\nBonn,03.02.2024,5,yes\na,b\n", "1 rows can't be read; the first: line 3"),
    ):
        file.write_text(text)
        with pytest.raises(DataCorrupt, match=words):
            RawRows.of(str(file), told, used)
    with pytest.raises(DataMissing, match="no file, folder or pattern") as error:
        RawRows.of(f"{tmp_path}/none.csv", told, used)
    assert error.value.where == "input"
