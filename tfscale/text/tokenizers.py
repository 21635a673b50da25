"""Tokenizers: from a text to numbers, the same in preparation, in training and inside an exported model.

Owns bytes, which need no library, and SentencePiece models (BPE and unigram), which the library sentencepiece trains
and tensorflow_text runs. Refuses to know where texts come from.

    tokenizer = train(texts, kind="bpe", vocabulary=8192)
    file.write_bytes(tokenizer.model)
    numbers = tokenizer.operations().tokenize(tf.constant("To be"))    # int32 [tokens], also inside a tf.function
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tfscale.console.streams import hushed
from tfscale.errors import DataCorrupt, UsageError, first_line

KINDS = ("bytes", "bpe", "unigram")
MODEL = "tokenizer.model"  # the file's name beside a data set
_OFFSET = 3  # of bytes, behind the numbers of padding, beginning and end
_LINE = 4096  # bytes of a text that SentencePiece is shown at once
_LEARNT_FROM = 64 * 2**20  # bytes of text: more changes little and needs much memory


@dataclass(frozen=True)
class Tokenizer:
    """What numbers a text becomes.

    Attributes:
        kind: "bytes" or "sentencepiece".
        vocabulary: how many numbers there are, with those of padding, beginning and end.
        model: SentencePiece's own file.
    """

    kind: str = "bytes"
    vocabulary: int = 256 + _OFFSET
    pad: int = 0
    begin: int = 1
    end: int = 2
    model: bytes = b""

    @classmethod
    def of_model(cls, content: bytes, where: str = MODEL) -> Tokenizer:
        """The tokenizer of a SentencePiece file.

        Raises:
            DataCorrupt: it is none.
            UsageError: it has no number for the end of a text; the library isn't installed.
        """
        processor = _sentencepiece().SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(content)
        except RuntimeError as error:
            raise DataCorrupt(
                f"no SentencePiece model: {first_line(error)}", where=where, fix="give a file that SentencePiece wrote"
            ) from None
        begin, end, pad = processor.bos_id(), processor.eos_id(), processor.pad_id()
        if end < 0:
            raise UsageError(
                "the SentencePiece model has no piece for the end of a text",
                where=where,
                fix="use a model that was trained with eos_id, or let one be trained",
            )
        return cls(
            "sentencepiece", processor.GetPieceSize(), max(pad, 0), begin if begin >= 0 else end, end, bytes(content)
        )

    def described(self) -> dict[str, Any]:
        """What JSON holds of it, without the model."""
        return {
            "tokenizer": self.kind,
            "vocabulary": self.vocabulary,
            "pad": self.pad,
            "begin": self.begin,
            "end": self.end,
        }

    def whole(self) -> dict[str, Any]:
        """The same with the model, so that nothing else is needed to make it anew."""
        return {**self.described(), "model": base64.b64encode(self.model).decode()}

    @classmethod
    def of(cls, described: Mapping[str, Any], model: bytes | None = None) -> Tokenizer:
        """From `whole`, or from `described` and the model."""
        if model is None:
            model = base64.b64decode(described.get("model", ""))
        vocabulary, pad, begin, end = (int(described[name]) for name in ("vocabulary", "pad", "begin", "end"))
        return cls(str(described["tokenizer"]), vocabulary, pad, begin, end, model)

    def operations(self) -> Any:
        """What has `tokenize`, from a scalar string to int32 [tokens] without beginning and end; for SentencePiece a
        tf.Module, which an exported model must hold.

        Raises:
            UsageError: tensorflow_text isn't installed.
        """
        import tensorflow as tf

        if self.kind == "bytes":
            return _Bytes()
        with tf.init_scope(), hushed():  # SentencePiece tells that whitespace stays as it is
            return _tensorflow_text().SentencepieceTokenizer(model=self.model, out_type=tf.int32)

    def text_of(self, numbers: Iterable[int]) -> str:
        """The text again, without padding, beginning and end."""
        kept = [int(n) for n in numbers if n not in (self.pad, self.begin, self.end)]
        if self.kind == "bytes":
            return bytes(n - _OFFSET for n in kept).decode(errors="replace")
        processor = _sentencepiece().SentencePieceProcessor()
        processor.LoadFromSerializedProto(self.model)
        return str(processor.Decode(kept))

    def bytes_of_each(self) -> list[bytes]:
        """What each number adds to a text: bytes, which may be a part of a character; none for marks and padding."""
        if self.kind == "bytes":
            return [b""] * _OFFSET + [bytes([n]) for n in range(256)]
        processor = _sentencepiece().SentencePieceProcessor()
        processor.LoadFromSerializedProto(self.model)

        def of(number: int) -> bytes:
            piece = processor.IdToPiece(number)
            if processor.IsByte(number):
                return bytes([int(piece[1:-1], 16)])  # "<0x0A>"
            if processor.IsControl(number) or processor.IsUnused(number):
                return b""
            if processor.IsUnknown(number):
                return str(processor.Decode([number])).encode()
            return str(piece).replace("▁", " ").encode()

        return [of(number) for number in range(self.vocabulary)]


class _Bytes:
    def tokenize(self, text: Any) -> Any:
        import tensorflow as tf

        return tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32) + _OFFSET


def train(texts: Iterable[str], *, kind: str, vocabulary: int, where: str = "data.text.vocabulary") -> Tokenizer:
    """A tokenizer learnt from texts; the same texts give the same one, to the byte.

    Nothing of a text is lost: whitespace stays as it is, and what has no piece of its own is told in bytes.

    Args:
        kind: "bytes", "bpe" or "unigram".

    Raises:
        UsageError: a vocabulary that has no room for the bytes; the library isn't installed.
    """
    if kind == "bytes":
        return Tokenizer()
    written = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=written,
            model_type=kind,
            vocab_size=vocabulary,
            hard_vocab_limit=False,  # a smaller one where the texts don't give so many pieces
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            byte_fallback=True,
            character_coverage=0.9995,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            max_sentence_length=2 * _LINE,
            num_threads=1,  # sums of several threads differ in their last bits
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UsageError(
            f"no tokenizer of {vocabulary} pieces can be learnt from these texts: {first_line(error)}",
            where=where,
            fix=f"{where}=512 or more, since each byte has a piece; or data.text.tokenizer=bytes",
        ) from None
    return Tokenizer.of_model(written.getvalue())


def has_bytes(text: str) -> bool:
    """Whether UTF-8 can write it: not half of a letter, as JSON may have it ("\\ud83d" without what follows)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Lines with their ends, none much longer than what SentencePiece reads, up to the most that is learnt from."""
    left = _LEARNT_FROM
    for text in texts:
        for line in text.splitlines(keepends=True):
            for start in range(0, len(line), _LINE // 2):
                part = line[start : start + _LINE // 2]
                left -= len(part.encode())
                if left < 0:
                    return
                yield part


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise _missing("sentencepiece", "learns and reads these tokenizers") from None
    return sentencepiece


def _tensorflow_text() -> Any:
    try:
        import tensorflow_text
    except ImportError:
        raise _missing("tensorflow_text", "runs these tokenizers inside a model") from None
    return tensorflow_text


def _missing(name: str, what: str) -> UsageError:
    return UsageError(
        f"{name} isn't installed, which {what}",
        where="data.text.tokenizer",
        fix="pip install 'tfscale[text]', or data.text.tokenizer=bytes",
    )
