"""A table as people have it becomes a data set: types, gaps, splits, a kill in the middle, and what is refused."""

from __future__ import annotations

import gzip
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tfscale.data.prepared import Prepared
from tfscale.errors import DataCorrupt, DataMissing, UsageError
from tfscale.importer.dataset import import_data
from tfscale.importer.import_request import parse_request

ROWS = 400
WORDS = ("the plane was late", "all went well today", "we waited for an hour", "nobody told us why")


def rows():
    """The columns of every type, with gaps; written as people and spreadsheets do."""
    drawn = np.random.default_rng(0)
    for i in range(ROWS):
        late = drawn.normal(10, 30)
        yield {
            "row_id": str(i),
            "code": f"X{i:05d}",
            "price": f"${1000 + 7 * i:,}.50" if i % 9 else "NA",
            "part": f"{i % 100}%",
            "size": "" if i % 10 == 3 else f"{drawn.normal():.3f}",
            "carrier": ("UA", "AA", "B6", "DL")[i % 4] if i % 50 else "",
            "open": ("yes", "no")[i % 2],
            "when": f"{1 + i % 28:02d}.{1 + i % 12:02d}.2013",
            "note": f"{WORDS[i % 4]}, said {i}",
            "year": "2013",
            "month": str(1 + i % 12),
            "zip": f"{i % 30:05d}",
            "delay": "" if i % 40 == 7 else f"{late:.0f}",
        }


