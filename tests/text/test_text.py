"""Tokenizers, rows, and the task that learns from them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfscale.errors import DataCorrupt, DataMissing, UsageError
from tfscale.text.given_texts import GivenTexts
from tfscale.text.packing import cut_texts, pack
from tfscale.text.rows import TextRows
from tfscale.text.sequences import Rows, Tokenized
from tfscale.text.text_task import Text
from tfscale.text.tokenizers import Tokenizer, train

pytestmark = pytest.mark.usefixtures("tf")

ODD = ["To be, or not to be", " a  b\n\nça 漢字 \t x\r\n ", "", "\n", "x\0y"]
LINES = [f"{who} {does} the {what}.\n" for who in ("Anna", "Ben", "Čapek") for does in ("sees", "eats", "paints")
         for what in ("house", "apple", "river", "sun", "moon")]  # fmt: skip


def numbers(tokenizer, texts):
    import tensorflow as tf

    operations = tokenizer.operations()
    return [operations.tokenize(tf.constant(text)).numpy() for text in texts]


@pytest.mark.parametrize("kind", ["bytes", "bpe", "unigram"])
def test_a_text_comes_back_as_it_was(kind):
    tokenizer = train(LINES, kind=kind, vocabulary=300)
    found = numbers(tokenizer, [*ODD, *LINES])
    assert [tokenizer.text_of(one) for one in found] == [*ODD, *LINES]
    assert max(one.max(initial=0) for one in found) < tokenizer.vocabulary
    assert train(LINES, kind=kind, vocabulary=300) == tokenizer  # to the byte
    assert Tokenizer.of(json.loads(json.dumps(tokenizer.whole()))) == tokenizer


def test_every_token_but_a_texts_first_is_predicted_once():
    sizes = [2, 9, 8, 15, 16, 1, 100]
    pieces = cut_texts(sizes, 8)
    for text, size in enumerate(sizes):
        predicted = [n for p in pieces if p.text == text for n in range(p.start + 1, p.start + p.size)]
        assert predicted == list(range(1, size))
    rows = pack([piece.size for piece in pieces], 8)
    assert sorted(place for row in rows for place in row) == list(range(len(pieces)))
    assert max(sum(pieces[place].size for place in row) for row in rows) <= 8
    assert len(rows) == -(-sum(piece.size for piece in pieces) // 8)  # as few as there can be


def small(**fields):
    """A task and its model, as of data in bytes."""
    import keras

    keras.utils.set_random_seed(3)
    spec = {"length": 32, "vocabulary": 259, "tokenizer": Tokenizer().whole(), "fields": ["text"], **fields}
    own = {name: spec.pop(name) for name in ("objective", "form") if name in spec}
    task = Text(layers=2, width=16, heads=2, **own).for_data(spec)
    return task, task.build_model()


def rows_of(texts, *, packed, width=32):
    """Rows of texts, or of prompts with completions, as `TextRows.parse` gives them; and what was counted."""
    import tensorflow as tf

    made = Rows(Tokenizer(), width, packed=packed)
    texts = [(text,) if isinstance(text, str) else text for text in texts]
    tokenized = [Tokenized(numbers(Tokenizer(), one), [part.encode() for part in one]) for one in texts]
    found = [{"tokens": tf.constant(row.tokens), "pieces": tf.constant(row.pieces, tf.int64),
              "given": tf.constant(row.given, tf.int64), "bytes": tf.constant(row.size), "seed": tf.zeros([2], tf.int64),
              "left_out": tf.constant(row.left_out)} for row in made.of(tokenized)]  # fmt: skip
    return found, made.counts


def batch_of(task, examples):
    import tensorflow as tf

    each = [task.preprocess(example, training=False) for example in examples]
    batch = {name: tf.stack([one[name] for one in each]) for name in each[0]}
    return {**batch, "weight": tf.ones([len(each)])}


TEXTS = ["To be", "or not to be,", "that", "is the question: whether 'tis nobler in the mind to suffer", "the slings"]


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_a_text_in_a_packed_row_has_the_loss_that_it_has_alone(objective):
    task, model = small(objective=objective)
    task.hidden = 1.1  # so that the same tokens are hidden wherever they stand
    (packed, counts), (alone, _) = (rows_of(TEXTS, packed=p, width=w) for p, w in ((True, 32), (False, 80)))
    assert counts["rows"] == 4 < len(TEXTS) and counts["left_out"] == 0
    losses, metrics = task.loss(model, batch_of(task, packed), training=False)
    each = []
    for text in TEXTS:  # the long one in the rows that it is cut into
        batch = batch_of(task, rows_of([text], packed=True)[0])
        each.append(task.loss(model, batch, training=False)[1]["_summed"].numpy())
    expected, found = np.sum(each, 0), metrics["_summed"].numpy()
    if objective == "causal":
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert (found[1], found[3]) == (sum(len(t) + 1 for t in TEXTS), sum(map(len, TEXTS)))  # each end, too
    else:
        np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-5)
    result = task.metric_result(found)
    assert result["loss"] == pytest.approx(float(np.mean(losses)), rel=1e-5) == pytest.approx(found[0] / found[1])
    assert alone[3]["left_out"] == 0


def test_the_loss_of_a_step_in_parts_is_that_of_the_step():
    import tensorflow as tf

    task, model = small()
    batch = batch_of(task, rows_of(TEXTS, packed=True)[0])
    whole, _ = task.loss(model, batch, training=True)
    parts = [{name: value[a:b] for name, value in batch.items()} for a, b in ((0, 1), (1, 4))]
    counted = tf.add_n([task.count(model, part) for part in parts])
    losses = [task.loss(model, {**part, "_whole": counted}, training=True)[0] for part in parts]
    np.testing.assert_allclose(np.concatenate(losses), whole, rtol=1e-5)


def test_a_prompt_is_given_and_not_learnt():
    task, model = small(fields=["prompt", "completion"])
    pairs = [("Who? ", "me"), ("Where? ", "here"), ("x" * 40, "y"), ("When? ", "z" * 40)]
    rows, counts = rows_of(pairs, packed=True)
    assert (counts["cut"], counts["left_out"], counts["without"]) == (1, 16, 1)
    batch = batch_of(task, rows)
    learnt = [[bytes([t - 3]) if t > 2 else t for t in np.roll(tokens, -1)[mask > 0]] for tokens, mask in
              zip(batch["tokens"].numpy(), batch["learnt"].numpy(), strict=True)]  # fmt: skip
    assert learnt == [[b"z"] * 25, [*(b"here"[i : i + 1] for i in range(4)), 2, b"m", b"e", 2]]
    import tensorflow as tf

    raw = {"prompt": tf.constant("Who? "), "completion": tf.constant("me"), "seed": tf.zeros([2], tf.int64)}
    answer = task.predict(model, batch_of(task, [raw]))
    (scores,) = answer["log_probabilities"].numpy()
    assert list(np.flatnonzero(scores)) == [6, 7]
    assert answer["left_out"].numpy() == [0]


def test_a_raw_text_becomes_the_row_that_was_trained_on():
    import tensorflow as tf

    task, _ = small(num_classes=2)
    for other in ({"length": 64}, {"tokenizer": {**Tokenizer().whole(), "vocabulary": 300}}):
        with pytest.raises(UsageError, match="the rows are"):
            task.for_data({**other})
    assert task.kind == "classification"
    rows, counts = rows_of(TEXTS, packed=False)
    assert (counts["cut"], counts["left_out"]) == (1, 28)
    raw = [{"text": tf.constant(text), "seed": tf.zeros([2], tf.int64)} for text in TEXTS]
    trained, served = batch_of(task, rows), batch_of(task, raw)
    assert set(trained) == set(served)
    for name in served:
        np.testing.assert_array_equal(trained[name], served[name], err_msg=name)


def test_from_a_file_to_an_export_that_takes_text(cli, tmp_path):
    """Trained, evaluated, predicted and exported, with a tokenizer that was learnt."""

    (tmp_path / "lines.txt").write_text("".join(LINES))
    words = ["lines.txt", "name=lines", "dir=data", "text.unit=line", "text.tokenizer=bpe", "text.vocabulary=300"]
    imported = cli(*words, program=("-m", "tfscale.importer"))
    assert imported.code == 0 and "train on it: tfscale train +recipe=text data.name=lines" in imported.out, (
        imported.err
    )
    ended = cli("+recipe=text", "data.name=lines", "data.dir=data", "data.length=24", "task.layers=1",
                "task.width=16", "task.heads=2", "train.until=2st", "train.global_batch=4", "tracker=none",
                "run.dir=it")  # fmt: skip
    assert ended.code == 0, ended.err
    assert "texts of the train split in" in " ".join(ended.out.split())
    metrics = json.loads((tmp_path / "it" / "result.json").read_text())["metrics"]
    assert metrics["perplexity"] == pytest.approx(np.exp(metrics["loss"])) and metrics["bits_per_byte"] > 0
    about = json.loads((tmp_path / "it" / "export" / "export.json").read_text())
    assert about["imports"] == ["tensorflow_text"] and set(about["inputs"]) == {"text"}
    (tmp_path / "asked.txt").write_text("Anna sees\n\nBen eats the sun." + " and more" * 9 + "\n")
    said = cli("run.dir=it", "input=asked.txt", "output=said.jsonl", program=("-m", "tfscale.predict"))
    assert said.code == 0, said.err
    first, second = map(json.loads, (tmp_path / "said.jsonl").read_text().splitlines())
    assert (first["name"], first["left_out"]) == ("line 1", 0) and second["left_out"] > 0
    seen = cli("run.dir=it", program=("-m", "tfscale.evaluate"))
    assert seen.code == 0 and f"{metrics['perplexity']:.4f}" in seen.out, seen.err


def test_a_text_to_predict_that_has_no_bytes_is_named(tmp_path):
    (tmp_path / "asked.jsonl").write_text('{"text": "well"}\n{"text": "\\ud83d"}\n')
    with pytest.raises(DataCorrupt, match="line 2 holds half of a letter"):
        GivenTexts(path=str(tmp_path / "asked.jsonl")).check()


@pytest.mark.parametrize(("objective", "causal"), [("causal", True), ("classification", False)])
def test_the_cost_that_is_declared_is_that_of_the_model(objective, causal):
    from tfscale.measures.flops import profiled_flops

    task, model = small(objective=objective, num_classes=None if causal else 3)
    declared = task.footprint()
    assert declared.parameters == model.count_params()
    rows, _ = rows_of(["To be"], packed=causal)
    batch = {**batch_of(task, rows), **({} if causal else {"label": np.zeros(1, np.int64)})}
    assert profiled_flops(task, model, batch) == pytest.approx(declared.forward_flops, rel=0.05)


@pytest.mark.parametrize("objective", ["masked", "classification"])
def test_a_bert_costs_what_it_declares(objective):
    from tfscale.measures.flops import profiled_flops

    task, model = small(objective=objective, form="bert", num_classes=None if objective == "masked" else 3)
    declared = task.footprint()
    assert declared.parameters == model.count_params()
    batch = batch_of(task, rows_of(["To be"], packed=objective == "masked")[0])
    batch = batch if objective == "masked" else {**batch, "label": np.zeros(1, np.int64)}
    assert profiled_flops(task, model, batch) == pytest.approx(declared.forward_flops, rel=0.05)


def test_hidden_tokens_are_masked_swapped_and_kept_by_their_shares():
    import tensorflow as tf

    task = Text(objective="masked", hidden=0.5, swapped=0.3, kept=0.2).for_data(
        {"length": 4000, "vocabulary": 259, "tokenizer": Tokenizer().whole(), "fields": ["text"]}
    )
    raw = {"text": tf.constant("a" * 3998), "seed": tf.constant([3, 4], tf.int64)}
    row = {name: value.numpy() for name, value in task.preprocess(raw, training=True).items()}
    hidden, read = row["learnt"] > 0, row["read"]
    assert hidden.mean() == pytest.approx(0.5, abs=0.03) and (read[~hidden] == row["tokens"][~hidden]).all()
    shares = [np.mean(one) for one in (read[hidden] == 259, read[hidden] == ord("a") + 3)]
    assert shares == pytest.approx([0.5, 0.2], abs=0.04)
    assert len(np.unique(read[hidden])) > 200
    with pytest.raises(UsageError, match="no shares"):
        Text(objective="masked", swapped=0.6, kept=0.5)
    with pytest.raises(UsageError, match="can't learn what comes next"):
        Text(objective="causal", form="bert")


def test_what_a_bert_learnt_of_masked_texts_is_where_a_classifier_begins(tf, tmp_path):
    """All but the head; and more than a fresh model knows."""
    from tfscale.trained.warm_start import warm_start

    _, masked = small(objective="masked", form="bert")
    _, model = small(objective="classification", form="bert", num_classes=3)
    masked.save(tmp_path / "masked.keras")
    found = warm_start(model, str(tmp_path / "masked.keras"))
    new = {name.split("/")[0] for name in found.fresh}
    left = {name.split("/")[0] for name in found.left_out}
    assert new == {"pooler", "logits"} and left == {"head_dense", "head_norm", "head_bias"}
    np.testing.assert_array_equal(
        model.get_layer("token_embedding").embeddings, masked.get_layer("token_embedding").embeddings
    )


def test_texts_that_arent_there_are_named_whatever_is_asked_first(tmp_path):
    with pytest.raises(DataMissing, match="no data set named 'absent'"):
        TextRows(dir=str(tmp_path), name="absent").identity()
