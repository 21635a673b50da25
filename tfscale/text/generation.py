"""Texts that a causal language model writes, several at once, token by token.

Owns what a model has seen when it chooses a token, which of its tokens are text, and where a text ends. Refuses to know
runs and terminals.

    writer = Writer(language, model, Sampling(tokens=50, stop=(".",)))
    for place, piece in writer.write(["To be", "Whether"]):
        print(place, piece)
    writer.texts[0].ended                                  # "stop", "end" or "tokens"
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tfscale.errors import UsageError
from tfscale.models.cached_decoder import CachedDecoder
from tfscale.models.transformer import Shape
from tfscale.text.sampling import Sampling
from tfscale.text.tokenizers import Tokenizer, has_bytes

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Language:
    """What a causal language model reads and writes.

    Attributes:
        operations: the tokenizer's.
        marked: whether each text begins and ends with a token for it.
    """

    shape: Shape
    tokenizer: Tokenizer
    operations: Any
    marked: bool


@dataclass
class Written:
    """One text.

    Attributes:
        prompt: what it goes on from.
        text: what is written, without the prompt and without what stopped it.
        tokens: how many were written.
        ended: by what: one of "stop", "end" (the model's own mark of an end) and "tokens"; "" while it goes on.
    """

    prompt: str
    text: str = ""
    tokens: int = 0
    ended: str = ""
    _window: list[int] = field(default_factory=list, repr=False)  # the tokens that the model sees
    _held: str = field(default="", repr=False)  # the end of the text, which may be the beginning of a stop
    _characters: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"), repr=False)


class Passes:
    """A model's passes, compiled once for writers that choose tokens in different ways, which follow each other in one
    thread. A writer without them compiles its own together with its choice, which is faster for one long text."""

    def __init__(self, language: Language, model: keras.Model):
        self.decoder, self.bytes_of_each = CachedDecoder(model, language.shape), language.tokenizer.bytes_of_each()

    @cached_property
    def compiled(self) -> tuple[Any, Any]:
        """(`CachedDecoder.read`, its `step`)."""
        import tensorflow as tf

        return tuple(tf.function(one, autograph=False) for one in (self.decoder.read, self.decoder.step))


class Writer:
    """Writes by a model.

    Args:
        passes: of this model, that several writers share.

    A model sees `window` tokens at most. Past them it goes on from the newest half, whose positions begin anew:
    `notices` tells so.

    Raises:
        UsageError: the sampling can't be.
    """

    def __init__(self, language: Language, model: keras.Model, sampling: Sampling, passes: Passes | None = None):
        sampling.check()
        vocabulary = language.shape.vocabulary
        if sampling.top_k is not None and sampling.top_k > vocabulary:
            raise UsageError(
                f"the model knows {vocabulary} tokens, so that top_k={sampling.top_k} has no effect",
                where="top_k",
                fix="leave it away, or use fewer",
            )
        self.sampling = sampling
        self.texts: list[Written] = []
        self._language, self._tokenizer = language, language.tokenizer
        self._passes = passes
        if passes is None:
            self._decoder, self._bytes = CachedDecoder(model, language.shape), language.tokenizer.bytes_of_each()
        else:
            self._decoder, self._bytes = passes.decoder, passes.bytes_of_each
        self._slid = self._cut = 0

    @property
    def window(self) -> int:
        """How many tokens the model sees at most when it chooses one."""
        return self._decoder.window

    @property
    def notices(self) -> list[str]:
        """What isn't as one would expect, of all that was written."""
        cut = (
            f"{self._cut} of the prompts are longer: the model sees their last {self.window} tokens"
            if self._cut
            else ""
        )
        new = max(1, self.window // 2)
        slid = f"past {self.window} tokens the model reads the newest {new} anew, and goes on" if self._slid else ""
        return [line for line in (cut, slid) if line]

    def write(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Pieces of whole characters, as they are made, each with its prompt's place among them.

        Raises:
            UsageError: an empty prompt, where texts have no mark of their beginning.
        """
        self.texts = [Written(prompt) for prompt in prompts]
        for text in self.texts:
            text._window = self._tokens_of(text.prompt)
        cache, draw = None, 0
        while self.texts:
            token, cache = self._read(draw) if cache is None else self._step(draw, cache)
            draw += 1
            for place, number in enumerate(np.asarray(token)):
                if not self.texts[place].ended and (piece := self._taken(self.texts[place], int(number))):
                    yield place, piece
            if all(text.ended for text in self.texts):
                return
            if any(len(text._window) > self.window for text in self.texts):
                self._slide()
                cache = None

    # -- the window

    def _tokens_of(self, prompt: str) -> list[int]:
        import tensorflow as tf

        if not has_bytes(prompt):
            raise UsageError("the prompt is no UTF-8", where="prompt", fix="give text")
        tokens = [int(n) for n in self._language.operations.tokenize(tf.constant(prompt.encode())).numpy()]
        if self._language.marked:
            tokens = [self._tokenizer.begin, *tokens]
        if not tokens:
            raise UsageError(
                "there is nothing to go on from: the model was trained on a text without beginning and end",
                where="prompt",
                fix="prompt='The', or another beginning",
            )
        self._cut += len(tokens) > self.window
        return tokens[-self.window :]

    def _slide(self) -> None:
        new = max(1, self.window // 2)
        for text in self.texts:
            if len(text._window) > self.window:
                text._window = text._window[-new:]
                self._slid += 1

    def _taken(self, text: Written, number: int) -> str:
        """The piece of a text that a token makes whole; "" where none is, or the text has ended without one."""
        text.tokens += 1
        ends = number == self._tokenizer.end
        if not ends:
            text._window.append(number)
        last = ends or text.tokens >= self.sampling.tokens
        text._held += text._characters.decode(b"" if ends else self._bytes[number], final=last)
        found = [at for stop in self.sampling.stop if (at := text._held.find(stop)) >= 0]
        text.ended = "stop" if found else "end" if ends else "tokens" if last else ""
        whole = min(found) if found else len(text._held) - (0 if last else self._may_stop(text._held))
        piece, text._held = text._held[:whole], text._held[whole:]
        text.text += piece
        if text.ended:  # what is chosen for it from here on is looked at by nobody
            text._window = text._window[-self.window :]
        return piece

    def _may_stop(self, held: str) -> int:
        """How many of the last characters are the beginning of a stop."""
        return max(
            (n for stop in self.sampling.stop for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0
        )

    # -- with TensorFlow

    def _read(self, draw: int) -> tuple[Any, Any]:
        windows = [text._window for text in self.texts]
        filled = np.full([len(windows), self.window], self._tokenizer.pad, np.int32)
        for row, tokens in zip(filled, windows, strict=True):
            row[: len(tokens)] = tokens
        lengths = np.array([len(tokens) for tokens in windows], np.int32)
        return self._compiled[0](filled, lengths, np.array(draw, np.int64))

    def _step(self, draw: int, cache: Any) -> tuple[Any, Any]:
        windows = [text._window for text in self.texts]
        newest, lengths = ([tokens[-1] for tokens in windows], [len(tokens) for tokens in windows])
        arrays = np.array(newest, np.int32), np.array(lengths, np.int32)
        return self._compiled[1](*arrays, cache, np.array(draw, np.int64))

    @cached_property
    def _compiled(self) -> tuple[Any, Any]:
        """(the first token behind what is read at once, the next one), both with the cache."""
        import tensorflow as tf

        forbidden = self._forbidden()
        first, next_ = (self._decoder.read, self._decoder.step) if self._passes is None else self._passes.compiled

        def read(tokens: Any, lengths: Any, draw: Any) -> tuple[Any, Any]:
            logits, cache = first(tokens, lengths)
            return self.sampling.choose(logits + forbidden, draw=draw), cache

        def step(token: Any, lengths: Any, cache: Any, draw: Any) -> tuple[Any, Any]:
            logits, cache = next_(token, lengths, cache)
            return self.sampling.choose(logits + forbidden, draw=draw), cache

        if self._passes is not None:
            return read, step
        return tf.function(read, autograph=False), tf.function(step, autograph=False)

    def _forbidden(self) -> np.ndarray:
        """[vocabulary], -inf for what is no text and was never to be predicted."""
        tokenizer = self._tokenizer
        numbers = {tokenizer.pad, tokenizer.begin} - {tokenizer.end}
        if not self._language.marked:
            numbers.add(tokenizer.end)
        found = np.zeros(self._decoder.shape.vocabulary, np.float32)
        found[list(numbers)] = -np.inf
        return found
