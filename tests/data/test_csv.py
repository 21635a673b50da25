from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tfscale.composition.hydra_compose import compose
from tfscale.data.csv import Csv
from tfscale.errors import DataCorrupt, DataMissing, UsageError
from tfscale.labels import Labels


def table(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def plants(tmp_path):
    rows = "\n".join(f"{i / 4},{'ab'[i % 2]},{i * 3}" for i in range(10))
    return table(tmp_path / "plants.csv", f"width,kind,height\n{rows}\n")


def read(tf, source, split, order, **kwargs):
    indices = tf.data.Dataset.from_tensors(tf.constant(order, tf.int64))
    return [source.parse(raw) for raw in source.read(split, indices, ram_bytes=0)]


def test_rows_come_in_the_order_asked(tf, plants):
    source = Csv(path=plants, label="kind")
    source.check()
    got = read(tf, source, "train", [7, 0, 2])
    assert [e["x"].numpy().tolist() for e in got] == [[1.75, 21], [0, 0], [0.5, 6]]
    assert [int(e["label"]) for e in got] == [1, 0, 0]
    assert (got[0]["x"].dtype, got[0]["label"].dtype) == (tf.float32, tf.int64)
    assert source.class_names() == ("a", "b") and source.feature_names() == ["width", "height"]
    assert source.spec() == {"num_features": 2, "num_classes": 2}
    assert (source.num_examples("train"), source.num_examples("test")) == (10, 0)


def test_integer_labels_are_class_numbers_and_floats_are_values(tmp_path):
    integers = Csv(path=table(tmp_path / "i.csv", "x,y\n1,0\n2,4\n"), label="y")
    assert integers.held("train")["label"].tolist() == [0, 4]
    assert (integers.spec()["num_classes"], integers.class_names()) == (5, None)
    floats = Csv(path=table(tmp_path / "f.csv", "x,y\n1,0.5\n2,4\n"), label="y")
    assert floats.held("train")["label"].tolist() == [0.5, 4]
    assert floats.held("train")["label"].dtype == np.float32
    assert "num_classes" not in floats.spec()


def test_columns_choose_and_order_the_features(plants):
    source = Csv(path=plants, label="kind", columns=["height", "width"])
    assert source.held("train")["x"][1].tolist() == [3, 0.25] and source.feature_names() == ["height", "width"]


def test_pandas_index_is_no_feature(tmp_path):
    source = Csv(path=table(tmp_path / "p.csv", ",a,y\n0,5,1\n1,6,0\n"), label="y")
    assert source.held("train")["x"].tolist() == [[5], [6]]


def test_a_share_of_the_rows_is_held_out_for_good(tmp_path):
    text = "x,y\n" + "\n".join(f"{i},{i % 3}" for i in range(1000))
    source = Csv(path=table(tmp_path / "t.csv", text), label="y", test_share=0.2)
    source.check()
    train, test = (set(source.held(split)["x"][:, 0].tolist()) for split in ("train", "test"))
    assert not train & test
    assert len(train | test) == 1000
    assert 150 < len(test) < 250
    more = Csv(path=table(tmp_path / "more.csv", text + "\n1000,0\n1001,1"), label="y", test_share=0.2)
    assert test <= set(more.held("test")["x"][:, 0].tolist())


def test_classes_are_those_of_the_train_file(tf, plants, tmp_path):
    test = table(tmp_path / "test.csv", "kind,height,width\nb,1,2\n")
    source = Csv(path=plants, test_path=test, label="kind")
    source.check()
    assert source.held("test")["x"].tolist() == [[2, 1]]
    assert source.held("test")["label"].tolist() == [1]
    for text, told in (
        ("\n\nbb,1,2\n", r"'bb' of line 4; did you mean 'b'|'bb' of line 4"),
        ("a,x,2\n", "'x' in column height .* line 2"),
    ):
        table(tmp_path / "test.csv", "kind,height,width\n" + text)
        with pytest.raises(DataCorrupt, match=told) as error:
            Csv(path=plants, test_path=test, label="kind").check()
        assert (error.value.where, error.value.exit_code) == (test, 65)


def test_a_label_beyond_those_of_training(tmp_path):
    train = table(tmp_path / "train.csv", "x,y\n1,0\n2,1\n")
    for bad in ("2", "-1"):
        test = table(tmp_path / "test.csv", f"x,y\n1,0\n2,{bad}\n")
        with pytest.raises(DataCorrupt, match=f"label is {bad} in line 3, outside 0..1"):
            Csv(path=train, test_path=test, label="y").settle([Labels()])


def test_a_column_of_text_is_named_with_the_fix(tmp_path):
    source = Csv(path=table(tmp_path / "t.csv", "a,name,b,y\n1,ann,2,0\n1,bob,2,1\n"), label="y")
    with pytest.raises(UsageError, match="column name holds text") as error:
        source.check()
    assert "data.columns=[a,b]" in error.value.fix


def test_a_missing_column_suggests_the_nearest(plants):
    for source in (Csv(path=plants, label="kinds"), Csv(path=plants, label="kind", columns=["heigth"])):
        with pytest.raises(DataCorrupt, match="no column '(kinds|heigth)'; did you mean '(kind|height)'") as error:
            source.check()
        assert error.value.where == plants


BAD_CELLS = {
    "": "cell of b is empty in line 4",
    "  ": "cell of b is empty in line 4",
    "nan": "column b is nan in line 4",
    "inf": "column b is inf in line 4",
    "1e99": "column b is inf in line 4",
    "three": "'three' in column b is no number in line 4",
}


@pytest.mark.parametrize("cell", BAD_CELLS)
def test_bad_cells_are_told_with_file_line_and_column(tmp_path, cell):
    path = table(tmp_path / "t.csv", f"a,b,y\n1,2,0\n3,4,1\n5,{cell},0\n7,8,1\n")
    with pytest.raises(DataCorrupt, match=BAD_CELLS[cell]) as error:
        Csv(path=path, label="y").check()
    assert (error.value.where, error.value.exit_code) == (path, 65)


def test_bad_labels_are_told_with_their_line(tmp_path):
    for labels, told in ((("0", "", "1"), "cell of y is empty in line 3"), (("1.5", "x", "2"), "'x' in column y .* line 3"),
                         (("1.5", "nan", "2"), "column y is nan in line 3")):  # fmt: skip
        path = table(tmp_path / "t.csv", "a,y\n" + "".join(f"1,{label}\n" for label in labels))
        with pytest.raises(DataCorrupt, match=told):
            Csv(path=path, label="y").check()


def test_lines_are_counted_through_quoted_breaks_and_blank_lines(tmp_path):
    path = table(tmp_path / "t.csv", '\ufeffa,note,y\n1,"two\nlines",0\n\n2,short,1\nx,short,1\n')
    with pytest.raises(DataCorrupt, match="'x' in column a is no number in line 6"):
        Csv(path=path, label="y", columns=["a"]).check()


def test_a_ragged_row_is_told_with_its_line(tmp_path):
    for row in ("1", "1,2,3"):
        path = table(tmp_path / "t.csv", f"a,y\n1,0\n{row}\n1,1\n")
        with pytest.raises(DataCorrupt, match=r"line 3 has (1|3) cells and the header has 2") as error:
            Csv(path=path, label="y").check()
        assert error.value.where == path


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(DataMissing, match="No such file"):
        Csv(path=str(tmp_path / "none.csv"), label="y").check()
    for text, told in (("", "file is empty"), ("\n\n", "file is empty"), ("a,y\n", "header and no row")):
        with pytest.raises(DataMissing, match=told) as error:
            Csv(path=table(tmp_path / "t.csv", text), label="y").check()
        assert error.value.exit_code == 66
    (tmp_path / "t.csv").write_bytes(b"a,y\n\xff\xfe,1\n")
    with pytest.raises(DataCorrupt, match="UTF"):
        Csv(path=str(tmp_path / "t.csv"), label="y").check()
    with pytest.raises(DataCorrupt, match="two columns are named 'a'"):
        Csv(path=table(tmp_path / "t.csv", "a,a,y\n1,2,0\n"), label="y").check()


def test_settings_that_can_not_be(plants):
    for source in (Csv(path=plants, label="kind", test_share=1.0), Csv(path=plants, label="kind", columns=["kind"])):
        with pytest.raises(UsageError):
            source.check()


def test_unlabelled_tables_are_read_by_name(tf, plants, tmp_path):
    path = table(tmp_path / "new.csv", "height,other,width\n8,z,9\n")
    source = Csv(path=plants, label="kind").unlabelled(path)
    source.check()
    (example,) = read(tf, source, "test", [0])
    assert set(example) == {"x"}
    assert example["x"].numpy().tolist() == [9, 8]
    assert source.num_examples("train") == 0


def test_without_pyarrow_the_extra_is_named(plants, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError) as error:
        Csv(path=plants, label="kind").check()
    assert 'pip install "tfscale[tables]"' in error.value.fix


def test_identity_is_the_content_and_not_the_place(plants, tmp_path):
    text = Path(plants).read_text()
    copy = table(tmp_path / "copy.csv", text)
    assert Csv(path=copy, label="kind").identity() == Csv(path=plants, label="kind").identity()
    changed = table(tmp_path / "changed.csv", text.replace("27", "28"))
    assert Csv(path=changed, label="kind").identity() != Csv(path=plants, label="kind").identity()


def test_composed(plants):
    config = compose(["+recipe=resnet", "data=csv", f"data.path={plants}", "data.label=kind", "data.columns=[width]"])
    assert config.data == Csv(path=plants, label="kind", columns=["width"])
    with pytest.raises(UsageError, match=r"data\.label, data\.path"):
        compose(["+recipe=resnet", "data=csv"])
