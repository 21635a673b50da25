"""Reports of language models: figures by hand, and the page of a small decoder and of a model of hidden tokens."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from support.browser import loaded_from_outside, width_on

from tfscale.errors import UsageError
from tfscale.evaluate import evaluate_run
from tfscale.report.language_figures import language_figures, rows_apart, worst_rows
from tfscale.report.report_request import ReportRequest
from tfscale.report.token_rows import TokenRows, positions_of

TEXT = "To be, or not to be: <b>ça</b> 漢字.\n" * 40
TINY = ("data.length=17", "task.width=16", "task.heads=2", "task.layers=1", "train.global_batch=8", "tracker=none",
        "export.at_end=false", "plan.precision=float32")  # fmt: skip


def rows(nats, tokens, right=None):
    """Rows whose tokens lie in two bins, the first half of each (rounded up) in the first."""
    nats, tokens = np.array(nats, float), np.array(tokens, float)
    first = np.ceil(tokens / 2)
    share = first / tokens
    by_position = np.stack([np.stack([nats * share, nats * (1 - share)], 1), np.stack([first, tokens - first], 1)])
    marks = np.arange(len(nats))
    return TokenRows(marks, nats, np.array(right if right is not None else tokens * 0), tokens, tokens * 2,
                     by_position, positions_of(2), marks)  # fmt: skip


def test_all_tokens_count_alike_however_long_their_rows_are():
    found = language_figures(rows([2.0, 90.0], [10, 30], [5.0, 5.0]))
    assert found.tokens == 40 and found.metrics["loss"].value == pytest.approx(92 / 40)
    assert found.metrics["perplexity"].value == pytest.approx(math.exp(2.3))
    assert found.metrics["accuracy"].value == pytest.approx(0.25)
    assert found.metrics["bits_per_byte"].value == pytest.approx(92 / math.log(2) / 80)
    loss = found.metrics["loss"]
    assert (loss.low, loss.high) == (0.2, 3.0)  # of two rows each may be drawn twice
    assert [row["tokens"] for row in found.positions] == [20, 20]
    assert found.positions[0]["perplexity"].value == pytest.approx(math.exp((1 + 45) / 20))
    assert positions_of(9).tolist() == [0, 1, 2, 4, 8, 9]


def test_the_worst_rows_are_those_of_enough_tokens():
    assert worst_rows(rows([50.0, 40.0, 30.0, 10.0], [2, 20, 10, 10]), 2) == [2, 1]
    assert worst_rows(rows([5.0, 4.0], [2, 1]), 9) == [0]


def test_two_models_on_the_same_rows():
    random = np.random.default_rng(0)
    tokens = random.integers(5, 50, 200)
    own = rows(tokens * 2.0, tokens)
    other = rows(tokens * 2.1 + random.normal(0, 0.1, 200), tokens)
    told = rows_apart(own, other)["loss"]
    assert told["difference"] == pytest.approx((own.nats.sum() - other.nats.sum()) / tokens.sum())
    assert told["low"] < told["difference"] < told["high"] < -0.099
    apart = told["high"] - told["low"]
    assert apart < 0.002  # of the difference: the rows' own losses have nothing to do with it


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    file = tmp_path_factory.mktemp("texts") / "it.txt"
    file.write_text(TEXT)
    return file


def trained(recipe, texts, *more):
    import tfscale

    folder = texts.parent / recipe
    words = [f"+recipe={recipe}", f"data.path={texts}", f"run.dir={folder}", *TINY, *more]
    tfscale.fit(tfscale.compose(words), environ={})
    return folder


@pytest.fixture(scope="module")
def decoder(tf, texts):
    return trained("gpt", texts, "train.until=60st")


def test_a_decoder(tf, decoder, tmp_path):
    from tfscale.trained.predictions import answered_steps
    from tfscale.trained.restored_run import RestoredRun

    folder, page = decoder, tmp_path / "p.html"
    told = evaluate_run(folder, report=ReportRequest(page, against=str(folder)), checkpoint="last")
    numbers, text = json.loads(page.with_suffix(".json").read_text()), page.read_text()
    for name in ("loss", "perplexity", "accuracy", "bits_per_byte"):
        assert numbers["metrics"][name]["value"] == pytest.approx(told["metrics"][name], rel=1e-5)
        assert numbers["against"]["metrics"][name]["difference"] == 0  # of a run and itself
    with RestoredRun.open(folder, checkpoint="last") as run:
        scores = np.concatenate([step.answers["log_probabilities"] for step in answered_steps(run, "test")])
    by_place = -scores.mean(0)  # every row is full: of a decoder all but its first token are predicted
    bins = {(row["first"], row["last"]): row for row in numbers["positions"]}
    assert list(bins) == [(1, 1), (2, 3), (4, 7), (8, 15), (16, 16)]
    for (start, end), row in bins.items():
        assert row["perplexity"]["value"] == pytest.approx(math.exp(by_place[start : end + 1].mean()), rel=1e-4)
        assert row["tokens"] == (end + 1 - start) * len(scores)
    worst = np.argsort(scores.mean(1), kind="stable")
    assert numbers["worst"][0]["place"] == worst[0]
    assert numbers["worst"][0]["loss"] == pytest.approx(-scores[worst[0]].sum() / 16, rel=1e-5)
    assert len(numbers["samples"]) == 4 and all(one["text"] for one in numbers["samples"])
    assert numbers["samples"][2]["prompt"] in TEXT
    assert "What it writes" in text and "<b>ça" not in text and text.count("<svg") == 1
    assert not loaded_from_outside(text)
    for request, said in (
        (ReportRequest(page, slices="town"), "no columns"),
        (ReportRequest(page, importance=100), "no columns"),
    ):
        with pytest.raises(UsageError, match=said):
            evaluate_run(folder, report=request)
    assert 300 < width_on(360, page, tmp_path) <= 360


def test_a_model_of_hidden_tokens(tf, decoder, texts, tmp_path):
    folder, page = trained("bert", texts, "train.until=2st"), tmp_path / "p.html"
    told = evaluate_run(folder, report=ReportRequest(page), checkpoint="last")
    numbers = json.loads(page.with_suffix(".json").read_text())
    for name in ("loss", "perplexity", "accuracy"):
        assert numbers["metrics"][name]["value"] == pytest.approx(told["metrics"][name], rel=1e-5)
    assert "bits_per_byte" not in numbers["metrics"] and "samples" not in numbers
    assert "What it writes" not in page.read_text() and numbers["worst"][0]["tokens"] > 0
    with pytest.raises(UsageError, match="rows of tokens, and this run|predicted other tokens"):
        evaluate_run(folder, report=ReportRequest(None, against=str(decoder)))
