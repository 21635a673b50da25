"""Texts that a model writes: what the cache keeps is what the model would compute anew."""

from __future__ import annotations

import numpy as np
import pytest

from tfscale.errors import UsageError
from tfscale.generate import generate_text
from tfscale.text.generation import Passes, Writer
from tfscale.text.sampling import Sampling
from tfscale.text.text_task import Text
from tfscale.text.tokenizers import Tokenizer, train

pytestmark = pytest.mark.usefixtures("tf")

GREEDY = Sampling(tokens=40, temperature=0)


def made(tokenizer=None, *, length=24, dtype="float32", marked=True, **fields):
    """A task and its model, with weights that are large enough to prefer some tokens clearly."""
    import keras

    tokenizer = tokenizer or Tokenizer()
    keras.utils.set_random_seed(5)
    spec = {"length": length, "vocabulary": tokenizer.vocabulary, "tokenizer": tokenizer.whole(), "fields": ["text"]}
    task = Text(layers=2, width=32, heads=4, deviation=0.3, **fields).for_data({**spec, "marked": marked})
    keras.config.set_dtype_policy(dtype)
    try:
        return task, task.build_model()
    finally:
        keras.config.set_dtype_policy("float32")


def written(task, model, sampling, prompts):
    writer, pieces = Writer(task.language(), model, sampling), [[] for _ in prompts]
    for place, piece in writer.write(prompts):
        pieces[place].append(piece)
    assert ["".join(one) for one in pieces] == [text.text for text in writer.texts]
    return writer, pieces


def behind(model, length):
    """What gives the logits behind tokens, by the model itself."""
    import tensorflow as tf

    called = tf.function(lambda inputs: tf.cast(model(inputs), tf.float32), autograph=False)

    def full(tokens):
        row, places = np.zeros([1, length], np.int32), np.arange(length, dtype=np.int32)[None]
        row[0, : len(tokens)] = tokens
        logits = called({"tokens": row, "segments": (places < len(tokens)).astype(np.int32), "positions": places})
        return logits.numpy()[0, len(tokens) - 1]

    return full


@pytest.mark.parametrize(
    ("fields", "dtype"),
    [({"tied": True, "bias": False}, "float32"), ({}, "mixed_bfloat16"), ({"dropout": 0.3}, "float32")],
)
def test_with_the_cache_the_model_writes_what_it_writes_without(fields, dtype):
    """Past its window, too; in bfloat16, whose sums differ with their order, logits to a hundredth of their spread."""
    task, model = made(dtype=dtype, **fields)
    prompts = ["To be", "", "a prompt that is longer than the window"]
    writer, _ = written(task, model, GREEDY, prompts)
    full = behind(model, 24)
    assert writer.window == 23 and len(writer.notices) == 2
    for prompt, text in zip(prompts, writer.texts, strict=True) if dtype == "float32" else ():
        seen, chosen = [1, *(byte + 3 for byte in prompt.encode())][-23:], []
        while len(chosen) < text.tokens:
            logits = full(seen)
            logits[[0, 1]] = -np.inf
            chosen.append(int(np.argmax(logits)))
            seen.append(chosen[-1])
            seen = seen[-11:] if len(seen) > 23 else seen
        assert text.text == bytes(n - 3 for n in chosen if n > 2).decode(errors="replace")
        assert len(set(chosen)) > 5
    rows = np.array([[1, 50, 60, 70, 80], [1, 90, 100, 0, 0]], np.int32)
    filled = np.pad(rows, [[0, 0], [0, 18]])
    logits, cache = writer._decoder.read(filled, np.array([5, 3], np.int32))
    tolerance = 1e-5 if dtype == "float32" else 0.02
    for row, (tokens, size) in enumerate(zip(rows, (5, 3), strict=True)):
        expected = full(tokens[:size])
        assert np.abs(logits[row] - expected).max() <= tolerance * np.ptp(expected)
    logits, _ = writer._decoder.step(np.array([7, 8], np.int32), np.array([6, 4], np.int32), cache)
    for row, tokens in enumerate(([*rows[0], 7], [*rows[1][:3], 8])):
        expected = full(tokens)
        assert np.abs(logits[row] - expected).max() <= tolerance * np.ptp(expected)


def test_a_seed_gives_the_text_again_and_both_methods_are_compiled_once():
    task, model = made()
    sampling = Sampling(tokens=60, temperature=0.9, top_k=20, top_p=0.9, seed=4)
    writer, _ = written(task, model, sampling, ["To be", "or not"])
    texts = [text.text for text in writer.texts]
    list(writer.write(["To be", "or not"]))
    assert [text.text for text in writer.texts] == texts
    assert [method.experimental_get_tracing_count() for method in writer._compiled] == [1, 1]
    other, _ = written(task, model, Sampling(tokens=60, temperature=0.9, seed=5), ["To be", "or not"])
    assert [text.text for text in other.texts] != texts
    both, _ = written(task, model, sampling, ["To be", "To be"])
    assert both.texts[0].text != both.texts[1].text


