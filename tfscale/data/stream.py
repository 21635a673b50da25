"""A stream that never ends: data=stream data.function=my_data.examples data.epoch=10000.

Owns calling people's function, from the example on that a step begins with, and the part of each step that is this
worker's. Refuses to shuffle: the order is the function's.

    def examples(start):                    # in my_data.py; "start" makes a resume as fast as a start
        for number in itertools.count(start):
            yield {"x": [number / 10], "label": number % 2}
"""

from __future__ import annotations

import inspect
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.data.source import ComparesFirst, StreamedSource
from tfscale.errors import DataCorrupt, UsageError
from tfscale.user_code import check_code_exists, load_code

if TYPE_CHECKING:
    import tensorflow as tf

    from tfscale.data.order import Shard

_log = logging.getLogger(__name__)
_LOOKED_AT = 2  # examples that tell the form of all


@dataclass
class Stream(ComparesFirst, StreamedSource):
    """Examples as dicts of arrays, from a function of people's own; there is no test split.

    function: "package.function", which gives an iterator or a tf.data.Dataset of single examples. Where it takes
        `start`, it is called with the number of the example that it begins with, so that a run resumes by address.
        Else a run that resumes reads what it has seen again. Every worker calls it and takes its own examples: it must
        give the same ones everywhere.
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
        """The function, and whether it takes `start`."""
        function = load_code(self.function, key="data.function")
        try:
            taken = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            raise UsageError(
                f"{self.function} is no function", where="data.function", fix="name a function that gives examples"
            ) from None
        takes = any(one.name == "start" and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) for one in taken)
        needed = [
            one.name
            for one in taken
            if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
            if not (takes and one.name == "start")
        ]
        if needed:
            raise UsageError(
                f"{self.function} takes {', '.join(needed)}",
                where="data.function",
                fix='let it take the number of its first example under the name "start", or nothing; all else needs a'
                " default",
            )
        return function, takes

    def _from(self, first: int) -> tuple[Any, int]:
        """(what the function gives, the number of its first example)."""
        function, takes = self._called
        return (function(start=first), first) if takes else (function(), 0)

    def stream(self, split: str, shard: Shard, *, training: bool, start_step: int) -> tf.data.Dataset:
        from tfscale.autograph import no_autograph

        first = start_step * shard.global_batch
        if start_step and not self._called[1]:
            _log.info(f"{self.function} takes no start: {first:,} examples that were seen are read again and left out")
        examples, begin = self._dataset(first)
        low = shard.worker * shard.worker_batch
        examples = self.looked_at(examples)
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
                yield {name: self._value(name, one[name], number) for name in self._form}
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
            try:
                arrays = [np.asarray(one[name]) for one in some]
            except ValueError:
                raise self._no_example(f"{name} as rows of several lengths") from None
            ranks, texts = [array.ndim for array in arrays], [array.dtype.kind in "OUS" for array in arrays]
            if len(set(ranks)) > 1:
                raise self._no_example(f"{name} of {' and then of '.join(map(str, ranks))} axes")
            if len(set(texts)) > 1:
                raise self._no_example(f"{name} as a text and as a number")
            sizes = zip(*(array.shape for array in arrays), strict=True)
            kind = tf.string if texts[0] else tf.as_dtype(np.result_type(*arrays))
            form[name] = tf.TensorSpec([n[0] if len(set(n)) == 1 else None for n in sizes], kind)
        return form

    def _value(self, name: str, value: Any, number: int) -> Any:
        """It, unless TensorFlow would cut it off to the type that the first examples have."""
        import numpy as np

        kind = self._form[name].dtype
        if kind.is_integer and np.asarray(value).dtype.kind == "f":
            raise DataCorrupt(
                f"{self.function} gives {name} of {kind.name} first, and a fraction in example {number}",
                where="data.function",
                fix=f"let it give {name} as floats from the first example on",
            )
        return value

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

    def numbers(self, step: int, global_batch: int) -> range:
        return range(step * global_batch, (step + 1) * global_batch)

    def parse(self, raw: Any) -> dict[str, Any]:
        return dict(raw)
