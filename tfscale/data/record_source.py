"""Sources that read TFRecord files by index.

Owns what they share: reading, naming an example by file, record and byte, and the records that are tolerated as bad.
Refuses to know how files are found and what makes a record good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.data.bad_records import BadRecord, BadRecords
from tfscale.data.records import RecordIndex, read_records
from tfscale.data.source import Source
from tfscale.errors import DataMissing

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

DAMAGED = " does not match its checksum"


@dataclass
class RecordSource(Source):
    """Base of such sources; subclasses give `_index`, `_judge` and `_bad_records`."""

    max_bad_records: int = 0  # damaged records of both splits that are left out, with weight 0

    def _index(self, split: str) -> RecordIndex:
        raise NotImplementedError

    @property
    def _bad_records(self) -> BadRecords:
        raise NotImplementedError

    def _judge(self, split: str) -> Iterator[BadRecord]:
        """Every record that can't be used, each read once."""
        raise NotImplementedError

    def _learn_what_is_bad(self) -> None:
        """Reads all records, unless it is known what is wrong with them; raises DataCorrupt beyond the budget."""
        bad = self._bad_records
        found = bad.known()
        if found is None:
            found = bad.find(self._judge)
        if self.__dict__.get("_found") != found:
            bad.report(found)
        self.__dict__["_found"] = found

    def bad_examples(self, split: str) -> tuple[int, ...]:
        return tuple(record.place for record in self.__dict__.get("_found", {}).get(split, ()))

    def locate(self, split: str, place: int) -> str:
        file, number, byte = self._index(split).locate(place)
        return f"{file}: record {number} at byte {byte}"

    def _label_field(self) -> str | None:
        """The feature that is the class of an example, a single int64; None where there is none."""
        return None

    def class_labels(self, split: str) -> np.ndarray | None:
        from tfscale.data.record_labels import LOOKED_THROUGH, every_label

        index, field = self._index(split), self._label_field()
        if field is None or index.size > LOOKED_THROUGH:
            return None
        kept = self.__dict__.setdefault("_every_label", {})
        if split not in kept:
            kept[split] = every_label(index, field, Path(getattr(self, "dir", "data")))
        return kept[split]

    def stored_bytes(self, split: str) -> np.ndarray | None:
        return self._index(split).sizes()

    def num_examples(self, split: str) -> int:
        return len(self._index(split))

    def decoded_size(self) -> tuple[int, int] | None:
        spec = self.spec()  # which tells the size of pictures where all have one
        pixels = spec.get("image_size", 0) ** 2 * spec.get("channels", 0)
        try:
            count = self.num_examples("train") + self.num_examples("test") if pixels > 0 else 0
        except DataMissing:  # the data are prepared later, or what is missing is told when they are read
            return None
        return (count, count * pixels) if count else None

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        return read_records(self._index(split), indices, ram_bytes=ram_bytes, bad=self.bad_examples(split))

    def __getstate__(self) -> dict[str, Any]:
        # another process looks for itself
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}