def write_csv(file: Path, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    import csv

    with file.open("w", newline="", encoding=encoding) as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        table = list(rows())
        writer.writerows([list(table[0]), *(one.values() for one in table)])
    return file


def imported(tmp_path: Path, *words: str) -> Path:
    return import_data(parse_request([*words, f"dir={tmp_path / 'data'}"]))


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


LATE = ("name=late", "data.label=delay > 15", "drop_unlabelled=true")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return write_csv(tmp_path_factory.mktemp("table") / "late.csv")


@pytest.fixture(scope="module")
def late(tf, table, tmp_path_factory) -> Path:
    """The data set of the whole table."""
    return imported(tmp_path_factory.mktemp("late"), str(table), *LATE, "shards=3", "processes=1")


def test_every_column_has_its_type_and_its_statistics(late):
    about = json.loads((late / "columns.json").read_text())
    columns = about["columns"]
    assert {name: one["type"] for name, one in columns.items()} == {
        "row_id": "id", "code": "id", "price": "number", "part": "number", "size": "number", "carrier": "category",
        "open": "boolean", "when": "date", "note": "text", "year": "constant", "month": "number", "zip": "category",
    }  # fmt: skip
    counts = about["label"].pop("counts")
    assert about["label"] == {"name": "delay > 15", "kind": "class", "classes": ["false", "true"]}
    size, train = columns["size"], json.loads((late / "import.json").read_text())["splits"]["train"]["examples"]
    assert sum(counts) == train and 0 < counts[1] < counts[0]
    assert (
        0 < size["missing"] < train and len(size["quantiles"]) == 101 and size["quantiles"] == sorted(size["quantiles"])
    )
    assert abs(size["mean"]) < 0.3 and 0.7 < size["variance"] < 1.4
    counts = [count for _, count in columns["carrier"]["vocabulary"]]
    assert {value for value, _ in columns["carrier"]["vocabulary"]} == {"UA", "AA", "B6", "DL"}
    assert counts == sorted(counts, reverse=True) and sum(counts) + columns["carrier"]["missing"] == train
    assert columns["when"]["min"] >= "2013-01-01" and columns["when"]["max"] <= "2013-12-28"
    assert columns["price"]["quantiles"][-1] > 3000 and columns["part"]["quantiles"][-1] == 99


def test_it_is_read_back_by_our_source_and_by_tfds(tf, late):
    import tensorflow_datasets as tfds

    source = Prepared(dir=str(late.parents[1]), name="late")
    source.check()
    assert source.is_prepared() and source.class_names() == ("false", "true")
    (said,) = source.remarks()
    assert said == "what is called test is the split validation, and data.test_split=test evaluates the other"
    assert not Prepared(dir=str(late.parents[1]), name="late", test_split="test").remarks()
    assert source.spec()["num_classes"] == 2 and source.spec()["columns"]["label"]["name"] == "delay > 15"
    builder = tfds.builder_from_directory(str(late))
    theirs = {name: list(builder.as_dataset(name)) for name in builder.info.splits}
    assert source.num_examples("train") == len(theirs["train"]) and source.num_examples("test") == len(
        theirs["validation"]
    )
    indices = tf.data.Dataset.range(source.num_examples("train")).batch(64)
    ours = [source.parse(raw) for raw in source.read("train", indices, ram_bytes=2**30)]
    records = {int(one["row_id"]): {k: v.numpy() for k, v in one.items()} for one in ours}
    whole = list(rows())
    for i, record in records.items():
        row = whole[i]
        assert record["label"] == (float(row["delay"]) > 15)
        assert record["carrier"].decode() == row["carrier"] and record["code"].decode() == row["code"]
        assert math.isnan(record["size"]) if not row["size"] else record["size"] == np.float32(row["size"])
        assert math.isnan(record["price"]) if row["price"] == "NA" else record["price"] == 1000.5 + 7 * i
        assert record["open"] == (row["open"] == "yes")
        assert record["when"].decode() == "-".join(reversed(row["when"].split(".")))
    every = [int(one["row_id"]) for some in theirs.values() for one in some]
    assert sorted(every) == [i for i, row in enumerate(whole) if row["delay"]]
    # each split has its share of the classes
    shares = {name: sum(int(one["label"]) for one in some) / len(some) for name, some in theirs.items()}
    assert max(shares.values()) - min(shares.values()) < 0.02
    # and our own records are TFDS's to the byte
    features = builder.info.features
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    raw = next(iter(tf.data.TFRecordDataset(str(late / "late-train.tfrecord-00000-of-00003"))))
    values = {k: v.numpy() for k, v in ours[0].items()}
    example = serializer.get_tf_example(features.encode_example(values))
    assert example.SerializeToString(deterministic=True) == raw.numpy()


def test_killed_and_started_again_it_is_the_same_to_the_byte(cli, late, table, tmp_path):
    command = ("data", "import", str(table), *LATE, "shards=3", f"dir={tmp_path}/data")
    before: dict[str, int] = {}
    for fault, there in (("import.shard:step=1:kill", 2), ("import.before_move:kill", 5), ("", 5)):
        done = cli(*command, program=("-m", "tfscale"), environ={"TFSCALE_FAULT": fault} if fault else {})
        assert done.code == (-9 if fault else 0), done.err
        folder = tmp_path / ("data/incomplete.late" if fault else "data/late/1.0.0")
        now = {file.name: file.stat().st_mtime_ns for file in folder.glob("late-*")}
        assert len(now) == there and before.items() <= now.items()  # what was written is not written again
        assert fault or "goes on: 5 of 5 files" in done.out
        before = now
    assert content(tmp_path / "data/late/1.0.0") == content(late)
    assert sorted(one.name for one in (tmp_path / "data").iterdir()) == [".late.lock", "late"]


def test_two_processes_write_the_same_bytes_and_one_may_be_killed(cli, late, table, tmp_path):
    command = ("data", "import", str(table), *LATE, "shards=3", f"dir={tmp_path}/data")
    broken = cli(
        *command, "processes=2", program=("-m", "tfscale"), environ={"TFSCALE_FAULT": "import.shard:step=3:kill"}
    )
    assert broken.code == 138 and "a process that writes was killed" in broken.err
    there = list((tmp_path / "data/incomplete.late").glob("late-*"))
    again = cli(*command, program=("-m", "tfscale"))
    assert again.code == 0 and there and f"goes on: {len(there)} of 5" in again.out, again.err
    assert content(tmp_path / "data/late/1.0.0") == content(late)


def test_again_it_is_there_and_anything_else_is_refused(late, table, messages, tmp_path):
    where = late.parents[1].parent
    before = content(late)
    assert imported(where, str(table), *LATE, "shards=3") == late and "is there already" in messages.text
    with pytest.raises(UsageError, match="imported differently: data.seed was 0") as error:
        imported(where, str(table), *LATE, "shards=3", "seed=1")
    assert "fresh=true" in error.value.fix
    changed = tmp_path / "late.csv"
    changed.write_text(table.read_text().replace("UA", "US"))
    with pytest.raises(UsageError, match="the files have changed"):
        imported(where, str(changed), *LATE, "shards=3")
    assert content(late) == before and not list((where / "data").glob("incomplete*"))


def test_rows_without_a_label_are_named(tf, table, tmp_path):
    with pytest.raises(
        DataCorrupt, match=r"10 rows have no label \(delay\): late.csv: row 8; late.csv: row 48"
    ) as error:
        imported(tmp_path, str(table), "name=late", "label=delay")
    assert "drop_unlabelled=true" in error.value.fix


def test_where_records_begin_is_known_without_a_walk_through_them(late, tmp_path, monkeypatch):
    import shutil

    from tfscale.data import tfds as reading
    from tfscale.data.record_offsets import FILE
    from tfscale.data.records import index_records

    data = tmp_path / "data"
    shutil.copytree(late, data / "late/1.0.0")
    walked: list[int] = []

    def walk(files, **more):
        walked.append(len(files))
        return index_records(files, **more)

    monkeypatch.setattr(reading, "index_records", walk)

    def index(split: str):
        return Prepared(dir=str(data), name="late")._index(split)

    for split in ("train", "test"):
        found, name = index(split), Prepared(dir=str(data), name="late")._name_of(split)
        files = Prepared(dir=str(data), name="late").files_of(name)
        plain = index_records(files)
        assert not walked and found.files == plain.files and found.size == plain.size and len(found) > 10
        assert np.array_equal(found.offset, plain.offset) and np.array_equal(found.shard, plain.shard)
        assert found.offset.dtype == plain.offset.dtype and found.shard.dtype == plain.shard.dtype
        assert np.array_equal(found.sizes(), plain.sizes())
    kept = (data / "late/1.0.0" / FILE).read_bytes()
    for content in (b"", kept[:-30], None):  # damaged, cut, gone
        file = data / "late/1.0.0" / FILE
        file.unlink() if content is None else file.write_bytes(content)
        assert np.array_equal(
            index("train").offset, index_records(Prepared(dir=str(data), name="late").files_of("train")).offset
        )
    assert walked == [3] * 3
    (data / "late/1.0.0" / FILE).write_bytes(kept)
    shard = Prepared(dir=str(data), name="late").files_of("train")[0]
    shard.write_bytes(shard.read_bytes()[:-1])  # another file than that which was looked at
    with pytest.raises(DataCorrupt, match="ends inside the record"):
        index("train")


def test_a_schema_is_edited_and_given_back(tf, late, table, tmp_path, messages):
    edited = (late / "schema.yaml").read_text()
    assert "  year: {type: constant}\n" in edited and "label:\n  name: delay > 15\n" in edited
    file = tmp_path / "mine.yaml"
    file.write_text(edited.replace("zip: {type: category}", "zip: {type: number}").replace(
        "carrier: {type: category}", "carrier: {type: number}"))  # fmt: skip
    words = (str(table), *LATE, f"schema={file}")
    with pytest.raises(DataCorrupt, match=r'can\'t be used.*late.csv: row \d+: column carrier: ".." is no number'):
        imported(tmp_path, *words)
    file.write_text(edited.replace("zip: {type: category}", "zip: {type: number}"))
    folder = imported(tmp_path, *words)
    assert json.loads((folder / "columns.json").read_text())["columns"]["zip"]["type"] == "number"
    file.write_text(edited.replace("type: category", "type: categry"))
    with pytest.raises(UsageError, match="did you mean 'category'"):
        imported(tmp_path, *words)


def test_what_stands_for_no_value_is_said_and_may_be_changed(tf, tmp_path, messages):
    (tmp_path / "c.csv").write_text("x,continent\n" + "".join(f"{i},{('EU', 'NA', 'AS')[i % 3]}\n" for i in range(30)))
    folder = imported(tmp_path, f"{tmp_path}/c.csv", "name=c")
    assert "missing is written NA" in messages.text
    for words, classes in (("no,yes", ["no", "yes"]), ("0,1", ["0", "1"]), ("T,F", ["F", "T"])):
        one, other = words.split(",")
        (tmp_path / "l.csv").write_text("x,y\n" + "".join(f"{i},{(one, other)[i % 2]}\n" for i in range(30)))
        folder = imported(tmp_path, f"{tmp_path}/l.csv", f"name=l{one}", "label=y")
        assert json.loads((folder / "columns.json").read_text())["label"]["classes"] == classes
    assert "missing: [NA, N/A," in (folder / "schema.yaml").read_text()
    (tmp_path / "s.yaml").write_text("missing: []\ncolumns: {}\n")
    folder = imported(tmp_path, f"{tmp_path}/c.csv", "name=c", f"schema={tmp_path}/s.yaml", "fresh=true")
    vocabulary = json.loads((folder / "columns.json").read_text())["columns"]["continent"]["vocabulary"]
    assert {value for value, _ in vocabulary} == {"EU", "NA", "AS"}
    assert "missing: []" in (folder / "schema.yaml").read_text()


def test_a_class_that_reads_as_missing_is_named_and_kept_by_one_line_of_a_schema(tf, tmp_path, messages):
    (tmp_path / "n.csv").write_text("x,y\n" + "".join(f"{i},{('null', 'a', 'b')[i % 3]}\n" for i in range(30)))
    words = (f"{tmp_path}/n.csv", "name=n", "label=y")
    with pytest.raises(
        DataCorrupt, match=r"10 rows have no label \(y; missing is written null\).*line `missing: \[\]`"
    ):
        imported(tmp_path, *words)
    imported(tmp_path, *words, "drop_unlabelled=true")
    assert "10 rows without a label; missing is written null (where null is a value: data.schema" in messages.text
    for said, told in (
        ("mising: []\n", r"mising would do nothing; did you mean 'missing'"),
        ("columns: {x: {type: number, fromat: '%d'}}\n", r"column x: fromat would do nothing; did you mean 'format'"),
        ("label: {kinds: class}\n", r"label: kinds would do nothing; did you mean 'kind'"),
    ):
        (tmp_path / "s.yaml").write_text(said)
        with pytest.raises(UsageError, match=told):
            imported(tmp_path, *words, f"schema={tmp_path}/s.yaml", "fresh=true")
    (tmp_path / "s.yaml").write_text("missing: []\n")
    folder = imported(tmp_path, *words, f"schema={tmp_path}/s.yaml", "fresh=true")
    assert json.loads((folder / "columns.json").read_text())["label"]["classes"] == ["a", "b", "null"]


def test_bad_rows_within_the_budget_are_left_out_and_listed(tf, table, tmp_path, messages):
    file = tmp_path / "few.csv"
    file.write_text("a,b\n" + "".join(f"{i if i != 3 else 'x'},{i}\n" for i in range(30)) + "1,2,3\n")
    (tmp_path / "schema.yaml").write_text("columns: {a: number}\n")
    imported(tmp_path, str(file), "name=plain", "max_bad=1")
    words = (str(file), "name=few", f"schema={tmp_path}/schema.yaml")
    with pytest.raises(DataCorrupt, match="2 of 31 rows can't be used.*the first: few.csv: line 32: Expected"):
        imported(tmp_path, *words, "max_bad=1")
    listed = json.loads((tmp_path / "data/incomplete.few/bad.json").read_text())
    for share, count in (("100%", 31), ("1.0", 31), ("29%", 8), ("1", 1), ("0.5%", 0)):
        assert parse_request([*words, f"max_bad={share}"]).allowed_bad(31) == count, share
    assert parse_request([*words, "max_bad=29%"]).allowed_bad(100) == 29
    for share in ("101%", "1.5", "nan"):
        with pytest.raises(UsageError, match="more than all"):
            parse_request([*words, f"max_bad={share}"])
    folder = imported(tmp_path, *words, "max_bad=10%")
    about = json.loads((folder / "import.json").read_text())
    assert about["bad"] == listed == [
        {"item": "few.csv: line 32", "reason": "Expected Number of Columns: 2 Found: 3 '1,2,3'"},
        {"item": "few.csv: row 4", "reason": 'column a: "x" is no number'},
    ]  # fmt: skip
    assert sum(split["examples"] for split in about["splits"].values()) == 29
    assert "numbers but for 1 rows" in messages.text  # before the schema says so


def test_a_label_that_is_no_number_or_infinite(tf, tmp_path):
    """price / area is NaN where both are 0, infinite where only the area is."""
    rows = [f"{100 + i},{i % 7 + 1},{i}" for i in range(30)]
    rows[3], rows[5], rows[8] = "100,0,3", "0,0,5", "100,2,1e39"
    (tmp_path / "homes.csv").write_text("price,area,x\n" + "\n".join(rows) + "\n")
    words = (f"{tmp_path}/homes.csv", "name=homes", "label=price / area", "split.train=1")
    with pytest.raises(DataCorrupt, match=r"1 rows have no label \(price / area\): homes.csv: row 6"):
        imported(tmp_path, *words)
    folder = imported(tmp_path, *words, "drop_unlabelled=true", "max_bad=2")
    about = json.loads((folder / "import.json").read_text())
    assert {one["item"]: one["reason"] for one in about["bad"]} == {
        "homes.csv: row 4": "the label price / area is infinite, or beyond what float32 holds",
        "homes.csv: row 9": "column x: is beyond what float32 holds",
    }
    assert about["left_out"][-1] == "1 rows without a label" and about["splits"]["train"]["examples"] == 27
    label = json.loads((folder / "columns.json").read_text())["label"]
    assert label["kind"] == "number" and 15 < label["mean"] < 130


@pytest.mark.parametrize(
    ("first", "second", "type", "format", "read"),
    [
        ("03/15/99", "12/31/24", "date", "%m/%d/%y", "1999-03-15"),
        ("15.03.24", "16.03.99", "date", "%d.%m.%y", "2024-03-15"),
        ("15/03/2024", "16/03/1999", "date", "%d/%m/%Y", "2024-03-15"),
        ("15-03-24", "16-03-99", "category", "", "15-03-24"),
        ("0,125", "0,250", "number", "1.234,5", "0.125"),
        ("1,125", "0,250", "number", "1.234,5", "1.125"),
        ("1,125", "2,250", "number", "1,234.5", "1125.0"),
    ],
)
def test_how_a_value_is_written_is_found(first, second, type, format, read):
    import duckdb

    from tfscale.importer.table_types import infer

    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT unnest([?, ?]) AS it", [first, second]).fetchall()
        column = infer(connection, {})[0][0]
        value = connection.execute(f"SELECT CAST({column.value} AS VARCHAR) FROM kept").fetchall()[0][0]
    assert (column.type, column.format, value.removesuffix(" 00:00:00")) == (type, format, read)


def test_times_are_those_of_utc_wherever_it_runs():
    code = """from tfscale.importer.duck_connection import connect
print(connect().execute("SELECT CAST(TIMESTAMPTZ '2024-01-01 00:00:00+00' AS TIMESTAMP)").fetchall()[0][0])"""
    away = {**os.environ, "TZ": "Asia/Tokyo"}
    done = subprocess.run([sys.executable, "-c", code], env=away, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "2024-01-01 00:00:00", done.stderr


def packed(kind: str, tmp_path: Path) -> tuple[str, str]:
    """(a path, what the import says of it) of the same table in another form."""
    file = tmp_path / "late.csv"
    if kind == "tsv":
        return str(write_csv(tmp_path / "late.tsv", "\t")), "separated by tabs"
    if kind == "semicolons":
        return str(write_csv(file, ";", "utf-16")), "is in UTF-16"
    if kind == "latin":
        write_csv(file).write_bytes(file.read_bytes().replace(b"the plane", b"le caf\xe9 a"))
        return str(file), "Windows-1252"
    write_csv(file)
    if kind == "gz":
        (tmp_path / "late.csv.gz").write_bytes(gzip.compress(file.read_bytes()))
        return f"{tmp_path}/late.csv.gz", "with a header"
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "late.zip", "w") as archive:
            archive.write(file, "inner/late.csv")
            archive.writestr("__MACOSX/._late.csv", "x")
        return f"{tmp_path}/late.zip", "with a header"
    import duckdb

    with duckdb.connect() as connection:
        source = f"read_csv('{file}')" if kind != "glob" else f"read_csv('{file}', all_varchar=true)"
        target = {"parquet": f"'{tmp_path}/late.parquet'", "jsonl": f"'{tmp_path}/late.jsonl' (FORMAT json)"}
        if kind in target:
            connection.execute(f"COPY (SELECT * FROM {source}) TO {target[kind]}").fetchall()
            return f"{tmp_path}/late.{kind}", {"parquet": "Parquet", "jsonl": "JSON lines"}[kind]
        if kind == "hive":
            options = "(FORMAT parquet, PARTITION_BY (month))"
            connection.execute(f"COPY (SELECT * FROM {source}) TO '{tmp_path}/parts' {options}").fetchall()
            return f"{tmp_path}/parts", "partitioned"
        for half in (0, 1):
            part = f"(SELECT * FROM {source} LIMIT 200 OFFSET {200 * half})"
            connection.execute(f"COPY {part} TO '{tmp_path}/part-{half}.csv'").fetchall()
        return f"{tmp_path}/part-*.csv", "2 files"


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("# made by\n\na,b\n1,2\n3,4\n", {"a": ["1", "3"], "b": ["2", "4"]}, "2 lines before it"),
        ("a;b\n1,5;2,5\n2,5;3,5\n", {"a": ["1,5", "2,5"], "b": ["2,5", "3,5"]}, "semicolons"),
        ('a,b\n1,"x, ""y"""\n2,z\n', {"a": ["1", "2"], "b": ['x, "y"', "z"]}, "commas"),
        ("text\nhello, world\nbye\n", {"text": ["hello, world", "bye"]}, "with a header"),
        ("1,2\n3,4\n", {"column0": ["1", "3"], "column1": ["2", "4"]}, "without a header"),
        ("a,b\n" + "1,2\n" * 30 + "1,2,3\n", {"a": ["1"] * 30, "b": ["2"] * 30}, "line 32"),
        ("\ufeffa,b\n" + "1,2\n" * 30 + "1,2,3\n", {"a": ["1"] * 30, "b": ["2"] * 30}, "line 32"),
        ("\ufeffa,b\n1,2\n3,4\n", {"a": ["1", "3"], "b": ["2", "4"]}, "commas"),
        ("\ufeff1,2\n3,4\n", {"column0": ["1", "3"], "column1": ["2", "4"]}, "without a header"),
        (",a\n0,5\n1,7\n", {"Unnamed: 0": ["0", "1"], "a": ["5", "7"]}, "with a header"),
        ('"";"a"\n' + '"1";"5"\n' * 30 + "1;2;3\n", {"Unnamed: 0": ["1"] * 30, "a": ["5"] * 30}, "line 32"),
    ],
)
def test_how_a_csv_lies_in_its_file_is_found(tmp_path, text, columns, said):
    import duckdb

    from tfscale.importer.recognise import look
    from tfscale.importer.table_source import load, open_tables

    (tmp_path / "it.csv").write_text(text)
    with duckdb.connect() as connection:
        told, rejects = load(connection, open_tables(look(str(tmp_path / "it.csv")), tmp_path))
        found = connection.sql("SELECT * FROM raw").fetchnumpy()
    assert {name: values.tolist() for name, values in found.items()} == columns
    assert said in told + "".join(f"line {one.line}" for one in rejects)


