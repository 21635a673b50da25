"""Source: where examples come from.

Owns the interface between a kind of data and the pipeline. Refuses to know batches, augmentation and workers: it is
asked for examples by index, in the order that `order.py` alone decides. A source is a dataclass; TensorFlow is imported
inside its methods, so that a run can be planned without it.

    source.prepare()                                      # once, by one writer at a time
    raw = source.read("train", indices, ram_bytes=2**30)  # a dataset of vectors of indices in, of examples out
    example = source.parse(raw_element)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.errors import UsageError
from tfscale.files import sha256

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from tfscale.data.first_batch import FirstBatch
    from tfscale.data.order import Part, Permutation, Shard
    from tfscale.labels import Labels
    from tfscale.statistics.findings import Finding

READING = 2  # how pictures are found and decoded now, see `Source.reading`


@dataclass
class Source:
    """Base of all sources, from which your own derives: it gives `num_examples` and, by index, `read`. One that can't
    be read by index derives from StreamedSource. Splits are named by their role: "train" and "test"."""

    # 1: pictures are known by the ending of their file, and decoded without their EXIF orientation and the palette of a
    # BMP. Runs that began like that go on like that; nothing else is read so.
    reading = READING

    stable_name: ClassVar[str] = ""  # what its runs are named by, for a class that is renamed or moves; not inherited
    by_index: ClassVar[bool] = True  # whether any step can be read by itself, on any worker
    # An epoch is every example once, as Keras counts, and a step never crosses it: the last one is smaller, see
    # epochs.py. Else steps go on over the ends of epochs, see order.py.
    whole_epochs: ClassVar[bool] = False
    places: ClassVar[tuple[str, ...]] = ("dir",)  # fields that say where the data lies, not which data it is

    def check(self) -> None:
        """Finds what is wrong without TensorFlow and without writing: unknown names, missing files.

        Raises:
            DataMissing: with the nearest names or the way to get the data.
        """

    def ignored(self) -> dict[str, str]:
        """Fields that are given and take no effect, each with the reason; told without TensorFlow."""
        return {}

    def is_prepared(self) -> bool:
        """Whether `prepare` has nothing to write; told without TensorFlow."""
        return True

    def prepare(self) -> None:
        """Makes the data ready to read; safe to call from several processes at once, and again.

        Raises:
            DataMissing, DataCorrupt: naming the file.
        """

    def spec(self) -> dict[str, Any]:
        """What a task may need to know of the data: num_classes, image_size, channels. Known without TensorFlow, as
        far as the data is described or prepared."""
        return {}

    def settle(self, labels: Sequence[Labels]) -> None:
        """Hears what the task takes the labels for: numbers their classes, where they don't count from 0, and finds
        those that the model has no output for. Called again where more is known.

        Raises:
            UsageError, DataCorrupt: more classes than outputs, or a label that is none of them.
        """
        has = self.spec().get("num_classes")
        for one in labels:
            if one.is_class and has is not None and one.outputs is not None and has > one.outputs:
                raise UsageError(
                    f"the data have {has} classes, and the model has {one.outputs} outputs",
                    where="data",
                    fix=f"give the model {has} outputs, or choose data with the classes that it knows",
                )

    def labelling(self) -> str:
        """One line about labels that were numbered, for people; "" where they stand as they are."""
        return ""

    def foreseen(self) -> dict[str, Any] | None:
        """`spec` as it will be once the data are prepared, None where only their preparation tells; without
        TensorFlow."""
        return self.spec() if self.is_prepared() else None

    def contents(self) -> Mapping[str, Path]:
        """The files whose content a resumed run compares with that which it began with, by names that don't say where
        they lie; none where `identity` tells the content already."""
        return {}

    def content_of(self, file: Path) -> str:
        """A hash of what a file of `contents` holds: of its bytes or, after a word and a colon, of what the same data
        have in common however they are written. Raises OSError, DataCorrupt."""
        return sha256(file)

    def breaks(self) -> Sequence[Finding]:
        """What of the training split isn't as the data are to be; nothing where nobody says how."""
        return ()

    def keep_baseline(self, target: Path) -> None:
        """Writes what the training split is like into the folder `target`, where that is known."""

    def remarks(self) -> Sequence[str]:
        """What people should know of how the data were found, a part of a sentence each: what is left out, and why."""
        return ()

    def former(self) -> Source | None:
        """This source as a version before would have read it, where that was another way and runs may go on with it."""
        return None

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes in order of their label, where the data have them."""
        return None

    def feature_names(self) -> Sequence[str] | None:
        """What the places of each example's one vector are called, where the data have names for them."""
        return None

    def example_names(self, split: str) -> Sequence[str] | None:
        """A name for every example of a prepared split, such as its file; None: its index is all there is."""
        return None

    def bad_examples(self, split: str) -> Sequence[int]:
        """The places in a prepared split of examples that can't be read and are tolerated: they count with weight 0."""
        return ()

    def count_bad(self, split: str) -> int:
        """How many examples of a prepared split can't be used and are tolerated, also those without a place in it."""
        return len(self.bad_examples(split))

    def class_labels(self, split: str) -> np.ndarray | None:
        """The class of every example of a prepared split, counted as `class_names` are, -1 where it has none that can
        be used: int64 [examples]. None where they have no classes, or it takes a look through too much data."""
        return None

    def stored_bytes(self, split: str) -> np.ndarray | None:
        """How many bytes every example of a prepared split is stored in: int64 [examples]; None where nobody knows."""
        return None

    def decoded_size(self) -> tuple[int, int] | None:
        """How many pictures both splits have together, and the bytes that they take decoded; None where they aren't
        known. Told without TensorFlow."""
        return None

    @property
    def version(self) -> str:
        """Which version of the data set it is, "" where it has none; told without TensorFlow."""
        return ""

    @property
    def location(self) -> str:
        """Where the data lie, for people, "" where that says nothing; told without TensorFlow."""
        return ""

    def num_raw(self, split: str) -> int:
        """How many of the first examples of a prepared split have the raw fields that a served model takes."""
        return self.num_examples(split)

    def raw_apart(self, split: str) -> str:
        """Why those raw fields stand for something else than the other fields of an example, "" where they don't."""
        return ""

    def locate(self, split: str, place: int) -> str:
        """Where an example of a prepared split comes from, for people: a file, a record in it, or its number."""
        names = self.example_names(split)
        return names[place] if names is not None else f"example {place} of the {split} split"

    def unlabelled(self, path: str) -> Source:
        """A source of this kind for the examples at `path`, which need no labels; its only split is "test".

        Raises:
            UsageError: this kind can't be read without labels.
        """
        raise UsageError(
            f"{type(self).__name__} doesn't read examples without labels",
            where="input",
            fix="leave input= away to predict a split of the data, or choose another source with data=",
        )

    def num_examples(self, split: str) -> int:
        """The number of examples of a prepared split; 0 for a "test" split that isn't there. At most as many, where
        only a look through all of them would tell."""
        raise NotImplementedError

    def count_examples(self, split: str) -> int:
        """The same, exactly."""
        return self.num_examples(split)

    def known_examples(self, split: str) -> int | None:
        """The same, exactly; None where only a look tells."""
        return self.num_examples(split)

    def count_steps(self, split: str, global_batch: int) -> float:
        """How many steps a split is; a fraction where a step goes on in the next epoch."""
        steps = self.num_examples(split) / global_batch
        return math.ceil(steps) if self.whole_epochs else steps

    @property
    def by_pass(self) -> bool:
        """Whether each epoch of training is a pass through the data that begins when the epoch does."""
        return False

    @property
    def shares_unevenly(self) -> bool:
        """Whether a step need not divide by the replicas."""
        return self.whole_epochs

    def permutation(self, split: str, *, global_batch: int, seed: int | None) -> Permutation | None:
        """The order of each of its whole epochs, None: another one for every epoch, drawn by the seed.

        Args:
            seed: None: people's own, which they gave TensorFlow.
        """
        return None

    def parts(self, split: str) -> Sequence[Part]:
        """Of a source that trains on several together: their examples, which stand one part behind another, and shares;
        () of any other."""
        return ()

    def part_names(self) -> Sequence[str]:
        """What the parts are called, in their order."""
        return ()

    def beginning(self, split: str) -> tf.data.Dataset | None:
        """The batches that hold the first two examples of a split, of a source that is made of batches; else None."""
        return None

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        """The raw examples at these indices, one by one, in their order.

        Args:
            indices: a dataset of int64 vectors.
            ram_bytes: how much memory the source may use to hold a split.
        """
        raise NotImplementedError

    def whole_steps(
        self, split: str, indices: tf.data.Dataset, shard: Shard, *, training: bool, start_step: int
    ) -> tf.data.Dataset | None:
        """The parsed examples of whole steps, stacked, where that is cheaper than one by one; None: it isn't.

        Asked only for tasks that don't preprocess. Elements are as long as their indices.
        """
        return None

    @property
    def parses_rows(self) -> bool:
        """Whether `parse` takes many raw elements just as well, stacked, and gives their fields stacked."""
        return False

    def parse(self, raw: Any) -> dict[str, Any]:
        """One raw element as a dict of tensors; traced by tf.data."""
        parsed: dict[str, Any] = raw
        return parsed

    def identity(self) -> dict[str, Any]:
        """The fields that say which data this is, without where it lies and how much of it may be damaged."""
        left_out = (*self.places, "max_bad_records")
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}

    def look_at_first(self) -> FirstBatch | None:
        """What tells the first batch of training, which workers compare where data can't be compared before they are
        read; called before anything is read."""
        return None

    def resolved(self) -> Source:
        """The source that examples are read from: itself, but for one that stands for another."""
        return self


