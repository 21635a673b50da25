"""Real examples on which an export is tried: raw, as a served model takes them, and as the evaluation has them.

Owns which examples these are. Refuses to know models and files.

    samples = real_samples(task, source, Wanted(plan, count=256))
    samples.raw["image"][0]          # a PNG
    samples.fields                   # "image": [256, 28, 28, 1], of the pipeline that evaluates
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.data.source import Source
from tfscale.errors import UsageError
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.task import Task

if TYPE_CHECKING:
    import tensorflow as tf

_AT_ONCE = 32  # examples of one batch of the evaluation's pipeline


@dataclass(frozen=True)
class Samples:
    """Examples of the data.

    Attributes:
        raw: field -> values, as a served model takes them.
        fields: of `Task.preprocess`, [samples, ...] each, as the pipeline that evaluates gives them; None: it isn't
            asked.
        split: of the data; "" where somebody gave them.
        remark: why `fields` aren't what the evaluation of the run reads; "" where they are.
    """

    raw: Mapping[str, Sequence[Any]]
    fields: Mapping[str, Any] | None = None
    split: str = ""
    remark: str = ""

    @property
    def count(self) -> int:
        return len(next(iter(self.raw.values())))


@dataclass(frozen=True)
class Wanted:
    """Which samples: how many at most, by which plan and seed the run evaluates."""

    plan: ExecutionPlan
    seed: int | None = 0
    count: int = 8


def real_samples(task: Task, source: Source, wanted: Wanted) -> Samples:
    """The first examples of the test split (the training split where there is none); exactly as many as the model
    takes, some of them twice, where it takes no other number.

    Raises:
        UsageError: the data lack a field that the task serves, or can't be read again.
    """
    import tensorflow as tf

    rows = task.fixed_rows
    split, places = _first_good(_readable(source), rows or wanted.count)
    raw = raw_samples(task, source, rows or wanted.count, seed=wanted.seed)
    fields, remark = _evaluated(task, source, wanted, (split, places))
    if rows:
        again = [i % len(next(iter(raw.values()))) for i in range(rows)]
        raw = {name: [values[i] for i in again] for name, values in raw.items()}
        fields = fields and tf.nest.map_structure(lambda one: tf.gather(one, again), fields)
    return Samples(raw, fields, split, remark)


def served_fields(task: Task, samples: Samples) -> Samples:
    """With those raw fields alone that a served model takes."""
    from tfscale.export.saved_model import serving_inputs

    names = serving_inputs(task)
    return samples if names is None else dataclasses.replace(samples, raw={name: samples.raw[name] for name in names})


def raw_samples(task: Task, source: Source, count: int, *, seed: int | None = 0) -> dict[str, list[Any]]:
    """The first raw examples by field, as a served model takes them: pictures that were decoded are encoded as PNG.

    Args:
        seed: of the run, by which its evaluation draws.
    """
    import tensorflow as tf

    from tfscale.autograph import no_autograph, with_autograph
    from tfscale.export.saved_model import serving_inputs

    source = _readable(source)
    split, places = _first_good(source, count)
    source = source.resolved()
    dataset = _raw(source, split, places)
    examples = [dict(example) for example in dataset.map(no_autograph(with_autograph(source.parse))).take(len(places))]
    wanted = serving_inputs(task)
    names = list(wanted) if wanted is not None else list(examples[0])
    if "seed" in names:  # those of evaluation
        seeds = (tf.constant([seed or 0, place], tf.int64) for place in places)
        examples = [{"seed": one, **example} for one, example in zip(seeds, examples, strict=False)]
    missing = [name for name in names if name not in examples[0]]
    if missing:
        raise UsageError(
            f"the data have no field {', '.join(missing)}, which the task serves",
            where="data",
            fix=f"the fields are {', '.join(sorted(examples[0]))}; export with data that have it",
        )

    def value(tensor: Any, name: str) -> Any:
        if wanted is not None and wanted[name].dtype == tf.string and tensor.dtype == tf.uint8:
            tensor = tf.io.encode_png(tensor)
        return tensor.numpy()

    return {n: [tf.nest.map_structure(lambda t, n=n: value(t, n), e[n]) for e in examples] for n in names}


def _first_good(source: Source, count: int) -> tuple[str, list[int]]:
    """The split that is looked at, and the places of its first examples that can be read and have their raw fields."""
    split = "test" if source.num_examples("test") else "train"
    bad = set(source.bad_examples(split)) if source.by_index else set()
    good = (place for place in range(source.num_raw(split)) if place not in bad)
    return split, list(itertools.islice(good, count))


def _raw(source: Source, split: str, places: Sequence[int]) -> tf.data.Dataset:
    import tensorflow as tf

    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import raw_examples

    def indices() -> tf.data.Dataset:
        return tf.data.Dataset.from_tensors(tf.constant(places, tf.int64))

    few = Portion(split, Shard(len(places)), training=False)
    return raw_examples(source, few, indices, ram_bytes=0)  # so few that holding a split doesn't pay


def _evaluated(
    task: Task, source: Source, wanted: Wanted, where: tuple[str, list[int]]
) -> tuple[dict[str, Any] | None, str]:
    """(what the pipeline that evaluates makes of these examples, why it isn't that which evaluates the run)."""
    import tensorflow as tf

    from tfscale.data.keras_source import KerasSource

    own = getattr(source.resolved(), "own_steps", None)
    if isinstance(source, KerasSource) or (own is not None and own(where[0])):
        return None, "the batches of these data are read as they are"
    apart = source.raw_apart(where[0])
    steps = _as_predicted(task, source, wanted, where) if apart else _as_evaluated(task, source, wanted, where[0])
    found: list[dict[str, Any]] = []
    left = len(where[1])
    for step in steps:
        real = tf.where(step.pop("weight") > 0)[:left, 0]
        left -= len(real)
        found.append(tf.nest.map_structure(functools.partial(tf.gather, indices=real), step))
        if not left:
            break
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *found), apart


