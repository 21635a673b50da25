"""TFRecord files as sources: features that are found or told, what is bad, and data sets of TFDS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.data_files import jpeg, write_records

from tfscale.__main__ import main
from tfscale.data.prepared import Prepared
from tfscale.errors import DataCorrupt, DataMissing, UsageError
from tfscale.importer.dataset import import_data
from tfscale.importer.import_request import parse_request


def imported(root: Path, *words: str) -> Path:
    return import_data(parse_request([*words, f"dir={root / 'data'}"]))


def about(folder: Path) -> dict:
    return json.loads((folder / "import.json").read_text())


def record(i: int, **changes) -> bytes:
    from tensorflow.train import BytesList, Example, Feature, Features, FloatList, Int64List

    values = {
        "image/encoded": [jpeg(20 + i)], "image/class/label": [i % 3], "boxes": [0.5] * (4 * (i % 3)),
        "where": [float(i), i + 1.0], "text": [f"text {i}".encode()], **changes,
    }  # fmt: skip
    kinds = {bytes: ("bytes_list", BytesList), float: ("float_list", FloatList), int: ("int64_list", Int64List)}
    features = {}
    for name, some in values.items():
        kind, made = kinds[type(some[0])] if some else kinds[float]
        features[name] = Feature(**{kind: made(value=some)})
    return Example(features=Features(feature=features)).SerializeToString()


@pytest.fixture(scope="module")
def source(tf, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("records")
    bad = [
        record(40, where=[float("nan"), 1.0]), record(41, **{"image/encoded": [jpeg(50)[:150]]}), b"none at all",
        record(43, where=[1, 2]),
    ]  # fmt: skip
    write_records(root / "files/train-00000-of-00001", [*map(record, range(40)), *bad])
    write_records(root / "files/validation-00000-of-00001", [record(i) for i in range(50, 60)])
    return root


@pytest.fixture(scope="module")
def found(source) -> Path:
    """The data set of what is found in the files."""
    return imported(source, f"{source}/files", "name=found", "max_bad=4")


def test_features_are_found_and_bad_records_named(source, found, messages):
    import tensorflow_datasets as tfds

    features = tfds.builder_from_directory(str(found)).info.features
    assert {name: (type(one).__name__, one.shape) for name, one in features.items()} == {
        "boxes": ("Tensor", (None,)), "image": ("Image", (None, None, 3)), "label": ("ClassLabel", ()),
        "text": ("Text", ()), "where": ("Tensor", (2,)),
    }  # fmt: skip
    first = "train-00000-of-00001: record"
    reasons = {one["item"]: one["reason"] for one in about(found)["bad"]}
    assert reasons.pop(f"{first} 41").startswith("the picture image/encoded can't be decoded")
    assert reasons == {
        f"{first} 40": "the feature where is nan", f"{first} 42": "is damaged, or no tf.train.Example",
        f"{first} 43": "the feature where holds int64, and is float32",
    }  # fmt: skip
    with pytest.raises(DataCorrupt, match="4 of 54 records can't be used"):
        imported(source, f"{source}/files", "name=strict")
    write_records(source / "odd.tfrecord", [*map(record, range(20)), record(20, where=[1.0])])
    odd = imported(source, f"{source}/odd.tfrecord", "name=odd")
    assert tfds.builder_from_directory(str(odd)).info.features["where"].shape == (None,)
    assert "all but 1 have 2: a schema can say so" in " ".join(messages.text.replace("│", " ").split())
    prepared = Prepared(dir=str(source / "data"), name="found")
    assert prepared.num_examples("train") == 40 and prepared.num_examples("test") == 10
    for one in tfds.builder_from_directory(str(found)).as_dataset("train"):
        i = int(one["where"][0])
        assert one["label"] == i % 3 and one["text"] == f"text {i}".encode() and len(one["boxes"]) == 4 * (i % 3)
        assert one["image"].shape == (20 + i, 20 + i, 3)


@pytest.mark.parametrize("form", ["yaml", "pbtxt"])
def test_features_are_told_by_a_schema(tf, source, found, tmp_path, form, messages):
    import tensorflow_datasets as tfds

    file = tmp_path / f"schema.{form}"
    if form == "yaml":
        edited = (found / "schema.yaml").read_text()
        assert "where: {dtype: float32, shape: [2]}" in edited and "boxes: {dtype: float32, shape: [null]}" in edited
        file.write_text(
            "".join(line for line in edited.splitlines(True) if "encoded" not in line and "boxes" not in line)
        )
    else:
        file.write_text(
            'feature {name: "where" type: FLOAT shape {dim {size: 2}}} feature {name: "text" type: BYTES}'
            'feature {name: "image/class/label" type: INT value_count {min: 1 max: 1}}'
        )
    folder = imported(tmp_path, f"{source}/files", "name=told", f"schema={file}", "max_bad=3")
    features = tfds.builder_from_directory(str(folder)).info.features
    assert set(features) == {"where", "text", "label"} and features["where"].shape == (2,)
    assert features["text"].shape == (() if form == "yaml" else (None,))
    assert "left out, since the schema doesn't name them: boxes, image/encoded" in messages.text
    assert len(about(folder)["bad"]) == 3
    for text, told in (("features: {where: {dtype: real}}", "is declared as"), ("features: {}", "has no features")):
        (tmp_path / "no.yaml").write_text(text)
        with pytest.raises(UsageError, match=told):
            imported(tmp_path, f"{source}/files", "name=no", f"schema={tmp_path}/no.yaml")
    with pytest.raises(UsageError, match="no feature of one value a record is called 'txt'; did you mean 'text'"):
        imported(tmp_path, f"{source}/files", "name=no", "label=txt")
    with pytest.raises(UsageError, match="data.where takes no effect on records"):
        imported(tmp_path, f"{source}/files", "name=no", "where=x > 1")


def test_what_tfds_prepared_is_imported_with_other_splits(source, found, tmp_path):
    import tensorflow_datasets as tfds

    before = {file.name: file.read_bytes() for file in found.iterdir()}
    whole = imported(source, "tfds:found", "name=again")
    assert {name: one["examples"] for name, one in about(whole)["splits"].items()} == {"train": 40, "validation": 10}
    assert json.loads((whole / "features.json").read_text()) == json.loads((found / "features.json").read_text())
    folder = imported(source, str(found), "name=halves", "split.train=0.5", "split.test=0.5")
    theirs = tfds.builder_from_directory(str(folder)).as_dataset()
    assert {name: len(some) for name, some in theirs.items()} == {"train": 25, "test": 25}
    places = sorted(int(one["where"][0]) for some in theirs.values() for one in some)
    assert places == [*range(40), *range(50, 60)]
    assert {file.name: file.read_bytes() for file in found.iterdir()} == before
    with pytest.raises(UsageError, match="data=tfds data.name=found trains on as it is"):
        imported(source, "tfds:found", "name=found")
    with pytest.raises(DataMissing, match="no data set named 'mnits'.*did you mean 'mnist'"):
        imported(source, "tfds:mnits", "name=digits")


def test_records_of_pictures_are_validated_as_files(source, tmp_path, capsys):
    pytest.importorskip("imagehash")
    folder = tmp_path / "files"
    write_records(folder / "train-00000-of-00001", [record(i) for i in range(24)])
    torn = record(60, **{"image/encoded": [jpeg(50)[:150]]})
    write_records(folder / "test-00000-of-00001", [*(record(3 * i) for i in range(10)), torn])
    output = tmp_path / "found.json"
    assert main(["data", "validate", str(folder), "noise=none", f"output={output}"]) == 1
    found = [one for one in json.loads(output.read_text()) if one["fails"] and "the split test" in one["text"]]
    (bad,) = (item for one in found if one["kind"] == "bad rows" for item in one["items"])
    assert bad.startswith("test-00000-of-00001: record 10: the picture image/encoded can't be decoded")
    assert "class" in {one["kind"] for one in found} and any(
        "8 pictures (80.0%) are also in" in one["text"] for one in found
    )
    others = write_records(tmp_path / "numbers.tfrecord", [record(i, **{"image/encoded": [i]}) for i in range(9)])
    assert main(["data", "validate", str(others)]) == 64
    assert "its records hold neither pictures, rows nor texts" in capsys.readouterr().err
