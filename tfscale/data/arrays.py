"""Sources whose splits are NumPy arrays in memory.

Owns reading them by index, and the checks of values that such sources share. Refuses to know files and tables.

    @dataclass
    class Mine(ArraySource):
        def arrays(self, split):
            return {"x": x, "label": y} if split == "train" else {}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from tfscale.data.source import Source
from tfscale.errors import DataCorrupt, UsageError
from tfscale.files import sha256, sha256_of
from tfscale.labels import Labels, class_values, spoken, too_many

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from tfscale.data.order import Shard

RESERVED = ("seed", "weight")  # fields that the pipeline adds
_CHECKED_VALUES = 2**24


@dataclass
class ArraySource(Source):
    """Base of the sources that hold their splits in memory; subclasses give `arrays`."""

    numbers_classes: ClassVar[bool] = False  # whether labels that don't count from 0 are numbered; else they stand
    known_classes: ClassVar[tuple[str, ...] | None] = None  # of a trained model, set where one looks at these data

    def arrays(self, split: str) -> dict[str, Any]:
        """The fields of a split, asked for once: arrays whose first axis counts the examples, or nested dicts and
        tuples of them; {} for a "test" split that isn't there."""
        raise NotImplementedError

    def held(self, split: str) -> dict[str, Any]:
        """What `arrays` gave, checked and kept.

        Raises:
            DataCorrupt: fields of different lengths.
            UsageError: a field's name is reserved.
        """
        if split not in self._held:
            fields = {name: _tuples(value) for name, value in self.arrays(split).items()}
            check_fields(fields, where=f"the {split} split")
            self._held[split] = fields
        return self._held[split]

    def place(self, split: str, row: int) -> tuple[str, str]:
        """(where a row comes from, how people call it there)."""
        return f"the {split} split", f"row {row}"

    def settle(self, labels: Sequence[Labels]) -> None:
        for one in labels:
            self._takes[one.field] = one
            if not one.is_class and one.field == "label" and self.class_names():
                raise UsageError(
                    f"the labels are texts ({spoken(self.class_names() or ())}), and {one.why} takes numbers",
                    where=self.place("train", 0)[0],
                    fix="choose a loss for classes, such as sparse_categorical_crossentropy, or another label",
                )
            splits = [split for split in ("train", "test") if one.field in dict(leaves(self.held(split)))]
            if one.is_class and splits:
                self._settle(one, splits)

    def _settle(self, one: Labels, splits: list[str]) -> None:
        """Numbers the classes of one field in all splits, as those of the training, and checks their range."""
        import numpy as np

        found = {split: dict(leaves(self.held(split)))[one.field] for split in splits}
        first = found[splits[0]]
        if one.why == "accuracy" and self._are_quantities(first, one):
            self._takes[one.field] = replace(one, is_class=False)
            return
        if first.dtype.kind == "f" and not (one.soft and (first >= 0).all() and (first <= 1).all()):
            for split, array in found.items():
                self._refuse_fractions(array, split, one)
            found = {split: array.astype(np.int64) for split, array in found.items()}
        if found[splits[0]].dtype.kind not in "iu":
            return
        values = class_values(found[splits[0]], one, self.known_classes) if self.numbers_classes else None
        if values is not None and one.outputs is not None and len(values) > one.outputs:
            raise too_many(values, one, self.place(splits[0], 0)[0])
        for split, array in found.items():
            if values is not None:
                array = self._numbered(array, values, split)
            elif one.outputs is not None or self.numbers_classes:
                count = one.outputs if one.outputs is not None else int(found[splits[0]].max(initial=0)) + 1
                self._check_range(array, count, split, one)
            if self.numbers_classes:
                self._put(split, one.field, array)
        if values is not None:
            self._names[one.field] = tuple(map(str, values.tolist()))
            self._said = f"the labels {spoken(self._names[one.field])} are the classes 0 to {len(values) - 1}"

    @staticmethod
    def _are_quantities(labels: np.ndarray, one: Labels) -> bool:
        """Whether accuracy is asked of labels that can't be classes, which the loss doesn't want either."""
        import numpy as np

        whole = labels.dtype.kind in "iu" or bool((labels == np.floor(labels)).all())
        return labels.ndim > 1 or not whole or (one.soft and len(np.unique(labels)) > 2)

    def _refuse_fractions(self, labels: np.ndarray, split: str, one: Labels) -> None:
        import numpy as np

        good = (labels == np.floor(labels)).reshape(len(labels), -1).all(axis=1)
        if not good.all():
            row = int(good.argmin())
            where, name = self.place(split, row)
            raise DataCorrupt(
                f"the label is {labels[row]} in {name}, and {one.why or 'the task'} takes classes",
                where=where,
                fix="number the classes by whole numbers, or choose a loss for quantities, such as mse",
            )

    def _numbered(self, labels: np.ndarray, values: np.ndarray, split: str) -> np.ndarray:
        import numpy as np

        places = np.searchsorted(values, labels).clip(0, len(values) - 1)
        good = values[places] == labels
        if not good.all():
            row = int(good.reshape(len(good), -1).all(axis=1).argmin())
            where, name = self.place(split, row)
            raise DataCorrupt(
                f"no training example has the label {labels[row]} of {name}",
                where=where,
                fix="correct the label, or add examples of it to the training split",
            )
        return places.astype(np.int64)

    def _check_range(self, labels: np.ndarray, count: int, split: str, one: Labels) -> None:
        good = ((labels >= 0) & (labels < count)).reshape(len(labels), -1)
        if not good.all():
            row = int(good.all(axis=1).argmin())
            value = labels.reshape(len(labels), -1)[row][~good[row]][0]
            where, name = self.place(split, row)
            what, fix = f"outside 0..{count - 1}", "correct the label; classes count from 0"
            if one.soft:
                what = f"and {one.why} takes the two classes 0 and 1"
            elif one.outputs is not None:
                what = f"and the model has {count} outputs, for the classes {what.replace('outside ', '')}"
                fix = "correct the label, or give the model an output for every class; classes count from 0"
            raise DataCorrupt(
                f"the {'label' if one.field == 'label' else one.field} is {value} in {name}, {what}",
                where=where,
                fix=fix,
            )

    def _put(self, split: str, field: str, array: np.ndarray) -> None:
        self.held(split)[field] = array
        self._tensors.pop(split, None)

    def class_spec(self) -> dict[str, int]:
        """num_classes, where the field "label" may be one of classes."""
        label, names, takes = self.held("train").get("label"), self.class_names(), self._takes.get("label")
        if names:
            return {"num_classes": len(names)}
        if label is None or label.dtype.kind != "i" or label.ndim != 1 or (takes is not None and not takes.is_class):
            return {}
        return {"num_classes": max(1, int(label.max(initial=0)) + 1)}

    def labelling(self) -> str:
        return self.__dict__.get("_said", "")

    def class_names(self) -> tuple[str, ...] | None:
        return self._names.get("label")

    @cached_property
    def _names(self) -> dict[str, tuple[str, ...]]:
        return {}

    @cached_property
    def _takes(self) -> dict[str, Labels]:
        return {}

    def class_labels(self, split: str) -> np.ndarray | None:
        import numpy as np

        labels = self.held(split).get("label")
        return np.asarray(labels, np.int64) if labels is not None and self.class_spec() else None

    def stored_bytes(self, split: str) -> np.ndarray | None:
        import numpy as np

        each = sum(array.nbytes // max(1, len(array)) for _, array in leaves(self.held(split)))
        return np.full(self.num_examples(split), each, np.int64)

    def num_examples(self, split: str) -> int:
        return next((len(array) for _, array in leaves(self.held(split))), 0)

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        return self._gathered(split, indices).unbatch()

    def whole_steps(
        self, split: str, indices: tf.data.Dataset, shard: Shard, *, training: bool, start_step: int
    ) -> tf.data.Dataset | None:
        return self._gathered(split, indices)

    def _gathered(self, split: str, indices: tf.data.Dataset) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        if tf.inside_function():  # asynchronous training: the arrays become part of the function that workers get
            held = tf.nest.map_structure(tf.constant, self.held(split))
        else:
            if split not in self._tensors:
                with tf.device("CPU:0"):  # an accelerator's memory is for the model
                    self._tensors[split] = tf.nest.map_structure(tf.constant, self.held(split))
            held = self._tensors[split]
        gather = no_autograph(lambda some: tf.nest.map_structure(lambda whole: tf.gather(whole, some), held))
        return indices.map(gather)

    def parse(self, raw: Any) -> dict[str, Any]:
        return dict(raw)

    @cached_property
    def _held(self) -> dict[str, dict[str, Any]]:
        return {}

    @cached_property
    def _tensors(self) -> dict[str, Any]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        # another process reads for itself: what is kept may be large, and tensors don't travel
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


@dataclass
class ArrayFiles(ArraySource):
    """Base of those that are read whole from a file of the train split, and another one of the test split if there is
    one; subclasses give `arrays`. Their identity is the content of these files."""

    places: ClassVar[tuple[str, ...]] = ("path", "test_path")
    numbers_classes: ClassVar[bool] = True

    path: str = "???"  # the file of the training split, or of both
    test_path: Optional[str] = None  # the file of the test split

    @property
    def files(self) -> list[Path]:
        return [Path(file) for file in (self.path, self.test_path) if file is not None]

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "content": self._content}

    @cached_property
    def _content(self) -> str:
        return sha256_of(bytes.fromhex(sha256(file)) for file in self.files)


