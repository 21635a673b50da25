"""data=text_file data.path=shakespeare.txt: windows of one file's bytes, without an import.

Owns where windows begin: in training at every byte, in evaluation one behind the other. Refuses to know what is learnt.

    source = TextFile(path="shakespeare.txt", length=65)     # the last tenth is the test split
    source.num_examples("train")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from tfscale.data.source import Source
from tfscale.errors import DataMissing, UsageError
from tfscale.files import sha256_of
from tfscale.text.given_texts import GivenTexts
from tfscale.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

_MOST = 2**30  # bytes of a file, which is held in memory


@dataclass
class TextFile(Source):
    """Windows of `length` bytes of a file, of which all but the first are learnt. The last `test_share` of the file is
    the test split: of its windows each begins with the byte that ends the one before, so that each byte is learnt once.

    Without a `path` it is the topics of Python's own help, 0.4 MB of English, which every installation of Python has.
    """

    places: ClassVar[tuple[str, ...]] = ("path",)

    path: Optional[str] = None  # the file, read byte by byte; null: the topics of Python's own help
    length: int = 256  # bytes of a window; 2 or more
    test_share: float = 0.1  # share of the file, its end, that is held out; more than 0, less than 1

    def check(self) -> None:
        if self.length < 2:
            raise UsageError(f"{self.length} is no window", where="data.length", fix="data.length=256, or 2 or more")
        if not 0 < self.test_share < 1:
            raise UsageError(
                f"{self.test_share} is no share of a file", where="data.test_share", fix="data.test_share=0.1"
            )
        if self._windows("train") < 1 or self._windows("test") < 1:
            raise UsageError(
                f"{len(self._content)} bytes have no window of {self.length} in each split",
                where="data.length",
                fix="choose a longer text, or shorter windows",
            )

    @cached_property
    def _content(self) -> bytes:
        if self.path is None:
            from pydoc_data.topics import topics

            return "\n".join(text for _, text in sorted(topics.items())).encode()
        file = Path(self.path)
        try:
            if file.stat().st_size > _MOST:
                raise UsageError(
                    f"{self.path} has more than {_MOST} bytes, which are held in memory",
                    where="data.path",
                    fix="import it: tfscale data import PATH name=NAME, then data=text data.name=NAME",
                )
            return file.read_bytes()
        except OSError as error:
            raise DataMissing(
                f"{self.path} can't be read: {error.strerror}", where="data.path", fix="data.path=FILE of a text"
            ) from None

    @property
    def _first_of_test(self) -> int:
        return int(len(self._content) * (1 - self.test_share))

    def _windows(self, split: str) -> int:
        if split == "train":
            return max(0, self._first_of_test - self.length + 1)
        return max(0, len(self._content) - self._first_of_test - 1) // (self.length - 1)

    def spec(self) -> dict[str, Any]:
        tokenizer = Tokenizer()
        return {
            "length": self.length,
            "vocabulary": tokenizer.vocabulary,
            "tokenizer": tokenizer.whole(),
            "fields": ["text"],
            "marked": False,
        }

    def remarks(self) -> Sequence[str]:
        left = (len(self._content) - self._first_of_test - 1) % (self.length - 1)
        said = [] if self.path else ["the text is that of Python's help (data.path=FILE brings another)"]
        return [*said, *([f"the last {left} bytes fill no window"] if left else [])]

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "content": sha256_of([self._content])}

    def unlabelled(self, path: str) -> Source:
        return GivenTexts(path=path, fields=["text"])

    def num_examples(self, split: str) -> int:
        return self._windows(split)

    def stored_bytes(self, split: str) -> np.ndarray:
        import numpy as np

        return np.full(self._windows(split), self.length, np.int64)

    def locate(self, split: str, place: int) -> str:
        return f"{self.path or 'the topics of help'}: byte {self._begin(split, place)}"

    def _begin(self, split: str, place: Any) -> Any:
        return place if split == "train" else self._first_of_test + place * (self.length - 1)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    # -- with TensorFlow

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        with tf.device("CPU:0"):
            whole = tf.constant(self._content)
        cut = no_autograph(lambda place: tf.strings.substr(whole, self._begin(split, place), self.length))
        return indices.unbatch().map(cut)

    def parse(self, raw: tf.Tensor) -> dict[str, Any]:
        import tensorflow as tf

        length = tf.constant(self.length, tf.int64)
        return {
            "text": raw,
            "tokens": tf.ensure_shape(Tokenizer().operations().tokenize(raw), [self.length]),
            "pieces": length[tf.newaxis],
            "given": tf.ones([1], tf.int64),  # the first byte
            "bytes": length - 1,
            "left_out": tf.zeros([], tf.int64),
        }