@pytest.mark.parametrize("kind", ["tsv", "semicolons", "latin", "gz", "zip", "parquet", "jsonl", "hive", "glob"])
def test_the_same_table_in_other_forms(tf, late, tmp_path, messages, kind):
    path, said = packed(kind, tmp_path)
    folder = imported(tmp_path, path, *LATE, "shards=3", "split.train=0.9", "split.test=0.1")
    assert said in messages.text
    mine, whole = (json.loads((one / "columns.json").read_text())["columns"] for one in (folder, late))
    types = [{name: one["type"] for name, one in columns.items() if name != "zip"} for columns in (mine, whole)]
    assert types[0] == types[1]
    about = json.loads((folder / "import.json").read_text())
    assert sum(split["examples"] for split in about["splits"].values()) == 390
    assert about["left_out"] == ["columns that the label is made of: delay", "10 rows without a label"]


def test_splits_by_sql_by_group_and_by_column(tf, table, tmp_path):
    def months(folder: Path) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for file in folder.glob("*.tfrecord-*"):
            some = found.setdefault(file.name.split("-")[1].split(".")[0], set())
            for raw in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
                some.add(int(tf.train.Example.FromString(raw).features.feature["month"].float_list.value[0]))
        return found

    sql = ("split.train=month <= 9", "split.validation=month = 10", "split.test=month >= 11")
    assert months(imported(tmp_path, str(table), "name=a", "exclude=delay", *sql)) == {
        "train": set(range(1, 10)), "validation": {10}, "test": {11, 12}}  # fmt: skip
    groups = months(imported(tmp_path, str(table), "name=b", "exclude=[delay]", "group=month"))
    assert sum(map(len, groups.values())) == 12 == len(set().union(*groups.values()))
    sizes = json.loads(
        (imported(tmp_path, str(table), "name=d", "exclude=delay", "group=carrier") / "import.json").read_text()
    )
    assert sum(one["examples"] for one in sizes["splits"].values()) == ROWS  # also those without a carrier
    file = tmp_path / "told.csv"
    file.write_text(
        "x,part,month\n" + "".join(f"{i},{'Practice' if i % 3 else 'held out'},{i % 3}\n" for i in range(30))
    )
    with pytest.raises(DataMissing, match="it puts none of the rows into a split"):
        imported(tmp_path, str(file), "name=c", "split.train=month > 5", "split.test=month > 6")
    with pytest.raises(DataMissing, match="no rows are in the split train; there are Practice, held_out"):
        imported(tmp_path, str(file), "name=c", "split_by=part")
    file.write_text(file.read_text().replace("Practice", "Train"))
    assert months(imported(tmp_path, str(file), "name=c", "split_by=part")) == {"train": {1, 2}, "held_out": {0}}


