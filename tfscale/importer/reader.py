"""Reader: how one kind of source is imported.

Owns what the importer asks of a source: which items there are, in an order that is the same every time, and an item's
features. Refuses to know splits, shards and how records are written.

    kind, found, _ = recognised(request)
    reader = kind.load()(request, found, scratch)  # a Reader
    listing = reader.listing()
    for place, item in zip(places, reader.read(places)):
        ...                                      # a dict of features, a Picture, or why the item is Bad
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Bad:
    """Why an item can't be an example."""

    reason: str


@dataclass(frozen=True)
class Picture:
    """An item with a picture, which was decoded once: to be checked, and to be measured.

    Attributes:
        features: as `Reader.features` encodes them.
        small: uint8 [32, 32, 3], a small copy of the picture.
        reasons: why it is odd, that is, what training sees otherwise than people may think, such as "CMYK, seen as
            RGB"; what is one item's own stands in brackets at the end, and texts that are equal before it are counted
            together. `import.json` lists it under "odd".
        smaller: bytes of its picture before and after it was made smaller, as the import asks for; None: it wasn't.
    """

    features: Mapping[str, Any]
    small: np.ndarray
    reasons: Sequence[str] = ()
    smaller: tuple[int, int] | None = None


def split_reason(reason: str) -> tuple[str, str]:
    """(what is counted together, the item's own in its brackets, or "") of an odd item's reason."""
    kind, _, own = reason.partition(" (")
    return kind, f" ({own}" if own else ""


@dataclass(frozen=True)
class Listing:
    """The items of a source, told without decoding any.

    Attributes:
        count: how many there are.
        name: of an item by its place, for people: a file below the source, or a file and a line.
        splits: [count] the split that the source itself puts an item into, "" for none; None: it has no splits.
        strata: [count] what splits are balanced by, such as the class; None: nothing.
        groups: [count] items of one group stay in one split; None: each is its own.
        digests: [count] a hash of an item's content; None where a copy is no fault, as in tables.
        files: the files that were read and their SHA-256, by their names below the source: what an import is of.
        left_out: what was left out before anything was read, a line each with its number: "12 rows without a label".
        bad: (name, reason) of items that are none of the `count`, since they can't even be told apart.
        scratch: a folder besides the reader's that `Reader.listing` unpacked an archive into; removed in the end.
        size: bytes of all examples, about: how many files they become.
        unit: what people call one of them.
    """

    count: int
    name: Callable[[int], str]
    splits: np.ndarray | None = None
    strata: np.ndarray | None = None
    groups: np.ndarray | None = None
    digests: np.ndarray | None = None
    files: Mapping[str, str] | None = None
    left_out: Sequence[str] = ()
    bad: Sequence[tuple[str, str]] = ()
    scratch: Path | None = None
    size: int = 0
    unit: str = "items"


class Reader(Protocol):
    """One source. It can be pickled once `listing` has been called, so that several processes read it: what it needs
    then lies in its fields, or in its scratch folder."""

    kind: str  # such as "table", "images", "text"

    def listing(self) -> Listing:
        """Raises DataMissing, DataCorrupt, UsageError."""

    def features(self) -> Any:
        """tfds.features.FeaturesDict of the records; TensorFlow is imported here."""

    def read(self, places: Sequence[int]) -> Iterator[Mapping[str, Any] | Picture | Bad]:
        """The items at these places, as `features` encodes them, in their order."""

    def describe(self, train: np.ndarray) -> Mapping[str, Any]:
        """What the data set's `columns.json` holds, learnt from the items of the training split alone; {}: nothing.

        Args:
            train: the places of the training split.
        """

    def summary(self) -> str:
        """What people should see of the source before it is written, such as its columns; ""."""

    def write_schema(self, file: Path) -> None:
        """Writes what people may edit and give back as data.schema; nothing where a kind has none."""


@runtime_checkable
class Serialising(Protocol):
    """A Reader that makes tf.train.Examples itself, where that is faster than TFDS's features; to the byte the same."""

    def serialised(self, places: Sequence[int]) -> Iterator[tuple[bytes, np.ndarray | None] | Bad]:
        """As `read`: each example serialised with its features in the order of their names, and the small copy of its
        picture, None where it has none."""


@runtime_checkable
class Profiling(Protocol):
    """A Reader that knows what items are like without its records being read again."""

    def profile(self, places: np.ndarray) -> dict[str, Any]:
        """{"rows", "columns", "label"} of these items, as `tfscale.statistics.findings` takes it."""
