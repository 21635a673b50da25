"""Texts to predict: a file of text, each line one, or of JSON lines with the fields that the task was trained on.

Owns reading it. Refuses to know tokens: the task makes them, as in an exported model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.data.source import Source
from tfscale.errors import DataCorrupt, DataMissing
from tfscale.text.tokenizers import has_bytes

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass
class GivenTexts(Source):
    """The texts of a file, as the split "test". A prompt needs no completion to find what comes next."""

    places: ClassVar[tuple[str, ...]] = ("path",)

    path: str = "???"
    fields: list[str] = field(default_factory=lambda: ["text"])

    @cached_property
    def _texts(self) -> list[tuple[int, list[str]]]:
        """(line, the fields' values) of every text."""
        try:
            lines = Path(self.path).read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataMissing(f"can't be read: {error}", where=self.path, fix="give a file of UTF-8 text") from None
        found = []
        for number, line in enumerate(lines, 1):
            if line.strip():
                found.append((number, self._values(line.removesuffix("\r"), number)))
        return found

    def _values(self, line: str, number: int) -> list[str]:
        if Path(self.path).suffix not in (".jsonl", ".ndjson"):
            return [line, *("" for _ in self.fields[1:])]
        try:
            record = json.loads(line)
            values = [record[self.fields[0]], *(record.get(name, "") for name in self.fields[1:])]
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            values = [None]
        if not all(isinstance(value, str) for value in values):
            raise DataCorrupt(
                f"line {number} has no text {self.fields[0]!r}",
                where=self.path,
                fix=f'every line is an object such as {{"{self.fields[0]}": "..."}}',
            )
        if not all(map(has_bytes, values)):
            raise DataCorrupt(
                f"line {number} holds half of a letter, such as \\ud83d alone", where=self.path, fix="correct the line"
            )
        return values

    def check(self) -> None:
        if not self._texts:
            raise DataMissing("it holds no text", where=self.path, fix="give a file with a text on each line")

    @property
    def firsts(self) -> list[tuple[str, str]]:
        """(name, value of the first field) of every text."""
        return [(f"line {number}", values[0]) for number, values in self._texts]

    def num_examples(self, split: str) -> int:
        return len(self._texts) if split == "test" else 0

    def example_names(self, split: str) -> list[str]:
        return [f"line {number}" for number, _ in self._texts]

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        held = tf.constant([[value.encode() for value in values] for _, values in self._texts])
        return indices.map(no_autograph(lambda some: tf.gather(held, some))).unbatch()

    def parse(self, raw: tf.Tensor) -> dict[str, Any]:
        return {name: raw[place] for place, name in enumerate(self.fields)}