def test_writers_share_passes_that_are_compiled_once():
    task, model = made()
    passes = Passes(task.language(), model)
    for sampling in (GREEDY, Sampling(tokens=40, temperature=0.9, top_k=20, seed=4)):
        expected, _ = written(task, model, sampling, ["To be"])
        sharing = Writer(task.language(), model, sampling, passes)
        assert "".join(piece for _, piece in sharing.write(["To be"])) == expected.texts[0].text
    assert [one.experimental_get_tracing_count() for one in passes.compiled] == [1, 1]


def test_tokens_are_drawn_as_often_as_their_probabilities_say():
    import tensorflow as tf

    chances = np.array([0.5, 0.25, 0.15, 0.1], np.float32)
    logits = tf.tile(np.log(chances)[None], [20_000, 1])

    def shares(**fields):
        drawn = Sampling(**{"temperature": 1.0, **fields}).choose(logits, draw=3)
        return np.bincount(drawn, minlength=4) / 20_000

    np.testing.assert_allclose(shares(), chances, atol=0.015)
    np.testing.assert_allclose(shares(temperature=0.5), chances**2 / sum(chances**2), atol=0.015)
    np.testing.assert_allclose(shares(top_k=2), [2 / 3, 1 / 3, 0, 0], atol=0.015)
    np.testing.assert_allclose(shares(top_p=0.8), [5 / 9, 2.5 / 9, 1.5 / 9, 0], atol=0.015)
    np.testing.assert_allclose(shares(top_p=0.4), [1, 0, 0, 0])
    np.testing.assert_allclose(shares(temperature=0.0), [1, 0, 0, 0])


def test_pieces_are_whole_characters_and_a_text_ends_before_its_stop():
    """A model that goes through its prompt again and again, whatever the tokenizer."""

    class Parrot(Writer):
        def _read(self, draw):
            return self._next(draw), None

        def _next(self, draw):
            return [row[draw % len(row)] for row in self.rows]

    round_ = "ça 漢字 STOP 😀"
    for tokenizer in (Tokenizer(), train(["To be or not to be\n"] * 50, kind="bpe", vocabulary=300)):
        task, model = made(tokenizer)
        numbers = [int(n) for n in tokenizer.operations().tokenize(round_)]
        writer = Parrot(task.language(), model, Sampling(tokens=2 * len(numbers)))
        writer.rows = [numbers]
        pieces = [piece for _, piece in writer.write(["x"])]
        assert "".join(pieces) == 2 * round_ and len(pieces) > 10 and "�" not in "".join(pieces)
        stopped = Parrot(task.language(), model, Sampling(tokens=2 * len(numbers), stop=("STOP", "字 SX")))
        stopped.rows = [numbers, [tokenizer.end]]
        assert "".join(piece for _, piece in stopped.write(["x", "y"])) == "ça 漢字 "
        assert [text.ended for text in stopped.texts] == ["stop", "end"]
        cut = Parrot(task.language(), model, Sampling(tokens=len(tokenizer.operations().tokenize("ça 漢")) - 1))
        cut.rows = [numbers]
        assert "".join(piece for _, piece in cut.write(["x"])).startswith("ça ")
        assert cut.texts[0].ended == "tokens"


@pytest.mark.parametrize(
    ("sampling", "fields", "said"),
    [
        ({"temperature": -1.0}, {}, "-1.0 is no temperature"),
        ({"temperature": float("nan")}, {}, "nan is no temperature"),
        ({"temperature": 0, "top_k": 3}, {}, "top_k has no effect"),
        ({"top_k": 0}, {}, "of 0 tokens none can be drawn"),
        ({"top_k": 300}, {}, "knows 259 tokens"),
        ({"top_p": 1.5}, {}, "1.5 is no probability"),
        ({"tokens": 0}, {}, "0 tokens are no text"),
        ({"seed": -1}, {}, "-1 is no seed"),
        ({"stop": ("",)}, {}, "an empty text ends every text"),
        ({"stop": "."}, {}, "is one text, and several may stop"),
        ({}, {"objective": "masked"}, "objective is masked"),
        ({}, {"marked": False}, "nothing to go on from"),
    ],
)
def test_what_writes_no_text_is_refused(sampling, fields, said):
    task, model = made(**fields)
    with pytest.raises(UsageError, match=said):
        list(Writer(task.language(), model, Sampling(**sampling)).write([""]))


def test_a_run_of_pictures_writes_no_text(trained_run):
    with pytest.raises(UsageError, match="no language model"):
        next(generate_text(trained_run, "To be"))
