"""data=text data.name=NAME: an imported data set of texts as rows of tokens, packed once and then read by index.

Owns the file of rows beside the data set, and what it is made of. Refuses to know the importer and what is learnt.

    source = TextRows(name="shakespeare", length=256)
    source.prepare()
    source.num_examples("train")                   # rows
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from tfscale.data.index_file import one_writer
from tfscale.data.prepared import Prepared
from tfscale.data.record_labels import LOOKED_THROUGH, every_label
from tfscale.data.records import RecordIndex, index_records, read_records
from tfscale.data.source import Source
from tfscale.errors import OutputError, UsageError
from tfscale.files import digest_of, move, read_json, sha256
from tfscale.statistics.findings import Finding
from tfscale.text.given_texts import GivenTexts
from tfscale.text.sequences import Rows, Tokenized
from tfscale.text.tokenizers import MODEL, Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

_FORMAT = 1
_ABOUT = "rows.json"
_SPLITS = ("train", "test")  # by their roles
_SHORTEST = 8
_SHOWN = 64  # rows that have a raw text beside their tokens: an export is tried on the first ones


@dataclass
class TextRows(Source):
    """Rows of `length` tokens. Texts without labels are packed: several in a row, and one in several rows where it is
    longer; with labels, every text is a row and what is longer is cut, which is counted and reported.

    `rows` is where they are kept; null: beside the data set. `baseline` and `validate` as of `Prepared`.
    """

    places: ClassVar[tuple[str, ...]] = ("dir", "rows", "baseline", "validate")

    dir: str = "data"  # the folder of imported data sets
    name: str = "???"  # name of the data set
    train_split: str = "train"  # the split that is trained on
    # the split that is evaluated in training; null: validation where there is one, else test
    test_split: Optional[str] = None
    length: int = 256  # tokens of a row; 8 or more
    pack: Optional[bool] = None  # several short texts in a row; null: where they have no labels
    rows: Optional[str] = None  # where rows are kept; null: beside the data set
    # a data set, a run or a folder that the training split must be like; null: its own baseline
    baseline: Optional[str] = None
    validate: bool = True  # whether the training split is compared with its baseline

    # -- without TensorFlow

    def check(self) -> None:
        if self.length < _SHORTEST:
            raise UsageError(
                f"{self.length} tokens are no row", where="data.length", fix=f"data.length=256, or {_SHORTEST} or more"
            )
        self._texts.check()
        if "text" not in self._columns:
            raise UsageError(
                f"{self.name} is no data set of texts: it was imported without a tokenizer",
                where="data.name",
                fix="import it with data.kind=text, or read it by data=prepared",
            )
        if self._packed and len(self._fields) == 1 and self._labelled:
            raise UsageError(
                "texts with labels are learnt one by one", where="data.pack", fix="data.pack=false or null"
            )

    @cached_property
    def _texts(self) -> Prepared:
        return Prepared(dir=self.dir, name=self.name, train_split=self.train_split, test_split=self.test_split,
                        baseline=self.baseline, validate=self.validate)  # fmt: skip

    def ignored(self) -> dict[str, str]:
        return self._texts.ignored()

    def breaks(self) -> Sequence[Finding]:
        return self._texts.breaks()

    def keep_baseline(self, target: Path) -> None:
        self._texts.keep_baseline(target)

    @property
    def _folder(self) -> Path:
        folder = self._texts.folder()
        if folder is None:
            self._texts.check()  # which says what there is instead
        assert folder is not None
        return folder

    @cached_property
    def _columns(self) -> dict[str, Any]:
        found = read_json(self._folder / "columns.json")
        return found if isinstance(found, dict) else {}

    @property
    def _fields(self) -> list[str]:
        return list(self._columns["text"]["fields"])

    @property
    def _labelled(self) -> bool:
        return "label" in self._columns

    @property
    def _packed(self) -> bool:
        return not self._labelled if self.pack is None else self.pack

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        about = self._columns["text"]
        file = self._folder / MODEL
        return Tokenizer.of(about, file.read_bytes() if about["tokenizer"] != "bytes" else b"")

    def spec(self) -> dict[str, Any]:
        if self._texts.folder() is None or "text" not in self._columns:
            return {}
        tokenizer = self._tokenizer
        found = {
            "length": self.length,
            "vocabulary": tokenizer.vocabulary,
            "tokenizer": tokenizer.whole(),
            "fields": self._fields,
        }
        return {**found, "num_classes": len(self.class_names() or ())} if self._labelled else found

    def class_names(self) -> tuple[str, ...] | None:
        return tuple(map(str, self._columns["label"]["classes"])) if self._labelled else None

    def unlabelled(self, path: str) -> Source:
        return GivenTexts(path=path, fields=self._fields)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "pack": self._packed}

    @cached_property
    def _made_of(self) -> dict[str, Any]:
        """What the rows follow from."""
        info = [sha256(file) for file in sorted(self._folder.glob("*.json"))]
        splits = [self.train_split, self.test_split]
        return {"format": _FORMAT, "length": self.length, "pack": self._packed, "data": info, "splits": splits}

    @property
    def _kept(self) -> Path:
        base = Path(self.rows) if self.rows is not None else self._folder
        return base / f"rows-{self.name.replace('/', '-')}-{digest_of(self._made_of)[:12]}"

    @property
    def _about(self) -> dict[str, Any]:
        found = read_json(self._kept / _ABOUT)
        return found if isinstance(found, dict) else {}

    def is_prepared(self) -> bool:
        return self._texts.folder() is not None and bool(self._about)

    def remarks(self) -> Sequence[str]:
        if not self._about:
            return ()
        told = []
        for split, about in self._about["splits"].items():
            if about["rows"]:
                fill = about["tokens"] / (about["rows"] * self.length)
                told.append(f"{about['texts']} texts of the {split} split in {about['rows']} rows, {fill:.0%} full")
            if about["cut"]:
                longer = f"{about['cut']} of them are longer than {self.length} tokens"
                told.append(f"{longer}: {about['left_out']} tokens are cut off")
            if about["without"]:
                told.append(f"{about['without']} of them have nothing to learn in a row, and are left out")
        return told

    def contents(self) -> Mapping[str, Path]:
        return {file.name: file for file in sorted(self._kept.glob("*.tfrecord"))}

    @cached_property
    def _indexes(self) -> dict[str, RecordIndex]:
        return {}

    def _index(self, split: str) -> RecordIndex:
        if split not in self._indexes:
            fix = f"delete {self._kept}, and it is made again"
            self._indexes[split] = index_records([self._kept / f"{split}.tfrecord"], fix=fix)
        return self._indexes[split]

    def num_examples(self, split: str) -> int:
        return len(self._index(split))

    def num_raw(self, split: str) -> int:
        return min(_SHOWN, self.num_examples(split))

    def raw_apart(self, split: str) -> str:
        return "" if self._labelled else "a row has several texts or a part of one, and the export reads one text"

    def class_labels(self, split: str) -> np.ndarray | None:
        index = self._index(split)
        if not self._labelled or index.size > LOOKED_THROUGH:
            return None
        kept = self.__dict__.setdefault("_every_label", {})
        if split not in kept:
            kept[split] = every_label(index, "label", self._kept)
        return kept[split]

    def stored_bytes(self, split: str) -> np.ndarray | None:
        return self._index(split).sizes()

    @property
    def version(self) -> str:
        return self._texts.version

    @property
    def location(self) -> str:
        return self._texts.location

    def locate(self, split: str, place: int) -> str:
        file, number, byte = self._index(split).locate(place)
        return f"{file}: row {number} at byte {byte}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    # -- with TensorFlow

    def prepare(self) -> None:
        if self.is_prepared():
            return
        self._texts.prepare()
        kept = self._kept
        try:
            with one_writer(kept.parent, kept.name):
                if not self.is_prepared():
                    self._write(kept)
        except OSError as error:
            raise _unwritable(kept.parent, error.strerror or str(error)) from error
        except OutputError as error:
            raise _unwritable(kept.parent, error.what) from error

    def _write(self, kept: Path) -> None:
        half = kept.with_name(f"incomplete.{kept.name}")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        splits = {split: self._write_split(split, half / f"{split}.tfrecord") for split in _SPLITS}
        (half / _ABOUT).write_text(json.dumps({"made_of": self._made_of, "splits": splits}, indent=1) + "\n")
        move(half, kept, durable=True)

    def _write_split(self, split: str, file: Path) -> dict[str, int]:
        import tensorflow as tf

        texts = list(self._tokenized(split))
        rows = Rows(self._tokenizer, self.length, packed=self._packed)
        with tf.io.TFRecordWriter(str(file)) as writer:
            for place, row in enumerate(rows.of(texts)):
                text = texts[row.first]
                raw = dict(zip(self._fields, text.raw, strict=True)) if place < _SHOWN else {}
                writer.write(row.serialized(raw, text.label))
        return rows.counts

    def _tokenized(self, split: str) -> Iterator[Tokenized]:
        """The texts of a split in their order."""
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        texts, operations, fields = self._texts, self._tokenizer.operations(), self._fields
        texts.prepare()
        if not (count := texts.num_examples(split)):
            return

        @no_autograph
        def tokenized(raw: Any) -> Any:
            example = texts.parse(raw)
            tokens = {name: operations.tokenize(example[name]) for name in fields}
            return tokens, {name: example[name] for name in fields}, example.get("label", tf.constant(-1, tf.int64))

        indices = tf.data.Dataset.range(count).batch(256)
        raw = texts.read(split, indices, ram_bytes=2**30)
        threads = tf.data.AUTOTUNE
        for tokens, given, label in raw.map(
            tokenized, num_parallel_calls=threads, deterministic=True
        ).as_numpy_iterator():
            yield Tokenized([tokens[name] for name in fields], [given[name] for name in fields], int(label))

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        return read_records(self._index(split), indices, ram_bytes=ram_bytes)

    def parse(self, raw: tf.Tensor) -> dict[str, Any]:
        import tensorflow as tf

        several = tf.io.RaggedFeature(tf.int64)
        one, text = tf.io.FixedLenFeature([], tf.int64), tf.io.FixedLenFeature([], tf.string, "")
        features: dict[str, Any] = dict.fromkeys(("tokens", "pieces", "given"), several)
        features |= dict.fromkeys(("bytes", "left_out", *(["label"] if self._labelled else [])), one)
        return tf.io.parse_single_example(raw, features | dict.fromkeys(self._fields, text))


def _unwritable(folder: Path, why: str) -> OutputError:
    return OutputError(
        f"the rows of tokens can't be written to {folder}: {why}",
        where="data.rows",
        fix="data.rows=FOLDER of one that can be written",
    )
