"""Predictions: a file with one row per example, written in parts, so that a killed prediction goes on where it was.

Owns the columns, and what pins the parts: run, checkpoint and input. The output itself appears whole, by a rename, and
replaces an older one only then (`prediction_parts.py`). Refuses to know the formats (`table_files.py`).

    check_output("preds.jsonl")
    with RestoredRun.open("runs/r") as run:
        predict_file(run, "test", "preds.jsonl", part_rows=1024)
"""

from __future__ import annotations

import dataclasses
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.data.contents import hashes
from tfscale.data.given import GivenArrays, GivenFunctions
from tfscale.data.given_dataset import GivenDataset
from tfscale.errors import NO_ROOM, DataCorrupt, IOFailure, UsageError
from tfscale.files import sha256, sha256_of
from tfscale.process import fault_points as faults
from tfscale.run_dir.experiment import digest
from tfscale.trained.prediction_output import Output
from tfscale.trained.prediction_parts import Parts, Share
from tfscale.trained.restored_run import RestoredRun

if TYPE_CHECKING:
    import numpy as np

_log = logging.getLogger(__name__)

_FORMAT = 1
_ALL = Share()
_REPORT_SECONDS = 10.0


def check_output(output: str | Path) -> None:
    """Finds before anything is computed that the output can't be written.

    Raises:
        UsageError: no known format, or its package is missing.
        OutputError: the folder can't be written, or something of another kind has the output's name.
    """
    Output.of(output).check()


