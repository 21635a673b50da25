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
from tfscale.data.mixed_spec import class_places, mixed_classes, mixed_spec, refuse_unlike_fields, unlike
from tfscale.data.prepared import Prepared
from tfscale.data.source import Source
from tfscale.errors import DataMissing, TfscaleError, UsageError, nearest
from tfscale.labels import spoken
from tfscale.statistics.findings import Finding

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from tfscale.data.order import Part, Shard
    from tfscale.labels import Labels

_LONGEST = 1000  # positions of a block, in which the shares are exact
_ROWS = 64  # of a source that are parsed together, where it can
_NEAR = 1e-9  # from which on a share is the weight


@dataclass
class Mixture(Source):
    """Trains on its sources by their weights; the test split is that of all of them, one behind another.

    weights: a number for each source, of any sum. A name that `sources` doesn't have is a data set in `dir` that
        `tfscale data import` wrote.
    validate: false takes data that break their baseline.
    sources: other kinds by a name: {photos: {_target_: tfscale.data.image_folder.ImageFolder, path: photos}}.
    """

    places: ClassVar[tuple[str, ...]] = ("dir", "validate")
    built_fields: ClassVar[tuple[str, ...]] = ("sources",)

    dir: str = "data"  # the folder of imported data sets
    weights: dict[str, float] = field(default_factory=dict)
    sources: Optional[dict[str, Any]] = None
    validate: bool = True

    # -- without TensorFlow

    @cached_property
    def _parts(self) -> dict[str, Source]:
        given = self.sources or {}
        return {name: given[name] if name in given else Prepared(dir=self.dir, name=name) for name in self.weights}

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
        told = ((name, part.breaks()) for name, part in self._parts.items() if self.validate)
        return [replace(one, text=f"{name}: {one.text}") for name, found in told for one in found]

    def keep_baseline(self, target: Path) -> None:
        for name, part in self._parts.items():
            folder = target / "baselines" / name.replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            part.keep_baseline(folder)
            with contextlib.suppress(OSError):  # which isn't empty, where there is one
                folder.rmdir()

    def is_prepared(self) -> bool:
        return all(part.is_prepared() for part in self._parts.values())

    def prepare(self) -> None:
        for name, part in self._parts.items():
            with _named(name):
                part.prepare()
        for name, part in self._parts.items():
            if not part.num_examples("train"):
                raise DataMissing(
                    f"{name} has no example to train on", where=f"data.weights.{name}", fix="leave it away"
                )
        refuse_unlike_fields(self._forms("train"), sizes=False)

    def spec(self) -> dict[str, Any]:
        """See `mixed_spec`."""
        specs = {name: part.spec() for name, part in self._parts.items()}
        if not specs:
            return {}
        have_classes = all("num_classes" in spec for spec in specs.values())
        return mixed_spec(specs, self._named_classes if have_classes else {}, self._shares)

    @property
    def _named_classes(self) -> dict[str, tuple[str, ...] | None]:
        """The names of the classes of each source; none of those where they have none."""
        return {name: part.class_names() for name, part in self._parts.items()}

    def settle(self, labels: Sequence[Labels]) -> None:
        for part in self._parts.values():
            part.settle(labels)
        if self._renumbered:
            super().settle(labels)

    def labelling(self) -> str:
        if self._renumbered:
            return f"the classes are numbered by their names: {spoken(self.class_names() or ())}"
        return next(iter(self._parts.values())).labelling()

    def class_names(self) -> tuple[str, ...] | None:
        return mixed_classes(self._named_classes)

    @property
    def _renumbered(self) -> dict[str, np.ndarray]:
        """Of sources whose classes have other numbers here: the number of each."""
        classes = self.class_names()
        found = {name: class_places(own, classes) for name, own in self._named_classes.items()}
        return {name: places for name, places in found.items() if places is not None}

    def contents(self) -> Mapping[str, Path]:
        files = {name: part.contents() for name, part in self._parts.items()}
        self.__dict__["_owners"] = {path: name for name, own in files.items() for path in own.values()}
        return {f"{name}/{file}": path for name, own in files.items() for file, path in own.items()}

    def content_of(self, file: Path) -> str:
        if file not in self.__dict__.get("_owners", {}):
            self.contents()
        return self._parts[self.__dict__["_owners"][file]].content_of(file)

    def identity(self) -> dict[str, Any]:
        parts = {name: {"class": class_name(part), **part.identity()} for name, part in self._parts.items()}
        shares = dict(zip(self._parts, self._shares, strict=True))
        return {"sources": parts, "shares": shares, "order": list(self._parts)}  # which the order of examples follows

    def remarks(self) -> Sequence[str]:
        block, told = sum(self._shares), []
        total = sum(self.weights.values())
        for (name, weight), share, part in zip(self.weights.items(), self._shares, self._parts.values(), strict=True):
            near = "" if abs(weight / total - share / block) < _NEAR else f" (asked for {weight / total:.4%})"
            told.append(f"{share / block:.4g} of a training is {name}, {part.num_examples('train')} examples{near}")
        if self.spec().get("columns"):
            told.append(f"what is known of the columns is that of {next(iter(self._parts))}")
        told += [f"the classes of {name} are numbered by their names" for name in self._renumbered]
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

    def num_raw(self, split: str) -> int:
        count = 0
        for part in self._parts.values():  # one behind the other
            count += part.num_raw(split)
            if part.num_raw(split) < part.num_examples(split):
                break
        return count

    def raw_apart(self, split: str) -> str:
        parts = (part for part in self._parts.values() if part.num_examples(split))
        return next((why for part in parts if (why := part.raw_apart(split))), "")

    def class_labels(self, split: str) -> np.ndarray | None:
        import numpy as np

        found, renumbered = [], self._renumbered
        for name, part in self._parts.items():
            if part.num_examples(split):
                labels, places = part.class_labels(split), renumbered.get(name)
                if labels is not None and places is not None:
                    labels = np.where(labels < 0, labels, places[labels.clip(0)])
                found.append(labels)
        return self._joined(found)

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

    def _forms(self, split: str) -> dict[str, dict[str, Any]]:
        """The fields of each source's examples, as tf.data tells them."""
        import tensorflow as tf

        one = tf.data.Dataset.from_tensors(tf.zeros([1], tf.int64))
        there = [name for name, part in self._parts.items() if part.num_examples(split)]
        return {name: self._parsed(name, split, one, 0).element_spec for name in there}

    def whole_steps(
        self, split: str, indices: tf.data.Dataset, shard: Shard, *, training: bool, start_step: int
    ) -> tf.data.Dataset | None:
        """None. Asked for tasks that take examples as they are, whose sizes must be alike."""
        refuse_unlike_fields(self._forms(split), sizes=True)
        return None

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        counts = {name: part.num_examples(split) for name, part in self._parts.items()}
        parts = [(name, count) for name, count in counts.items() if count]
        ends = tf.cumsum(tf.constant([count for _, count in parts], tf.int64))
        streams, start = [], 0
        for name, count in parts:
            streams.append(self._parsed(name, split, _within(indices, start, count), ram_bytes // len(parts)))
            start += count
        which = no_autograph(lambda some: tf.searchsorted(ends, some, side="right", out_type=tf.int64))
        return tf.data.Dataset.choose_from_datasets(streams, indices.map(which).unbatch(), stop_on_empty_dataset=False)

    @property
    def parses_rows(self) -> bool:
        return all(part.parses_rows for part in self._parts.values())

    def _parsed(self, name: str, split: str, indices: tf.data.Dataset, ram_bytes: int) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.autograph import no_autograph, with_autograph

        part, places = self._parts[name], self._renumbered.get(name)
        raw = part.read(split, indices, ram_bytes=ram_bytes)
        raw = raw.batch(_ROWS) if part.parses_rows else raw
        examples = raw.map(with_autograph(part.parse), num_parallel_calls=2, deterministic=True)
        if places is not None and "label" not in examples.element_spec:
            raise unlike(next(iter(self._parts)), name, f"its classes are others, and no field of {name} is the label")

        @no_autograph
        def renumbered(example: dict[str, Any]) -> dict[str, Any]:
            label = example["label"]
            known = tf.cast(tf.gather(places, tf.maximum(label, 0)), label.dtype)
            return {**example, "label": tf.where(label < 0, label, known)}

        examples = examples if places is None else examples.map(renumbered)
        return examples.unbatch() if part.parses_rows else examples

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


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors of a source name it."""
    try:
        yield
    except TfscaleError as error:
        error.what = f"{name}: {error.what}"
        error.where = f"data.weights.{name}" if error.where == "data.name" else error.where
        raise