def test_files_of_splits_by_a_word_of_their_names(tf, tmp_path):
    (tmp_path / "t").mkdir()
    for name, count in (("train-00000-of-00002", 20), ("train-00001-of-00002", 10), ("my_test", 10), ("val.2", 5)):
        (tmp_path / f"t/{name}.csv").write_text("x,kind\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(count)))
    folder = imported(tmp_path, f"{tmp_path}/t", "name=told", "label=kind")
    about = json.loads((folder / "import.json").read_text())
    counts = {name: split["examples"] for name, split in about["splits"].items()}
    assert counts == {"train": 30, "validation": 5, "test": 10}


def test_files_of_splits_and_arrays(tf, tmp_path):
    (tmp_path / "t").mkdir()
    for name, count in (("train", 30), ("test", 10)):
        (tmp_path / f"t/{name}.csv").write_text("x,kind\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(count)))
    folder = imported(tmp_path, f"{tmp_path}/t", "name=told", "label=kind")
    about = json.loads((folder / "import.json").read_text())
    assert {name: one["examples"] for name, one in about["splits"].items()} == {"train": 30, "test": 10}
    source = Prepared(dir=str(tmp_path / "data"), name="told")
    assert source.num_examples("test") == 10 and source.class_names() == ("a", "b")
    drawn = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=drawn, y=np.arange(50) % 3)
    folder = imported(tmp_path, f"{tmp_path}/a.npz", "name=arrays", "label=y", "split.train=1")
    about = json.loads((folder / "columns.json").read_text())
    number = imported(tmp_path, f"{tmp_path}/a.npz", "name=number", "label=x_0 * 2", "split.train=1")
    label = json.loads((number / "columns.json").read_text())["label"]
    assert label["kind"] == "number" and label["mean"] == pytest.approx(2 * float(drawn[:, 0].mean()), rel=1e-4)
    assert "classLabel" not in json.loads((number / "features.json").read_text())["featuresDict"]["features"]["label"]
    assert about["label"]["classes"] == ["0", "1", "2"] and list(about["columns"]) == ["x_0", "x_1", "x_2"]
    assert about["columns"]["x_1"]["mean"] == pytest.approx(float(drawn[:, 1].mean()), rel=1e-4)
    only = Prepared(dir=str(tmp_path / "data"), name="arrays")
    only.check()
    assert only.is_prepared() and (only.num_examples("train"), only.num_examples("test")) == (50, 0)
    replaced = imported(tmp_path, f"{tmp_path}/a.npz", "name=arrays", "label=x_0 > 0", "fresh=true")
    assert json.loads((replaced / "columns.json").read_text())["label"]["kind"] == "class"
    assert sorted(one.name for one in replaced.parent.iterdir()) == ["1.0.0"]


def test_frames_and_stores(tf, table, late, tmp_path, messages):
    import fsspec
    import pandas as pd

    import tfscale

    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    frame.index = [f"row {i}" for i in range(len(frame))]  # no column
    options = ["drop_unlabelled=true", "shards=3"]
    folder = tfscale.import_table(frame, "late", label="delay > 15", dir=str(tmp_path / "a"), options=options)
    for name in ("columns.json", "schema.yaml", "late-train.tfrecord-00001-of-00003"):
        assert (folder / name).read_bytes() == (late / name).read_bytes(), name
    assert tfscale.import_table(frame, "late", label="delay > 15", dir=str(tmp_path / "a"), options=options) == folder
    assert "is there already" in messages.text
    with pytest.raises(UsageError, match="int can't be read as a table"):
        tfscale.import_table(5, "late")
    store = fsspec.filesystem("memory")
    for name in ("train", "test"):
        store.pipe_file(f"/bucket/t/{name}.csv", b"x,y\n" + b"1,2\n3,4\n" * 10)
    for path in ("memory://bucket/t", "memory://bucket/t/*.csv"):
        folder = imported(tmp_path, path, f"name=s{len(path)}")
        about = json.loads((folder / "import.json").read_text())
        assert about["path"] == path and about["splits"]["test"]["examples"] == 20
        assert sorted(about["files"]["sha256"]) == ["test.csv", "train.csv"]
    with pytest.raises(DataMissing, match="memory://bucket/nothing"):
        imported(tmp_path, "memory://bucket/nothing", "name=x")


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["nowhere.csv", "name=x"], DataMissing, "there is no file, folder or pattern nowhere.csv"),
        (["{table}", "name=a-b"], UsageError, "name=a_b"),
        (["{table}", "name=x", "lable=delay"], UsageError, "did you mean 'label'"),
        (["{table}", "name=x", "label=dely"], UsageError, "did you mean 'delay'"),
        (["{table}", "name=x", "exclude=[sise]"], UsageError, "did you mean 'size'"),
        (["{table}", "name=x", "label=year", "drop_unlabelled=true"], DataCorrupt, "has 1 different values"),
        (["{table}", "name=x", "where=month <"], UsageError, "data.where"),
        (["{table}", "name=x", "split.train=0.9", "split.test=0.2"], UsageError, "more than all"),
        (["{table}", "name=x", "split.train=month < 9", "split.test=month > 7"], UsageError, "rows are in several"),
        (["{table}", "name=x", "kind=tabel"], UsageError, "did you mean 'table'"),
        (["{ragged}", "name=x"], DataCorrupt, "2 of 36 rows can't be used"),
        (["{empty}", "name=x"], DataMissing, "holds no rows"),
    ],
)
def test_what_is_refused(table, tmp_path, words, error, said):
    (tmp_path / "ragged.csv").write_text("a,b\n" + "1,2\n" * 29 + "1,2,3\n7\n" + "1,2\n" * 5)
    (tmp_path / "empty.csv").write_text("a,b\n")
    at = {"table": table, "ragged": tmp_path / "ragged.csv", "empty": tmp_path / "empty.csv"}
    with pytest.raises(error) as raised:
        imported(tmp_path, *(word.format(**at) for word in words))
    assert said in str(raised.value)
    assert not list((tmp_path / "data").glob("*/1.0.0"))