def predict_file(
    run: RestoredRun,
    split: str,
    output: str | Path,
    *,
    part_rows: int = 1024,
    share: Share = _ALL,
    now: Callable[[], float] = time.monotonic,
) -> int:
    """Writes what the run says about every example of a split, in order; the same call again skips finished parts.

    Args:
        output: a file, or as a text that ends in / a folder with a file for each part.
        part_rows: rows per part, rounded up to whole steps, so that every example is predicted in the same company.
        share: which of the parts this process writes. The one that finds all of them written joins them.

    Returns:
        The number of rows of the output, where this process has joined it; 0 where another worker does, or has.

    Raises:
        UsageError: the task doesn't predict.
        DataMissing, DataCorrupt: the input.
        OutputError: another process writes this output or has this share of it.
        ClusterFault: one on another machine has.
        IOFailure: a part can't be written; the same command goes on.
    """
    steps = max(1, -(-part_rows // run.global_batch))
    parts = _parts(run, split, Output.of(output), steps, share)
    try:
        with parts.claimed():
            missing = parts.begin()
            if missing is None:
                _log.info(f"{output} is there already: remove it to predict anew")
                return 0
            if not parts.share.parts(parts.total):
                what = f"{parts.total} part{'s' if parts.total > 1 else ''} of {parts.rows} rows"
                _log.warning(f"{share} has nothing to do: there is no more than {what} (predict.part)")
                return 0
            reported = now()
            for number, columns in _columns(run, split, parts, missing):
                faults.point("predict.part", step=number)
                parts.write(number, columns)
                if now() - reported > _REPORT_SECONDS:
                    reported = now()
                    _log.info(f"{min(parts.count, (number + 1) * parts.rows)} of {parts.count} rows")
            return parts.count if parts.finish() else 0
    except OSError as error:
        raise _unwritten(error, parts.folder) from error


def _unwritten(error: OSError, folder: Path) -> IOFailure:
    if error.errno in NO_ROOM:
        fix = "free space, then run the same command again"
    elif isinstance(error, FileNotFoundError):
        fix = "somebody has removed it: run the same command again"
    else:
        fix = "see who may write there, then run the same command again, or choose another output=PATH"
    what = f"the predictions can't be written: {error.strerror or error}"
    return IOFailure(what, where=str(error.filename or folder), fix=fix)


def _parts(run: RestoredRun, split: str, output: Output, steps: int, share: Share) -> Parts:
    """Args: steps: of a part."""
    count, rows = run.num_examples(split), steps * run.global_batch
    refuse_bad(run, split)
    pinned = {
        "format": _FORMAT,
        "run": run.checkpoint.identity,
        "checkpoint": [run.checkpoint.step, sha256(run.checkpoint.path / "manifest.json")],
        "input": _input_identity(run, split),
        "rows": rows,
        "precision": run.plan.precision,
        "accelerator": run.plan.accelerator,
        "global_batch": run.global_batch,
    }
    return Parts(output, pinned, count=count, rows=rows, share=share)


def _columns(
    run: RestoredRun, split: str, parts: Parts, numbers: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """These parts, each with its columns; neighbours are read in one go."""
    import numpy as np

    names = run.source.example_names(split) if numbers else None
    steps = parts.rows // run.global_batch
    for numbers_in_a_row in _rows_of(numbers):
        number, last = numbers_in_a_row[0], numbers_in_a_row[-1]
        pieces: list[dict[str, np.ndarray]] = []
        first = number * parts.rows
        for step in answered_steps(run, split, number * steps, (last + 1) * steps):
            pieces.append(step.columns())
            if len(pieces) == steps or first + sum(map(_length, pieces)) == parts.count:
                joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
                places = range(first, first + _length(joined))
                named = {"name": [str(names[i]) if names else str(i) for i in places]}
                yield number, {**named, **_named(joined, run.class_names)}
                number, first, pieces = number + 1, places.stop, []


def _rows_of(numbers: Sequence[int]) -> list[list[int]]:
    """The numbers, each run of neighbours by itself."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return found


def refuse_bad(run: RestoredRun, split: str) -> None:
    """Raises DataCorrupt where a split has examples that can't be read and were tolerated in training."""
    if bad := run.source.bad_examples(split):
        raise DataCorrupt(
            f"{len(bad)} examples can't be predicted: {run.source.locate(split, bad[0])} is the first",
            where="data",
            fix="mend them, or predict data without them",
        )


@dataclass(frozen=True)
class AnsweredStep:
    """What the task says about the examples of one step, without the filling of the last.

    Attributes:
        places: of the examples in the split: int64 [examples].
        label: [examples, ...], as the loss takes it; None where there is none.
        answers: of `Task.predict`, [examples, ...] each.
    """

    places: np.ndarray
    label: np.ndarray | None
    answers: dict[str, np.ndarray]

    def columns(self) -> dict[str, np.ndarray]:
        """Those of a file: with the label, where it is one number for each example or one for each label."""
        label = self.label
        if label is not None and (label.ndim == 1 or (label.ndim == 2 and "labels" in self.answers)):
            return {"label": label, **self.answers}
        return self.answers


def answered_steps(
    run: RestoredRun,
    split: str,
    start_step: int = 0,
    stop_step: int | None = None,
    *,
    ask: Callable[..., Mapping[str, Any]] | None = None,
) -> Iterator[AnsweredStep]:
    """What the task says about a split, step by step and in order.

    Args:
        stop_step: the one before which to end; None: after the last.
        ask: in the place of `Task.predict`, of a model and a batch.

    Raises:
        UsageError: the task doesn't predict, or the data lack a field that it takes.
        DataCorrupt: an example can't be read.
    """
    import numpy as np
    import tensorflow as tf

    from tfscale.autograph import with_autograph

    @tf.function(autograph=False)
    def predict(fields):
        return dict(with_autograph(ask or run.task.predict)(run.state.model, fields))

    first = start_step * run.global_batch
    with run.data_errors_named():
        steps = run.batches(split, start_step=start_step)
        for step in steps if stop_step is None else steps.take(stop_step - start_step):
            step = dict(step)
            real = step.pop("weight").numpy() > 0
            label = step.pop("label", step.get("y"))
            try:
                answers = predict(step)
            except NotImplementedError as error:
                raise UsageError(
                    f"{type(run.task).__name__} doesn't say what it predicts",
                    where="task",
                    fix=f"implement {type(run.task).__name__}.predict(model, batch)",
                ) from error
            yield AnsweredStep(
                first + np.flatnonzero(real),
                _plain(label.numpy()[real]) if isinstance(label, tf.Tensor) else None,
                {name: _plain(value.numpy()[real]) for name, value in answers.items()},
            )
            first += len(real)


def _plain(array: np.ndarray) -> np.ndarray:
    return array.astype("float32") if array.dtype.name in ("bfloat16", "float16") else array


def _named(columns: dict[str, Any], class_names: tuple[str, ...] | None) -> dict[str, Any]:
    """With the class's name behind every number of a class, and the names of the labels that a row has."""
    import numpy as np

    found: dict[str, Any] = {}
    for name, column in columns.items():
        found[name] = column
        if name in ("label", "class") and class_names and column.ndim == 1 and column.dtype.kind in "iu":
            known = range(len(class_names))
            found[f"{name}_name"] = [class_names[i] if i in known else None for i in column.tolist()]
        if name in ("label", "labels") and class_names and column.ndim == 2 and column.shape[1] == len(class_names):
            found[f"{name}_names"] = [[class_names[i] for i in np.flatnonzero(row)] for row in column]
    return found


def _length(columns: dict[str, np.ndarray]) -> int:
    return len(next(iter(columns.values())))


def _input_identity(run: RestoredRun, split: str) -> str:
    """Which examples these are: the source with its places, their number and names, what its files hold, and when the
    one file of a table was changed."""
    source = run.source
    fields = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    if isinstance(source, GivenDataset | GivenFunctions):
        fields = {"given": uuid.uuid4().hex}  # what they will yield isn't known, so that nothing goes on with it
    elif isinstance(source, GivenArrays):
        fields = source.identity()
    else:
        fields["identity"] = source.identity()
    path, files = Path(str(fields.get("path") or "")), source.contents()
    changed = [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else None
    names = source.example_names(split)
    return digest(
        {
            "class": f"{type(source).__module__}.{type(source).__qualname__}",
            "fields": fields,
            "split": split,
            "examples": run.num_examples(split),
            "names": sha256_of("\n".join(map(str, names))) if names else None,
            "changed": changed,
            "contents": hashes(source, files, Path(getattr(source, "dir", "data"))) if files else None,
        }
    )
