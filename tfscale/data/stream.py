"""A stream that never ends: data=stream data.function=my_data.examples data.epoch=10000.

Owns calling people's function, from the example on that a step begins with, and the part of each step that is this
worker's. Refuses to shuffle: the order is the function's.

    def examples(start):                    # in my_data.py; "start" makes a resume as fast as a start
        for number in itertools.count(start):
            yield {"x": features(number), "label": label(number)}
"""

from __future__ import annotations

import inspect
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.data.source import StreamedSource
from tfscale.errors import DataCorrupt, UsageError
from tfscale.user_code import check_code_exists, load_code

if TYPE_CHECKING:
    import tensorflow as tf

    from tfscale.data.first_batch import FirstBatch
    from tfscale.data.order import Shard

_log = logging.getLogger(__name__)
_LOOKED_AT = 2  # examples that tell the form of all


@dataclass
class Stream(StreamedSource):
    """Examples as dicts of arrays, from a function of people's own; there is no test split.

    function: "package.function", which gives an iterator or a tf.data.Dataset of single examples. Where it has an
        argument, that is the number of the example that it begins with, so that a run resumes by address. Without one,
        a run that resumes reads what it has seen again. Every worker calls it and takes its own examples: it must give
        the same ones everywhere.
    epoch: how many examples count as an epoch.
    """

    code_fields: ClassVar[tuple[str, ...]] = ("function",)
    is_file: ClassVar[bool] = False  # the function is always code
    places: ClassVar[tuple[str, ...]] = ()

    function: str = "???"
    epoch: int = "???"  # type: ignore[assignment]

    # -- without TensorFlow

    def check(self) -> None:
        if self.epoch < 1:
            raise UsageError(
                f"{self.epoch} examples are no epoch", where="data.epoch", fix="give data.epoch=10000 or such"
            )
        check_code_exists(self.function, key="data.function")

    def num_examples(self, split: str) -> int:
        return self.epoch if split == "train" else 0

    def locate(self, split: str, place: int) -> str:
        return f"example {place} of {self.function}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    # -- with TensorFlow

    @cached_property
    def _called(self) -> tuple[Any, bool]:
        """The function, and whether it takes the number of its first example."""
        function = load_code(self.function, key="data.function")
        try:
            taken = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            raise UsageError(
                f"{self.function} is no function", where="data.function", fix="name a function that gives examples"
            ) from None
        needed = [one.name for one in taken if one.default is one.empty and one.kind < one.KEYWORD_ONLY]
        if len(needed) > 1:
            raise UsageError(
                f"{self.function} takes {', '.join(needed)}",
                where="data.function",
                fix="let it take the number of its first example alone, or nothing",
            )
        return function, bool(needed) or any(one.name == "start" for one in taken)

    def _from(self, first: int) -> tuple[Any, int]:
        """(what the function gives, the number of its first example)."""
        function, takes = self._called
        return (function(first), first) if takes else (function(), 0)

    def stream(self, split: str, shard: Shard, *, training: bool, start_step: int) -> tf.data.Dataset:
        from tfscale.autograph import no_autograph

        first = start_step * shard.global_batch
        if start_step and not self._called[1]:
            _log.info(f"{self.function} takes no start: {first:,} examples that were seen are read again and left out")
        examples, begin = self._dataset(first)
        low = shard.worker * shard.worker_batch
        for look in self._looks:
            examples = look.through(examples)
        mine = no_autograph(
            lambda number, _: (
                (number >= first)
                & (number % shard.global_batch >= low)
                & (number % shard.global_batch < low + shard.worker_batch)
            )
        )
        return examples.enumerate(begin).filter(mine).map(no_autograph(lambda _, example: example))

    def _dataset(self, first: int) -> tuple[tf.data.Dataset, int]:
        import tensorflow as tf

        given, begin = self._from(first)
        if isinstance(given, tf.data.Dataset):
            if not isinstance(given.element_spec, dict):
                raise self._no_example(f"elements of {type(given.element_spec).__name__}")
            end = tf.data.Dataset.from_generator(lambda: self._ended("it"), output_signature=given.element_spec)
            return given.concatenate(end), begin

        def examples() -> Iterator[dict[str, Any]]:
            given, number = self._from(first)
            for one in given:
                yield {name: one[name] for name in self._form}
                number += 1
            yield from self._ended(f"example {number}")

        return tf.data.Dataset.from_generator(examples, output_signature=self._form), begin

    @cached_property
    def _form(self) -> dict[str, tf.TensorSpec]:
        """What its first examples are: an axis on which they differ is of any length."""
        import numpy as np
        import tensorflow as tf

        some = list(itertools.islice(iter(self._from(0)[0]), _LOOKED_AT))
        if not some or not all(isinstance(one, dict) and one.keys() == some[0].keys() for one in some):
            raise self._no_example(type(some[0]).__name__ if some else "no example")
        form = {}
        for name in some[0]:
            arrays = [np.asarray(one[name]) for one in some]
            rank = max(array.ndim for array in arrays)
            kind = tf.as_dtype(arrays[0].dtype) if arrays[0].dtype.kind not in "OUS" else tf.string
            same = [len({array.shape[axis] for array in arrays if array.ndim == rank}) == 1 for axis in range(rank)]
            form[name] = tf.TensorSpec([n if one else None for n, one in zip(arrays[0].shape, same, strict=True)], kind)
        return form

    def _no_example(self, what: str) -> UsageError:
        return UsageError(
            f"{self.function} gives {what}",
            where="data.function",
            fix='let it give dicts of arrays with the same keys, such as {"x": ..., "label": ...}',
        )

    def _ended(self, where: str) -> Iterator[Any]:
        raise DataCorrupt(
            f"{self.function} ended at {where}, and training goes on",
            where="data.function",
            fix="let it never end (itertools.count, .repeat()), or import the data: tfscale data import",
        )
        yield  # a generator, which raises when it is read

    def parse(self, raw: Any) -> dict[str, Any]:
        return dict(raw)

    def look_at_first(self) -> FirstBatch | None:
        from tfscale.data.first_batch import FirstBatch

        self._looks[:] = [FirstBatch()]
        return self._looks[0]

    @cached_property
    def _looks(self) -> list[FirstBatch]:
        """What looks at the first example, which workers compare."""
        return []