@dataclass
class StreamedSource(Source):
    """Base of the sources that can't be read by index: their own order is kept, and a run resumes by skipping."""

    by_index: ClassVar[bool] = False

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        raise NotImplementedError(f"{type(self).__name__} can't be read by index")

    def stream(self, split: str, shard: Shard, *, training: bool, start_step: int) -> tf.data.Dataset:
        """This worker's raw examples from step `start_step` on, one by one.

        Endless in training; in evaluation every example once, then any of them to fill the last step up.
        """
        raise NotImplementedError

    def numbers(self, step: int, global_batch: int) -> Sequence[int]:
        """The numbers of a training step's examples; () where nobody knows them."""
        return ()

    def own_steps(self, split: str) -> str:
        """Why this split's steps can't be cut anew, so that `steps` gives them as they are; "" where they can."""
        return ""

    def steps(self, split: str, *, global_batch: int, training: bool, start_step: int) -> tf.data.Dataset:
        """Whole steps of whatever size, with their weights; only where `own_steps` says why.

        Args:
            global_batch: the weights of a training step add up to it.
        """
        raise NotImplementedError


class ComparesFirst:
    """What a source derives from, too, whose first batch, or example, workers compare on its way to the step."""

    def look_at_first(self) -> FirstBatch | None:
        from tfscale.data.first_batch import FirstBatch

        self._looks[:] = [FirstBatch()]
        return self._looks[0]

    def looked_at(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The same data set, seen by what `look_at_first` gave, where it was asked for."""
        for look in self._looks:
            dataset = look.through(dataset)
        return dataset

    @cached_property
    def _looks(self) -> list[FirstBatch]:
        """One, or none where nobody asks for it."""
        return []
