"""Windows of one file, and what a decoder of GPT-2's form learns from them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfscale.errors import DataMissing, UsageError
from tfscale.generate import generate_text
from tfscale.text.sampling import Sampling
from tfscale.text.text_file import TextFile

TEXT = ("To be, or not to be: ça 漢字.\n" * 12).encode()


def windows(source, split):
    import tensorflow as tf

    indices = tf.data.Dataset.range(source.num_examples(split)).batch(5)
    return list(source.read(split, indices, ram_bytes=0).as_numpy_iterator())


def test_training_begins_at_every_byte_and_evaluation_learns_each_once(tf, tmp_path):
    file = tmp_path / "it.txt"
    file.write_bytes(TEXT)
    source = TextFile(path=str(file), length=9, test_share=0.25)
    source.check()
    first = int(len(TEXT) * 0.75)
    assert windows(source, "train") == [TEXT[at : at + 9] for at in range(first - 8)]
    found = windows(source, "test")
    assert found[0][:1] + b"".join(one[1:] for one in found) == TEXT[first : first + 1 + 8 * len(found)]
    left = len(TEXT) - (first + 1 + 8 * len(found))
    assert 0 <= left < 8 and source.remarks() == ([f"the last {left} bytes fill no window"] if left else [])
    assert source.locate("test", 2) == f"{file}: byte {first + 16}"


def test_the_same_text_elsewhere_is_the_same_data_and_another_is_not(tmp_path):
    for name, content in (("a", TEXT), ("b", TEXT), ("c", TEXT + b".")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (TextFile(path=str(tmp_path / name), length=9).identity() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"path": "absent.txt"}, DataMissing, "absent.txt can't be read"),
        ({"path": "it.txt", "length": 1}, UsageError, "no window"),
        ({"path": "it.txt", "length": 10_000}, UsageError, "have no window of 10000"),
        ({"path": "it.txt", "test_share": 0.0}, UsageError, "no share of a file"),
    ],
)
def test_what_can_be_no_data_is_refused(tmp_path, monkeypatch, fields, error, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it.txt").write_bytes(TEXT)
    with pytest.raises(error, match=said):
        TextFile(**fields).check()


def test_pythons_help_is_there_without_a_file():
    source = TextFile()
    source.check()
    assert source.num_examples("train") > 300_000
    assert "Python's help" in source.remarks()[0]


def test_gpt_learns_a_text_and_goes_on_with_it(tf, cli, tmp_path):
    """After a few hundred steps on a text that repeats itself it knows what comes next."""
    (tmp_path / "it.txt").write_bytes(TEXT * 20)
    small = ("data.length=33", "task.layers=1", "task.width=32", "train.until=150st", "optimizer.learning_rate=0.01",
             "eval.every=150st", "tracker=none", "run.dir=it")  # fmt: skip
    ended = cli("+recipe=gpt", "data.path=it.txt", *small)
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "it" / "result.json").read_text())
    assert result["metrics"]["bits_per_byte"] < 1.0  # 8 where nothing is known
    (tmp_path / "asked.txt").write_text("To be, or not to b\n")
    asked = cli("run.dir=it", "input=asked.txt", "output=next.jsonl", program=("-m", "tfscale.predict"))
    assert asked.code == 0, asked.err
    (row,) = [json.loads(line) for line in (tmp_path / "next.jsonl").read_text().splitlines()]
    assert row["next_token"] - 3 == ord("e")
    assert np.isfinite(row["log_probabilities"]).all()
    assert "200 tokens from the prompt '\\n'" in ended.out and ended.out.count("or not to be: ça 漢字.") > 1
    words = ("run.dir=it", "temperature=0", "tokens=78")
    said = cli("generate", "prompt=To be, or not", *words, program=("-m", "tfscale"))
    assert said.code == 0, said.err
    text, slid, speed = said.out.rstrip("\n").rsplit("\n", 2)
    assert len(text.encode()) == len("To be, or not") + 78
    assert (TEXT * 9).decode().startswith(text) and "past 32 tokens" in slid and "78 tokens by step 150" in speed
    many = cli("input=asked.txt", "output=written.jsonl", *words, program=("-m", "tfscale.generate"))
    assert many.code == 0, many.err
    (row,) = [json.loads(line) for line in (tmp_path / "written.jsonl").read_text().splitlines()]
    assert row["text"].startswith("e: ça 漢字.\nTo be") and (row["tokens"], row["ended"]) == (78, "tokens")
    pieces = list(generate_text(tmp_path / "it", "To be, or not", Sampling(78, 0.0)))
    assert "To be, or not" + "".join(pieces) == text and len(pieces) > 60
    for more, told in ((["input=asked.txt"], "belong together"), ([], "nothing to go on from")):
        refused = cli("run.dir=it", *more, program=("-m", "tfscale.generate"))
        assert refused.code == 64 and told in refused.err
