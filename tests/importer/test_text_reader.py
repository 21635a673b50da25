"""Which texts a source holds, how they are named, and what becomes of one that can't be read."""

from __future__ import annotations

import gzip
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tfscale.errors import DataMissing, UsageError
from tfscale.importer.import_request import ImportRequest, parse_request
from tfscale.importer.reader import Bad
from tfscale.importer.recognise import look, recognised
from tfscale.importer.text_reader import TextReader


def reader_of(path: Path, *words: str) -> TextReader:
    request = parse_request([str(path), "name=it", *words])
    return TextReader(request, look(request.path), path.parent / "scratch")


def texts_of(reader: TextReader) -> list:
    count = reader.listing().count
    return list(pickle.loads(pickle.dumps(reader)).read(range(count)))


def test_units_of_files(tmp_path):
    book = "Ünter den Linden\r\n\nzwei\n" + "ä" * 100
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + book.encode())
    (tmp_path / "b.txt").write_text("eins")
    for hidden in (".git/deep", "in/.ipynb_checkpoints", "__MACOSX"):
        (tmp_path / hidden).mkdir(parents=True)
        (tmp_path / hidden / "b.txt").write_text("kept by a program")
    assert [one["text"] for one in texts_of(reader_of(tmp_path))] == [book, "eins"]
    lines = reader_of(tmp_path, "data.text.unit=line")
    assert [one["text"] for one in texts_of(lines)] == ["Ünter den Linden", "zwei", "ä" * 100, "eins"]
    listing = lines.listing()
    lines.files.clear()  # names need no file
    assert [listing.name(place) for place in range(4)] == [
        "a.txt line 1",
        "a.txt line 3",
        "a.txt line 4",
        "b.txt line 1",
    ]
    assert listing.left_out == ["1 empty line"] and set(listing.files) == {"a.txt", "b.txt"}
    (tmp_path / "packed").mkdir()
    with gzip.open(tmp_path / "packed" / "c.txt.gz", "wb") as out:
        out.write(book.encode())
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as out:
        out.write(tmp_path / "b.txt", "in/b.txt")
    for path, text, name in (("packed/c.txt.gz", book, "c.txt"), ("d.zip", "eins", "in/b.txt")):
        packed = reader_of(tmp_path / path, "data.text.unit=file")
        assert texts_of(packed) == [{"text": text}] and packed.listing().name(0) == name
    whole = reader_of(tmp_path / "a.txt", "data.text.piece=65")
    pieces = [one["text"] for one in texts_of(whole)]
    assert "".join(pieces) == book and len(pieces) > 3 and max(len(piece.encode()) for piece in pieces) <= 65


def test_json_lines(tmp_path):
    pairs, labelled = tmp_path / "pairs.jsonl", tmp_path / "labelled.jsonl"
    pairs.write_text(
        '{"prompt": "a", "completion": "b"}\n\n{"prompt": "a"}\n["a"]\n{"prompt": "a", "completion": " "}\n'
    )
    first, *bad = texts_of(reader_of(pairs))
    assert first == {"prompt": "a", "completion": "b"}
    assert bad == [Bad("has no text 'completion'"), Bad("is no JSON object"), Bad("has an empty completion")]
    labelled.write_bytes(b'{"text": "x", "n": 10}\n{"text": "y", "n": 9}\n{"text": "\xff", "n": 9}\n{"text": "z"}\n')
    reader = reader_of(labelled, "data.label=n")
    *good, undecodable, without = texts_of(reader)
    assert good == [{"text": "x", "label": "10"}, {"text": "y", "label": "9"}]
    assert undecodable.reason.startswith("is no UTF-8 at byte") and without == Bad("has no label 'n'")
    assert reader.describe(np.array([0]))["label"] == {"name": "n", "kind": "class", "classes": ["9", "10"]}
    assert reader.listing().strata.tolist() == ["10", "9", "", ""]
    dropped = reader_of(labelled, "data.label=n", "data.drop_unlabelled=true", "data.group=text").listing()
    assert (dropped.count, dropped.left_out) == (3, ["1 text without a label"])
    assert dropped.groups.tolist() == ["x", "y", ""]
    odd = tmp_path / "odd.jsonl"
    odd.write_text(
        '{"text": "x", "n": 1.0}\n{"text": "\\ud83d", "n": 0}\n{"text": "\\ud83d\\ude00", "n": 0}\n'
        '{"text": "y", "n": 0.5}\n{"text": "z", "n": "\\ud83d"}\n'
    )
    reader = reader_of(odd, "data.label=n")
    assert texts_of(reader) == [
        {"text": "x", "label": "1"},
        Bad("has half of a letter in 'text', such as \\ud83d alone"),
        {"text": "\U0001f600", "label": "0"},
        *[Bad("has no label 'n'")] * 2,
    ]
    assert reader.describe(np.arange(5))["label"]["classes"] == ["0", "1"]
    assert [recognised(ImportRequest(path=str(path)))[2] for path in (pairs, labelled)] == [
        "JSON lines with prompt and completion",
        "JSON lines with text",
    ]


def test_splits_by_names_and_by_a_field(tmp_path):
    for name, split in (("train", "a"), ("valid", "b")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name, "split": split}) + "\n")
    assert reader_of(tmp_path).listing().splits.tolist() == ["train", "validation"]
    assert reader_of(tmp_path, "data.split_by=split").listing().splits.tolist() == ["a", "b"]
    with pytest.raises(UsageError, match="named like splits"):
        reader_of(tmp_path / "valid.jsonl", "data.split_by=folder").listing()


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("\n")
    for words, error in ((["data.text.unit=lines"], UsageError), (["data.text.tokenizer=bpp"], UsageError),
                         (["data.label=x"], UsageError), (["data.where=x > 1"], UsageError), (["data.text.unit=line"], DataMissing)):  # fmt: skip
        with pytest.raises(error):
            reader_of(tmp_path / "a.txt", *words).listing()
