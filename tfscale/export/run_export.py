"""The export of a run: its model with samples from its own data.

Owns the choice of the samples. Refuses to know the files and the check, which are verified.py's.

    export_run(task, state, source, run_dir.path / "export", identity=digest(identity(config)))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.data.source import Source
from tfscale.errors import UsageError
from tfscale.export.verified import export_model, rehearse
from tfscale.task import Task

if TYPE_CHECKING:
    from tfscale.state.train_state import TrainState

_SAMPLES = 8


def export_run(
    task: Task,
    state: TrainState,
    source: Source,
    directory: str | Path,
    *,
    identity: str = "",
    class_names: Sequence[str] | None = None,
    count: int = _SAMPLES,
) -> Path:
    """Exports this state, checked on the first examples of the test split (the training split where there is none).

    Raises:
        like `export_model`.
    """
    samples = _samples(task, source, count)
    names = class_names or source.class_names()
    return export_model(task, state, directory, samples=samples, identity=identity, class_names=names)


def rehearse_export(task: Task, state: TrainState, source: Source) -> str:
    """Finds before the first step that this model can't be exported.

    Returns:
        What the export will leave out, for people; "" where it is whole.

    Raises:
        UsageError: it can't be.
    """
    why = rehearse(task, state.model, _samples(task, source, 1))
    return f"the export will hold saved_model/ and no model.keras: {why}" if why else ""


def _samples(task: Task, source: Source, count: int) -> dict[str, list[Any]]:
    """The samples; exactly as many as the model takes, where it takes no other number."""
    fixed = task.fixed_rows
    samples = raw_samples(task, source, fixed or count)
    return {
        name: [values[i % len(values)] for i in range(fixed)] if fixed else values for name, values in samples.items()
    }


def raw_samples(task: Task, source: Source, count: int) -> dict[str, list[Any]]:
    """The first raw examples by field, as a served model takes them: pictures that were decoded are encoded as PNG."""
    import tensorflow as tf

    from tfscale.autograph import no_autograph, with_autograph
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import raw_examples
    from tfscale.export.saved_model import serving_inputs

    source = _readable(source)
    split = "test" if source.num_examples("test") else "train"
    count = min(count, source.num_examples(split))
    source, few = source.resolved(), Portion(split, Shard(count), training=False)

    def indices() -> tf.data.Dataset:
        return tf.data.Dataset.from_tensors(tf.range(count, dtype=tf.int64))

    dataset = raw_examples(source, few, indices, ram_bytes=0)  # so few that holding a split doesn't pay
    examples = [dict(example) for example in dataset.map(no_autograph(with_autograph(source.parse))).take(count)]
    wanted = serving_inputs(task)
    names = list(wanted) if wanted is not None else list(examples[0])
    if "seed" in names:  # those of evaluation
        examples = [{"seed": tf.constant([0, i], tf.int64), **one} for i, one in enumerate(examples)]
    missing = [name for name in names if name not in examples[0]]
    if missing:
        raise UsageError(
            f"the data have no field {', '.join(missing)}, which the task serves",
            where="data",
            fix=f"the fields are {', '.join(sorted(examples[0]))}; export with data that have it",
        )

    def value(tensor, name):
        if wanted is not None and wanted[name].dtype == tf.string and tensor.dtype == tf.uint8:
            tensor = tf.io.encode_png(tensor)
        return tensor.numpy()

    return {n: [tf.nest.map_structure(lambda t, n=n: value(t, n), e[n]) for e in examples] for n in names}


def _readable(source: Source) -> Source:
    """One whose examples can be reached, of data that Keras's own adapters read batch by batch."""
    from collections.abc import Iterator

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
