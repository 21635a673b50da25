"""What isn't finite is written so that every reader of JSON takes it, and comes back as it was."""

from __future__ import annotations

import json
import math
import threading
import time

import numpy as np
import pytest

from tfscale import files
from tfscale.errors import SecurityRefused
from tfscale.files import dumps, numbers


def strict(text: str):
    """Reads as a reader does that holds to the standard."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_what_is_not_finite_comes_back(value):
    told = {"a": [1, {"b": value}], "name": "Nancy", "sums": (value, 2.5)}
    found = numbers(strict(dumps(told)))
    assert found["name"] == "Nancy" and found["sums"][1] == 2.5
    for one in (found["a"][1]["b"], found["sums"][0]):
        assert one == value or (math.isnan(one) and math.isnan(value))


def test_what_is_finite_is_written_as_json_writes_it():
    value = {"a": 0.1, "b": [1, None, True, "x"]}
    assert dumps(value, indent=2, sort_keys=True) == json.dumps(value, indent=2, sort_keys=True)


def test_what_is_replaced_is_whole_or_as_it_was(tmp_path):
    file = tmp_path / "table"
    for text, durable in (("one", False), ("two", True)):
        with files.replacing(file, durable=durable) as temporary:
            temporary.write_text(text)
        assert file.read_text() == text
    with pytest.raises(ZeroDivisionError), files.replacing(file) as temporary:
        temporary.write_text("hal")
        1 / 0  # noqa: B018
    assert file.read_text() == "two" and list(tmp_path.iterdir()) == [file]
    files.write_whole(file, b"three")
    assert file.read_text() == "three" and list(tmp_path.iterdir()) == [file]


def test_what_is_archived_takes_the_place_of_what_was_archived_before(tmp_path):
    for text in ("one", "two"):
        (tmp_path / "step").mkdir()
        (tmp_path / "step" / text).touch()
        files.archive(tmp_path / "step", tmp_path / "damaged-step")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        "damaged-step",
        "damaged-step/two",
    ]


def test_digests_are_of_content_whatever_pieces_and_keys_it_comes_in(tmp_path):
    (tmp_path / "file").write_bytes(b"one two")
    assert files.sha256(tmp_path / "file") == files.sha256_of("one two") == files.sha256_of([b"one", b" two"])
    assert files.digest_of({"a": 1, "b": 2}) == files.digest_of({"b": 2, "a": 1}) != files.digest_of({"a": 2, "b": 1})


def test_a_run_whose_metrics_are_not_finite_leaves_json_and_resumes(tf, policy, tmp_path):
    """Metrics over the examples of a class that there is none of: something or nothing by zero."""
    import keras

    import tfscale

    class Share(keras.metrics.Mean):
        def __init__(self, name, of):
            super().__init__(name=name)
            self.of = of

        def update_state(self, y_true, y_pred, sample_weight=None):
            return super().update_state(tf.ones_like(y_pred[:, 0]))

        def result(self):
            return self.of * self.count / (0.0 * self.count)

    random = np.random.RandomState(0)
    x, y = random.normal(size=(32, 4)).astype("float32"), random.randint(0, 2, 32)

    def fit(until):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, metrics=[Share("none", 0.0), Share("share", 1.0)])
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        overrides = ["train.log_every=3st", "checkpoint.every=2st"]
        return tfscale.fit(model, data, test=data, until=until, run_dir=tmp_path / "r", overrides=overrides)

    for until in ("1ep", "2ep", "2ep"):  # the last is read from result.json
        found = fit(until).metrics
        assert math.isnan(found["none"]) and found["share"] == math.inf
    texts = [(tmp_path / "r" / "metrics.jsonl").read_text(), (tmp_path / "r" / "attempts.jsonl").read_text()]
    rows = [strict(line) for text in texts for line in text.splitlines()]
    assert {(row.get("none"), row.get("share")) for row in rows if row["kind"] == "test"} == {("NaN", "Infinity")}
    manifests = sorted((tmp_path / "r").rglob("manifest.json"))
    read = [strict(file.read_text()) for file in (tmp_path / "r" / "result.json", *manifests)]
    assert len(read) > 2 and read[0]["metrics"]["share"] == "Infinity" == read[-1]["memory"]["test"]["share"]


def test_links_are_looked_for_in_a_folder_whose_folders_come_and_go(tmp_path):
    over = threading.Event()

    def tidy() -> None:
        number = 0
        while not over.is_set():
            written, whole = tmp_path / f"writing{number % 7}", tmp_path / f"whole{number % 7}"
            written.mkdir()
            written.rename(whole)
            whole.rmdir()
            number += 1

    thread = threading.Thread(target=tidy)
    thread.start()
    try:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            files.refuse_links(tmp_path)
    finally:
        over.set()
        thread.join()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(SecurityRefused, match="link to"):
        files.refuse_links(tmp_path)