def _as_evaluated(task: Task, source: Source, wanted: Wanted, split: str) -> Iterator[dict[str, Any]]:
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset

    plan = dataclasses.replace(wanted.plan, input_ram_bytes=0)  # so few that holding a split doesn't pay
    batch = _AT_ONCE + -_AT_ONCE % plan.local_devices
    portion = Portion(split, Shard(batch), training=False, seed=wanted.seed)
    return ({**step} for step in build_dataset(source, task, portion, plan))


def _as_predicted(task: Task, source: Source, wanted: Wanted, where: tuple[str, list[int]]) -> Iterator[dict[str, Any]]:
    """The same by the served fields alone, as a prediction has them."""
    import tensorflow as tf

    from tfscale.data.pipeline import finisher
    from tfscale.export.saved_model import serving_inputs

    split, places = where
    source = source.resolved()
    names = list(serving_inputs(task) or ())

    def parse(_: Any, raw: Any) -> dict[str, Any]:
        parsed = source.parse(raw)
        return {name: parsed[name] for name in names if name in parsed}

    finish = finisher(source, task, source.num_examples(split), training=False, seed=wanted.seed, parse=parse)
    zeros, ones = tf.zeros([len(places)], tf.int64), tf.ones([len(places)])
    place = tf.data.Dataset.from_tensor_slices({"index": tf.constant(places, tf.int64), "epoch": zeros, "weight": ones})
    pairs = tf.data.Dataset.zip((place, _raw(source, split, places)))
    return ({**step} for step in pairs.map(finish).batch(_AT_ONCE))


def _readable(source: Source) -> Source:
    """One whose examples can be reached, of data that Keras's own adapters read batch by batch."""
    from tfscale.data.given import as_source
    from tfscale.data.keras_source import KerasBatches

    if not isinstance(source, KerasBatches):
        return source
    if isinstance(source.train.x, Iterator):
        raise UsageError(
            "an export is compared with the model on examples, and a generator can't be read again",
            where="export.at_end",
            fix="give a function that returns the generator, or a tf.data.Dataset; or export with tfscale export later",
        )
    return as_source(source.train.x, None)
