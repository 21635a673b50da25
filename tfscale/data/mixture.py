"""Several sources as one, by weights: data=mixture 'data.weights={day: 0.7, night: 0.3}'.

Owns which sources they are, what share of the training each has, and that they are of one form. Refuses to know which
example comes when: order.py does, by the shares.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from tfscale.config.schema import class_name
from tfscale.data.prepared import Prepared
from tfscale.data.source import Source
from tfscale.errors import DataMissing, TfscaleError, UsageError, nearest
from tfscale.statistics.findings import Finding

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from tfscale.data.order import Part
    from tfscale.labels import Labels

_LONGEST = 1000  # positions of a block, in which the shares are exact
_NEAR = 1e-9  # from which on a share is the weight
_OF_ONE_FORM = ("num_classes", "channels", "length", "vocabulary", "fields", "tokenizer")  # of `Source.spec`


@dataclass
class Mixture(Source):
    """Trains on its sources by their weights; the test split is that of all of them, one behind another.

    weights: a number for each source, of any sum. A name that `sources` doesn't have is a data set in `dir` that
        `tfscale data import` wrote.
    sources: other kinds by a name: {photos: {_target_: tfscale.data.image_folder.ImageFolder, path: photos}}.
    """

    places: ClassVar[tuple[str, ...]] = ("dir",)
    built_fields: ClassVar[tuple[str, ...]] = ("sources",)

    dir: str = "data"
    weights: dict[str, float] = field(default_factory=dict)
    sources: Optional[dict[str, Any]] = None

    # -- without TensorFlow

    @cached_property
    def _parts(self) -> dict[str, Source]:
        return {name: (self.sources or {}).get(name) or Prepared(dir=self.dir, name=name) for name in self.weights}

    @cached_property
    def _shares(self) -> list[int]:
        return shares_of(self.weights)

    def check(self) -> None:
        if not self.weights:
            raise UsageError(
                "a mixture needs weights", where="data.weights", fix="'data.weights={day: 0.7, night: 0.3}'"
            )
        for name in self.sources or {}:
            if name not in self.weights:
                raise UsageError(
                    f"the source {name} has no weight{nearest(name, list(self.weights))}",
                    where="data.weights",
                    fix=f"give it one, or leave data.sources.{name} away",
                )
        assert self._shares  # raises what is wrong with the weights
        for name, part in self._parts.items():
            with _named(name):
                part.check()
            if not part.by_index or part.whole_epochs or part.parts("train"):
                raise UsageError(
                    f"{name} is a {type(part).__name__}, which can't be read by index",
                    where=f"data.sources.{name}",
                    fix="import it first: tfscale data import PATH name=NAME",
                )

    def ignored(self) -> dict[str, str]:
        told = ((name, part.ignored()) for name, part in (self.sources or {}).items())
        return {f"sources.{name}.{key}": why for name, ignored in told for key, why in ignored.items()}

    def breaks(self) -> list[Finding]:
        told = ((name, part.breaks()) for name, part in self._parts.items())
        return [replace(one, text=f"{name}: {one.text}") for name, found in told for one in found]

    def keep_baseline(self, target: Path) -> None:
        for name, part in self._parts.items():
            (target / name).mkdir(exist_ok=True)
            part.keep_baseline(target / name)

    def is_prepared(self) -> bool:
        return all(part.is_prepared() for part in self._parts.values())

    def prepare(self) -> None:
        for name, part in self._parts.items():
            with _named(name):
                part.prepare()
        self._refuse_unlike()

    def spec(self) -> dict[str, Any]:
        """That of the first source, which the others must have alike, but for what is known of a table's columns."""
        specs = {name: part.spec() for name, part in self._parts.items()}
        if not specs:
            return {}
        first, *others = specs.items()
        for name, spec in others:
            for key in _OF_ONE_FORM:
                if spec.get(key) != first[1].get(key):
                    raise _unlike(first[0], name, f"{key} is {_short(first[1].get(key))} and {_short(spec.get(key))}")
            if set(spec.get("columns", ())) != set(first[1].get("columns", ())):
                raise _unlike(first[0], name, "they have other columns")
        found = dict(first[1])
        if any(spec.get("image_size") != found.get("image_size") for spec in specs.values()):
            found.pop("image_size", None)
        return found

    def settle(self, labels: Sequence[Labels]) -> None:
        for part in self._parts.values():
            part.settle(labels)
        self.class_names()

    def labelling(self) -> str:
        return next(iter(self._parts.values())).labelling()

    def class_names(self) -> tuple[str, ...] | None:
        names = {name: part.class_names() for name, part in self._parts.items()}
        if not names:
            return None
        first, *others = names.items()
        for name, classes in others:
            if classes != first[1]:
                raise _unlike(first[0], name, f"the classes are {_short(first[1])} and {_short(classes)}")
        return first[1]

    def contents(self) -> Mapping[str, Path]:
        return {f"{name}/{file}": path for name, part in self._parts.items() for file, path in part.contents().items()}

    def content_of(self, file: Path) -> str:
        owner = next(part for part in self._parts.values() if file in part.contents().values())
        return owner.content_of(file)

    def identity(self) -> dict[str, Any]:
        parts = {name: {"class": class_name(part), **part.identity()} for name, part in self._parts.items()}
        return {"sources": parts, "shares": dict(zip(self._parts, self._shares, strict=True))}

    def remarks(self) -> Sequence[str]:
        block, told = sum(self._shares), []
        total = sum(self.weights.values())
        for (name, weight), share, part in zip(self.weights.items(), self._shares, self._parts.values(), strict=True):
            near = "" if abs(weight / total - share / block) < _NEAR else f" (asked for {weight / total:.4%})"
            told.append(f"{share / block:.4g} of a training is {name}, {part.num_examples('train')} examples{near}")
        if self.spec().get("columns"):
            told.append(f"what is known of the columns is that of {next(iter(self._parts))}")
        return [*told, *(f"{name}: {text}" for name, part in self._parts.items() for text in part.remarks())]

    @property
    def version(self) -> str:
        return ", ".join(part.version for part in self._parts.values() if part.version)

    @property
    def location(self) -> str:
        return ", ".join(part.location for part in self._parts.values() if part.location)

    @property
    def name(self) -> str:
        return " + ".join(self._parts)

    def part_names(self) -> Sequence[str]:
        return list(self._parts)

    def num_examples(self, split: str) -> int:
        return sum(part.num_examples(split) for part in self._parts.values())

    def _starts(self, split: str) -> dict[str, int]:
        """Where the examples of each source begin."""
        found, start = {}, 0
        for name, part in self._parts.items():
            found[name] = start
            start += part.num_examples(split)
        return found

    def bad_examples(self, split: str) -> Sequence[int]:
        starts = self._starts(split)
        return [starts[name] + place for name, part in self._parts.items() for place in part.bad_examples(split)]

    def count_bad(self, split: str) -> int:
        return sum(part.count_bad(split) for part in self._parts.values())

    def locate(self, split: str, place: int) -> str:
        name, start = next((n, s) for n, s in reversed(self._starts(split).items()) if s <= place)
        return f"{name}: {self._parts[name].locate(split, place - start)}"

    def example_names(self, split: str) -> Sequence[str] | None:
        found = {name: part.example_names(split) for name, part in self._parts.items()}
        if any(names is None for names in found.values()):
            return None
        return [f"{name}/{one}" for name, names in found.items() for one in names or ()]

    def unlabelled(self, path: str) -> Source:
        return next(iter(self._parts.values())).unlabelled(path)

    def class_labels(self, split: str) -> np.ndarray | None:
        return self._joined([part.class_labels(split) for part in self._parts.values() if part.num_examples(split)])

    def stored_bytes(self, split: str) -> np.ndarray | None:
        return self._joined([part.stored_bytes(split) for part in self._parts.values() if part.num_examples(split)])

    @staticmethod
    def _joined(found: Sequence[np.ndarray | None]) -> np.ndarray | None:
        import numpy as np

        known = [one for one in found if one is not None]
        return np.concatenate(known) if known and len(known) == len(found) else None

    def __getstate__(self) -> dict[str, Any]:
        # another process looks for itself
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    # -- with TensorFlow

    def parts(self, split: str) -> Sequence[Part]:
        from tfscale.data.order import Part

        counts = [part.num_examples(split) for part in self._parts.values()]
        return [Part(count, share) for count, share in zip(counts, self._shares, strict=True)]

    def _refuse_unlike(self) -> None:
        """Raises UsageError where the sources' examples can't stand beside each other in a batch."""
        import tensorflow as tf

        one, forms = tf.data.Dataset.from_tensors(tf.zeros([1], tf.int64)), {}
        for name, part in self._parts.items():
            if not part.num_examples("train"):
                raise DataMissing(
                    f"{name} has no example to train on", where=f"data.weights.{name}", fix="leave it away"
                )
            fields = _parsed(part, "train", one, 0).element_spec
            forms[name] = {key: (spec.dtype.name, spec.shape.rank) for key, spec in fields.items()}
        first, *others = forms.items()
        for name, form in others:
            if differing := sorted(k for k in {*form, *first[1]} if form.get(k) != first[1].get(k)):
                told = [f"{key} is {_form(first[1].get(key))} and {_form(form.get(key))}" for key in differing[:3]]
                raise _unlike(first[0], name, "; ".join(told))

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        parts = [(part, part.num_examples(split)) for part in self._parts.values()]
        parts = [(part, count) for part, count in parts if count]
        ends = tf.cumsum(tf.constant([count for _, count in parts], tf.int64))
        streams, start = [], 0
        for part, count in parts:
            streams.append(_parsed(part, split, _within(indices, start, count), ram_bytes // len(parts)))
            start += count
        which = no_autograph(lambda some: tf.searchsorted(ends, some, side="right", out_type=tf.int64))
        return tf.data.Dataset.choose_from_datasets(streams, indices.map(which).unbatch(), stop_on_empty_dataset=False)

    def parse(self, raw: Any) -> dict[str, Any]:
        return dict(raw)


def shares_of(weights: Mapping[str, float]) -> list[int]:
    """How many positions of a block each source has: the shortest block of at most 1,000 that has the weights exactly,
    else the one that comes nearest.

    Raises:
        UsageError: a weight is none, or so small that no such block has a place for it.
    """
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise UsageError(
                f"the weight of {name} is {weight!r}, and weights are more than 0",
                where=f"data.weights.{name}",
                fix=f"give data.weights.{name}=0.5 or such, or leave the source away",
            )
    total = sum(weights.values())
    wanted = [weight / total for weight in weights.values()]
    best: tuple[float, list[int]] = (math.inf, [])
    for block in range(len(weights), _LONGEST + 1):
        shares = [round(share * block) for share in wanted]
        if min(shares) < 1 or sum(shares) != block:
            continue
        off = max(abs(share / block - want) for share, want in zip(shares, wanted, strict=True))
        if off < best[0] - _NEAR:
            best = (off, shares)
        if off < _NEAR:
            break
    if not best[1]:
        name = min(weights, key=lambda one: weights[one])
        raise UsageError(
            f"{name} would be {weights[name] / total:.2g} of the training, less than one example of {_LONGEST}",
            where=f"data.weights.{name}",
            fix="give it more weight, or leave it away",
        )
    return best[1]


def _within(indices: tf.data.Dataset, start: int, count: int) -> tf.data.Dataset:
    """Those of the indices that are a source's own, as it counts them."""
    import tensorflow as tf

    from tfscale.autograph import no_autograph

    def own(some: tf.Tensor) -> tf.Tensor:
        return tf.boolean_mask(some, (some >= start) & (some < start + count)) - start

    return indices.map(no_autograph(own))


def _parsed(part: Source, split: str, indices: tf.data.Dataset, ram_bytes: int) -> tf.data.Dataset:
    from tfscale.autograph import with_autograph

    raw = part.read(split, indices, ram_bytes=ram_bytes)
    return raw.map(with_autograph(part.parse), num_parallel_calls=2, deterministic=True)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors of a source name it."""
    try:
        yield
    except TfscaleError as error:
        error.what = f"{name}: {error.what}"
        raise


def _unlike(first: str, other: str, why: str) -> UsageError:
    return UsageError(
        f"{first} and {other} can't be mixed: {why}",
        where="data.weights",
        fix="import them with the same keys and a common schema, or train on one of them",
    )


def _form(form: tuple[str, int | None] | None) -> str:
    return "absent" if form is None else f"{form[0]} of {form[1]} axes"


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