def test_a_name_that_is_not_there(tmp_path, late):
    with pytest.raises(DataMissing, match="did you mean 'late'") as error:
        Prepared(dir=str(late.parents[1]), name="lat").check()
    assert "tfscale data import PATH name=lat" in error.value.fix


def test_several_labels_at_once(tf, tmp_path, messages):
    import tensorflow_datasets as tfds

    rows = [(i % 7, ("no", "yes")[i % 2], int(i % 3 == 0), ";".join("ab"[j] for j in (0, 1) if i % (j + 2) == 0))
            for i in range(60)]  # fmt: skip
    (tmp_path / "t.csv").write_text("x,wet,cold,tags\n" + "".join(f"{x}.5,{w},{c},{t}\n" for x, w, c, t in rows))
    lines = [{"x": x + 0.5, "tags": t.split(";") if t else []} for x, _, _, t in rows]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, file, label, classes in (
        ("columns", "t.csv", "[wet, cold]", ["wet", "cold"]),
        ("sql", "t.csv", "[wet, cold, x > 3]", ["wet", "cold", "x > 3"]),
        ("split", "t.csv", "split(coalesce(tags, ''), ';')", ["a", "b"]),
        ("lists", "t.jsonl", "tags", ["a", "b"]),
    ):
        folder = imported(tmp_path, f"{tmp_path}/{file}", f"name={name}", f"label={label}")
        about = json.loads((folder / "columns.json").read_text())
        assert about["label"]["kind"] == "multilabel" and about["label"]["classes"] == classes, name
        assert not set(about["columns"]) & {"wet", "cold"} or name == "split"
        found = [one for some in tfds.builder_from_directory(str(folder)).as_dataset().values() for one in some]
        told = sorted(tuple(one["label"].numpy().tolist()) for one in found)
        of = {
            "columns": lambda r: (int(r[1] == "yes"), r[2]),
            "sql": lambda r: (int(r[1] == "yes"), r[2], int(r[0] > 2)),
        }
        assert told == sorted(map(of.get(name, lambda r: ("a" in r[3], "b" in r[3])), rows)), name
        source = Prepared(dir=str(tmp_path / "data"), name=name)
        assert source.class_names() == tuple(classes) and source.parses_rows
    imported(tmp_path, f"{tmp_path}/t.csv", "name=plain", "label=tags", "drop_unlabelled=true")
    assert "looks like several at once: data.label=\"split(tags, ';')\" learns each" in messages.text
    with pytest.raises(DataCorrupt, match="20 rows have no label"):
        imported(tmp_path, f"{tmp_path}/t.csv", "name=gaps", "label=split(tags, ';')")
    for label, told in (
        ("[wet, x]", "the label x has the value '0.5'"),
        ("[wet]", "1 different labels"),
        ("[wet, wte]", "neither a column"),
        ("[yes, no]", "neither a column"),
        ("[wet, 01]", "'01' is no column, and the same in every row"),
        ("[wet, coalesce(x, 0) > 1]", "is cut at a comma inside brackets"),
    ):
        with pytest.raises((UsageError, DataCorrupt), match=told) as error:
            imported(tmp_path, f"{tmp_path}/t.csv", "name=no", f"label={label}")
        assert error.value.where == "data.label"
    (tmp_path / "s.yaml").write_text("columns: {}\nlabel: {kind: class}\n")
    with pytest.raises(UsageError, match="is no class"):
        imported(tmp_path, f"{tmp_path}/t.csv", "name=no", "label=[wet, cold]", f"schema={tmp_path}/s.yaml")