def leaves(nested: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, array) of every array in nested dicts and tuples, in tf.nest's order; names such as "x.left" and "x.0"."""
    if isinstance(nested, dict):
        parts = [(key, nested[key]) for key in sorted(nested)]
    elif isinstance(nested, tuple | list):
        parts = list(enumerate(nested))
    else:
        yield name, nested
        return
    for key, value in parts:
        yield from leaves(value, f"{name}.{key}".lstrip("."))


def stored(tensor: Any) -> Any:
    """The values that a tensor holds, without those that a ragged or sparse one leaves out."""
    return getattr(tensor, "flat_values", getattr(tensor, "values", tensor))


def _tuples(nested: Any) -> Any:
    """Lists as tuples: tf.data would stack the parts of a list into one tensor."""
    if isinstance(nested, dict):
        return {key: _tuples(value) for key, value in nested.items()}
    if isinstance(nested, list) or type(nested) is tuple:
        return tuple(_tuples(value) for value in nested)
    return nested


def check_fields(fields: dict[str, Any], *, where: str) -> None:
    """Raises DataCorrupt where fields have different lengths, UsageError where a name is reserved."""
    for name in RESERVED:
        if name in fields:
            raise UsageError(
                f"the field {name!r} has a name that the pipeline uses itself", where=where, fix="give it another name"
            )
    lengths = {name: len(array) for name, array in leaves(fields)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataCorrupt(
            f"the fields have different lengths: {told}", where=where, fix="give every example all of its fields"
        )


def _row(row: int) -> str:
    return f"row {row}"


def check_finite(
    values: np.ndarray,
    *,
    field: str,
    where: str,
    row_name: Callable[[int], str] = _row,
    fix: str = "",
    wide: bool = True,
) -> None:
    """Raises DataCorrupt naming field, row (from 0) and value where a floating number is NaN or infinite.

    Args:
        wide: False: also where it is beyond float32, in which a model would find it infinite.
    """
    import numpy as np

    if not np.issubdtype(values.dtype, np.floating) or values.size == 0:
        return
    most = np.finfo(np.float32).max if not wide and values.dtype.itemsize > 4 else np.inf
    rows = values.reshape(len(values), -1)
    some = max(1, _CHECKED_VALUES // max(1, rows.shape[1]))  # at a time, since each look takes memory
    for first in range(0, len(rows), some):
        good = np.isfinite(rows[first : first + some]) & (np.abs(rows[first : first + some]) <= most)
        if not good.all():
            row = first + int(good.all(axis=1).argmin())
            value = rows[row][~good[row - first]][0]
            beyond = " and beyond float32" if np.isfinite(value) else ""
            raise DataCorrupt(
                f"{field} is {value}{beyond} in {row_name(row)}",
                where=where,
                fix=fix or "correct or remove that example",
            )


def check_labels(
    labels: np.ndarray, num_classes: int, *, where: str, row_name: Callable[[int], str] = _row, fix: str = ""
) -> None:
    """Raises DataCorrupt naming row (from 0) and value where an integer label is outside 0..num_classes-1."""
    good = (labels >= 0) & (labels < num_classes)
    if not good.all():
        row = int(good.argmin())
        raise DataCorrupt(
            f"the label is {labels[row]} in {row_name(row)}, outside 0..{num_classes - 1}",
            where=where,
            fix=fix or "correct the label; classes count from 0",
        )
