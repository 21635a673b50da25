"""task=text: a small transformer that learns from texts what comes next, what is hidden, or which class a text has.

Owns the loss per token, the figures of a language model, and the way from a raw text to a row of tokens. Refuses to
know files and how rows are packed, which are rows.py's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from tfscale.errors import UsageError, nearest
from tfscale.models import bert, transformer
from tfscale.models.class_scores import class_answers, class_losses
from tfscale.models.transformer import Shape
from tfscale.task import METRIC_STATE, Footprint, Task
from tfscale.text.token_losses import COUNTED, FIGURES, counted_tokens, figures, token_losses
from tfscale.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from tfscale.text.generation import Language

OBJECTIVES = ("causal", "masked", "classification")
FORMS = ("gpt2", "bert")
_PLAIN = {"form": "gpt2", "swapped": 0.0, "kept": 0.0}  # what names of runs leave out, since they had none of it once
_INPUTS = ("tokens", "segments", "positions")


@dataclass
class Text(Task):
    """Language modelling or classification; length, vocabulary, tokenizer, fields and num_classes come from the data.

    `objective`: "causal" predicts every token from those before it (of a prompt and its completion those of the
    completion alone), "masked" every hidden one from all others, "classification" a text's label. null: classification
    where the data have labels, else causal. The loss of language is the mean over tokens.

    `form`: "gpt2", see models/transformer.py, or "bert", see models/bert.py, for all but causal. Weights that a bert
    learnt on masked texts fit one that classifies, by init_from.
    """

    stable_name: ClassVar[str] = "text"

    # causal, masked or classification; null: classification where the data have labels, else causal
    objective: Optional[str] = None
    layers: int = 4  # how many blocks there are
    width: int = 128  # length of a token's vector
    heads: int = 4  # heads of attention
    dropout: float = 0.0  # share of the numbers that are left out in training
    tied: bool = False  # answers are compared with the tokens' embeddings
    bias: bool = True  # whether products and normalisations add one
    epsilon: float = 1e-3  # what keeps normalisations from a division by zero
    deviation: Optional[float] = None  # of the weights as they are drawn, see models/transformer.py; null: Keras's own
    form: str = "gpt2"  # gpt2, or bert, which is masked or classifies
    hidden: float = 0.15  # share of the tokens that a masked language model must find
    swapped: float = 0.0  # of the hidden tokens the share that is read as any other token, and not as the mask
    kept: float = 0.0  # of the hidden tokens the share that is read as it is
    length: Optional[int] = None  # tokens of a row; null: the data's
    vocabulary: Optional[int] = None  # how many tokens there are; null: the data's
    num_classes: Optional[int] = None  # how many classes there are; null: the data's
    fields: Optional[list[str]] = None  # of a raw example: text, or prompt and completion
    marked: Optional[bool] = None  # whether texts have a token for their beginning and one for their end; null: yes
    sample: int = 0  # tokens of a text that is written and shown when a training is complete
    tokenizer: Optional[dict[str, Any]] = None  # what makes tokens of a text; null: the data's

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UsageError(
                f"no form is called {self.form!r}{nearest(self.form, FORMS)}",
                where="task.form",
                fix=f"use one of {', '.join(FORMS)}",
            )
        if self.form == "bert" and self.objective == "causal":
            raise UsageError(
                "a bert sees the whole row, and can't learn what comes next",
                where="task.form",
                fix="task.form=gpt2, or task.objective=masked",
            )
        if min(self.hidden, self.swapped, self.kept) < 0 or self.swapped + self.kept > 1:
            raise UsageError(
                f"{self.hidden}, {self.swapped} and {self.kept} are no shares of tokens",
                where="task.hidden",
                fix="task.hidden=0.15 task.swapped=0.1 task.kept=0.1",
            )
        if self.objective is not None and self.objective not in OBJECTIVES:
            raise UsageError(
                f"no objective is called {self.objective!r}{nearest(self.objective, OBJECTIVES)}",
                where="task.objective",
                fix=f"use one of {', '.join(OBJECTIVES)}",
            )
        if self.width % self.heads:
            raise UsageError(
                f"{self.heads} heads don't share a width of {self.width} evenly",
                where="task.heads",
                fix=f"task.width={-(-self.width // self.heads) * self.heads}",
            )

    @property
    def kind(self) -> str:
        """The objective, from the data where it isn't given."""
        return self.objective or ("causal" if self.num_classes is None else "classification")

    def ignored(self):
        found = {}
        if self.sample and self.objective not in (None, "causal"):
            found["sample"] = "only a model of task.objective=causal writes texts (task.sample=0)"
        if self.form == "bert" and not self.bias:
            found["bias"] = "a bert has biases"
        return found

    def labels(self):
        return super().labels() if self.kind == "classification" else ()

    def check_data(self, spec):
        if self.fields is None or self.tokenizer is None:
            raise UsageError(
                "the data are no texts with a tokenizer",
                where="data",
                fix="import them by tfscale data import PATH name=NAME, then data=text data.name=NAME",
            )
        if self.kind == "classification" and self.num_classes is None:
            raise UsageError(
                "the texts have no labels, which a classification learns",
                where="task.objective",
                fix="task.objective=causal, or import them with data.label=COLUMN",
            )

    def for_data(self, spec):
        """Refuses rows that this task's model would read as something else: of another tokenizer, or longer."""
        length, tokenizer = spec.get("length"), spec.get("tokenizer")
        if None not in (self.length, length) and self.length != length:
            raise UsageError(
                f"the rows are {length} tokens long, and the model takes {self.length}",
                where="data.length",
                fix=f"data.length={self.length}",
            )
        if None not in (self.tokenizer, tokenizer) and self.tokenizer != tokenizer:
            raise UsageError(
                "the rows are of another tokenizer than those that the model was trained on",
                where="data.name",
                fix="import these texts with data.text.tokenizer=FILE, the tokenizer.model beside the training's data",
            )
        return super().for_data(spec)

    def identity(self):
        others = ("tokenizer", "fields", "marked", "sample")  # the data's, and what changes no weight
        found = {n: v for n, v in super().identity().items() if n not in others and not n.startswith("_")}
        return {n: v for n, v in found.items() if n not in _PLAIN or v != _PLAIN[n]}

    def shape(self) -> Shape | None:
        """None while the data haven't told the vocabulary and the length."""
        if self.vocabulary is None or self.length is None:
            return None
        classes = self.num_classes if self.kind == "classification" else None
        names = ("layers", "width", "heads", "dropout", "tied", "bias", "epsilon", "deviation")
        sizes = {name: getattr(self, name) for name in names}
        mask = self.kind == "masked" or self.form == "bert"  # a bert keeps its embeddings where it classifies
        return Shape(self.vocabulary, self.length, classes=classes, mask=mask, **sizes)

    def footprint(self) -> Footprint | None:
        shape = self.shape()
        if shape is None:
            return None
        return bert.footprint(shape) if self.form == "bert" else transformer.footprint(shape)

    def build_model(self):
        self.check_data({})
        shape = self.shape()
        if shape is None:
            raise UsageError(
                "the data doesn't tell the length and the vocabulary before it is prepared",
                where="task",
                fix="task.length=... task.vocabulary=...",
            )
        if self.form == "bert":
            return bert.build(shape)
        return transformer.build(shape, causal=self.kind == "causal")

    # -- from a raw text, or a row that is tokens already

    @property
    def served_with(self) -> tuple[str, ...]:
        return ("tensorflow_text",) if (self.tokenizer or {}).get("tokenizer") == "sentencepiece" else ()

    def serving_inputs(self):
        import tensorflow as tf

        return {name: tf.TensorSpec([], tf.string) for name in self.fields or ("text",)}

    @property
    def marks_texts(self) -> bool:
        """Whether each text begins and ends with a token for it."""
        return self.marked is not False

    def language(self) -> Language:
        """What writes texts by the trained model; raises UsageError where it doesn't predict what comes next."""
        from tfscale.text.generation import Language

        self.check_data({})
        if self.kind != "causal":
            raise UsageError(
                f"the run's objective is {self.kind}: its model doesn't predict what comes next",
                where="run.dir",
                fix="choose a run of task.objective=causal, such as one of +recipe=gpt",
            )
        shape = self.shape()
        assert shape is not None  # of a model that is there
        return Language(shape, self._tokenizer, self._operations, self.marks_texts)

    def shown(self, model):
        """A text of `sample` tokens."""
        if not self.sample:
            return ""
        from tfscale.text.generation import Writer
        from tfscale.text.sampling import Sampling

        prompt, sampling = "" if self.marks_texts else "\n", Sampling(self.sample)
        writer = Writer(self.language(), model, sampling)
        text = "".join(piece for _, piece in writer.write([prompt]))
        behind = "from the beginning of a text" if self.marks_texts else f"from the prompt {prompt!r}"
        about = "; ".join([f"{self.sample} tokens {behind}, temperature={sampling.temperature}", *writer.notices])
        return f"{about}:\n{text}"

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.of(self.tokenizer or {})

    @functools.cached_property
    def _operations(self) -> Any:
        return self._tokenizer.operations()  # an export holds it, since it stands among the task's attributes

    def preprocess(self, example, *, training):
        import tensorflow as tf

        tokens, pieces, given, left_out = _row(example) if "tokens" in example else self._row_of(example)
        room = self.length - tf.shape(tokens)[0]

        def filled(values, dtype):
            return tf.ensure_shape(tf.pad(tf.cast(values, dtype), [[0, room]]), [self.length])

        positions = tf.ragged.range(pieces).flat_values
        learnt = filled(positions >= tf.repeat(given, pieces), tf.float32)
        fields = {
            "tokens": filled(tokens, tf.int32) + self._tokenizer.pad * (1 - filled(tf.ones_like(tokens), tf.int32)),
            "segments": filled(tf.repeat(tf.range(1, tf.shape(pieces)[0] + 1), pieces), tf.int32),
            "positions": filled(positions, tf.int32),
            "left_out": tf.cast(left_out, tf.int32),
        }
        if self.kind == "classification":
            return {**fields, "label": example["label"]} if "label" in example else fields
        fields["bytes"] = tf.cast(example.get("bytes", 0), tf.float32)
        if self.kind == "causal":
            return {**fields, "learnt": tf.concat([learnt[1:], [0.0]], 0)}  # where the token behind is learnt
        drawn = tf.random.stateless_uniform([self.length], example["seed"])
        learnt *= tf.cast(drawn < self.hidden, tf.float32)
        return {**fields, "learnt": learnt, "read": self._hidden(fields["tokens"], learnt > 0, drawn, example["seed"])}

    def _hidden(self, tokens, chosen, drawn, seed):
        """The tokens of a row as they are read where some are chosen: the mask, any other token, or as they are."""
        import tensorflow as tf

        share = drawn / self.hidden if self.hidden else drawn  # of the chosen ones even from 0 to 1
        read = tf.where(chosen & (share >= self.kept), self.vocabulary, tokens)
        if not self.swapped:
            return read
        other = tf.random.experimental.stateless_fold_in(seed, 1)
        others = tf.random.stateless_uniform([self.length], other, maxval=self.vocabulary, dtype=tf.int32)
        return tf.where(chosen & (share >= self.kept) & (share < self.kept + self.swapped), others, read)

    def _row_of(self, example):
        """(tokens, sizes of pieces, how many tokens of each are given, how many are left out) of a raw text."""
        import tensorflow as tf

        marks = [[self._tokenizer.begin], [self._tokenizer.end]] if self.marks_texts else [[], []]
        begin, end = (tf.constant(mark, tf.int32) for mark in marks)
        names, length = self.fields or ["text"], self.length or 0
        if self.kind != "causal":
            tokens = self._operations.tokenize(example[names[0]])
            kept = tf.concat([begin, tokens[: length - 2 * self.marks_texts], end], 0)
            left_out = tf.shape(tokens)[0] - (length - 2 * self.marks_texts)
            return kept, tf.shape(kept)[:1], tf.ones([1], tf.int32), tf.maximum(0, left_out)
        parts = [self._operations.tokenize(example[name]) for name in names]
        tokens = tf.concat([begin, *parts], 0)  # what comes next depends on the end, which is kept
        left_out = tf.maximum(0, tf.shape(tokens)[0] - length)
        given = 1 + (tf.shape(parts[0])[0] if len(parts) > 1 else 0)
        kept = tokens[left_out:]
        return kept, tf.shape(kept)[:1], tf.maximum(1, given - left_out)[tf.newaxis], left_out

    # -- what is learnt

    def model_inputs(self, batch):
        return {name: batch[name] for name in _INPUTS}

    def _logits(self, model, batch, *, training):
        import tensorflow as tf

        inputs = self.model_inputs(batch)
        if self.kind == "masked":
            inputs["tokens"] = batch["read"]
        logits = model(inputs, training=training)
        return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)

    def _targets(self, batch):
        """The token that each place must predict."""
        import tensorflow as tf

        return tf.roll(batch["tokens"], -1, 1) if self.kind == "causal" else batch["tokens"]

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        logits = self._logits(model, batch, training=training)
        if self.kind == "classification":
            return class_losses(logits, batch["label"])
        losses, state = token_losses(logits, self._targets(batch), batch["learnt"], batch)
        size = tf.reduce_sum(tf.cast(batch["weight"], logits.dtype) * tf.cast(batch["bytes"], logits.dtype))
        return losses, {METRIC_STATE: tf.concat([state, [size]], 0)}

    @property
    def counted_size(self) -> int:
        return 0 if self.kind == "classification" else COUNTED

    def count(self, model, batch):
        return counted_tokens(batch["learnt"], batch)

    @property
    def metric_state_size(self) -> int:
        return 0 if self.kind == "classification" else FIGURES + 1

    def metric_result(self, state):
        import math

        told, size = figures(state[:FIGURES]), float(state[FIGURES])
        if told and size and self.kind == "causal":
            told["bits_per_byte"] = float(state[0]) / math.log(2) / size
        return told

    def token_scores(self, model, batch):
        """Of an evaluation each token, [batch, length]: "nats", its loss, "right", whether it is the likeliest, and
        "learnt", whether it counts, which of a masked model the hidden ones do; besides "tokens", "positions" in their
        texts, and "bytes" [batch], 0 where the loss isn't of all of them."""
        import tensorflow as tf

        logits, targets = self._logits(model, batch, training=False), self._targets(batch)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        right, behind = tf.equal(tf.argmax(logits, -1, output_type=tf.int32), targets), int(self.kind == "causal")
        each = {"nats": nats, "right": right, "learnt": batch["learnt"]}
        found = {name: tf.roll(value, behind, 1) for name, value in each.items()}  # beside the token that it is of
        size = batch["bytes"] if behind else tf.zeros_like(batch["bytes"])
        return {**found, "tokens": batch["tokens"], "positions": batch["positions"], "bytes": size}

    @property
    def language_tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def predict(self, model, batch):
        """For a class "class" and "probabilities"; else "tokens" [batch, length] and of each the log-probability, given
        those before it (masked: given all), 0 where it is the prompt's or filling; causal: the likeliest "next_token"
        behind them. "left_out" counts the tokens that had no room."""
        import tensorflow as tf

        if self.kind == "masked":  # nothing is hidden from what is asked about
            batch = {**batch, "read": batch["tokens"]}
        logits = self._logits(model, batch, training=False)
        if self.kind == "classification":
            return {**class_answers(logits), "left_out": batch["left_out"]}
        real = batch["segments"] > 0
        scores = -tf.nn.sparse_softmax_cross_entropy_with_logits(self._targets(batch), logits)
        if self.kind == "masked":
            scores = tf.where(real, scores, 0)
            return {"tokens": batch["tokens"], "log_probabilities": scores, "left_out": batch["left_out"]}
        scores = tf.roll(tf.where(batch["learnt"] > 0, scores, 0), 1, 1)  # beside the token that it is of
        last = tf.reduce_sum(tf.cast(real, tf.int32), 1) - 1
        behind = tf.gather(logits, tf.maximum(last, 0), batch_dims=1)
        return {
            "tokens": batch["tokens"],
            "log_probabilities": scores,
            "next_token": tf.argmax(behind, -1, output_type=tf.int32),
            "left_out": batch["left_out"],
        }


def _row(example):
    """(tokens, sizes of pieces, how many tokens of each are given, how many are left out) of a packed row."""
    import tensorflow as tf

    tokens, pieces, given = (tf.cast(example[name], tf.int32) for name in ("tokens", "pieces", "given"))
    return tokens, pieces, given, example["left_out"]