def test_names_that_records_cannot_have(tf, tmp_path):
    rows = "".join(f"{i},{i % 7},{'ab'[i % 2]},{i * 1.5},{i % 3}\n" for i in range(40))
    (tmp_path / "it.csv").write_text("km/h,km_h,label,seed,y\n" + rows)
    folder = imported(tmp_path, f"{tmp_path}/it.csv", "name=it", "label=y")
    columns = json.loads((folder / "columns.json").read_text())["columns"]
    assert list(columns) == ["km_h_", "km_h", "label_", "seed_"] and columns["km_h"]["quantiles"][-1] == 6
    source = Prepared(dir=str(tmp_path / "data"), name="it")
    source.check()
    (first,) = source.read("train", tf.data.Dataset.range(1).batch(1), ram_bytes=0).map(source.parse)
    assert {"km_h_", "label_", "seed_", "label"} <= set(first) and first["seed_"] == first["km_h_"] * 1.5
    assert "km/h: {type: number}" in (folder / "schema.yaml").read_text()


def test_lists_that_say_of_each_label_whether_it_holds(tf, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    hot = [[i % 2, int(i % 3 == 0), 1] for i in range(40)]
    table = {"x": [i / 7 for i in range(40)], "hot": hot, "far": pa.array(hot, pa.list_(pa.int8(), 3))}
    table |= {"odd": [row[: 2 + i % 2] for i, row in enumerate(hot)], "h": [f"t{i % 3}" for i in range(40)]}
    table["tags"] = [["ab"[i % 2], "bc"[i % 3 > 0]] for i in range(40)]
    pq.write_table(pa.table(table), tmp_path / "it.parquet")
    file = f"{tmp_path}/it.parquet"
    for label in ("hot", "far"):
        folder = imported(tmp_path, file, f"name={label}", f"label={label}")
        about = json.loads((folder / "columns.json").read_text())
        assert about["label"]["classes"] == ["0", "1", "2"] and set(about["columns"]) == {"x", "h"}
        import_counts = about["label"]["counts"]
        assert import_counts[2] == max(import_counts)
    with pytest.raises(DataCorrupt, match="lists of 0 and 1 of 2 to 3 values"):
        imported(tmp_path, file, "name=odd", "label=odd")
    folder = imported(tmp_path, file, "name=some", "label=list_filter(tags, lambda h: h > 'a')")
    assert set(json.loads((folder / "columns.json").read_text())["columns"]) == {"x", "h"}  # h is the lambda's own
