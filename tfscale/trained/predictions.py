"""Predictions: a file with one row per example, written in parts, so that a killed prediction goes on where it was.

Owns the columns, the folder <output>.parts/ and what pins it: run, checkpoint and input. The output itself appears
whole, by a rename, and replaces an older one only then. Refuses to know the formats (`table_files.py`).

    check_output("preds.jsonl")
    with RestoredRun.open("runs/r") as run:
        predict_file(run, "test", "preds.jsonl", part_rows=1024)
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.data.given import GivenArrays, GivenFunctions
from tfscale.data.given_dataset import GivenDataset
from tfscale.data.table_files import JsonLines, Parquet, table_kind
from tfscale.errors import DataCorrupt, IOFailure, OutputError, UsageError
from tfscale.files import refuse_unwritable, replacing, sha256, sha256_of
from tfscale.process import fault_points as faults
from tfscale.run_dir.experiment import digest
from tfscale.run_dir.folder import RunDir
from tfscale.trained.restored_run import RestoredRun

if TYPE_CHECKING:
    import numpy as np

_log = logging.getLogger(__name__)

_MANIFEST, _FORMAT = "manifest.json", 1
_REPORT_SECONDS = 10.0


def check_output(output: str | Path) -> None:
    """Finds before anything is computed that the output can't be written.

    Raises:
        UsageError: no known format, or its package is missing.
        OutputError: the folder can't be written, or the output is a folder.
    """
    output = Path(output)
    table_kind(output).check()
    refuse_unwritable(output, where="output", fix="choose another output=PATH")


def predict_file(
    run: RestoredRun,
    split: str,
    output: str | Path,
    *,
    part_rows: int = 1024,
    now: Callable[[], float] = time.monotonic,
) -> int:
    """Writes what the run says about every example of a split, in order; the same call again skips finished parts.

    Args:
        part_rows: rows per part, rounded up to whole steps, so that every example is predicted in the same company.

    Returns:
        The number of rows.

    Raises:
        UsageError: the task doesn't predict.
        DataMissing, DataCorrupt: the input.
        OutputError: another process writes this output.
        IOFailure: a part can't be written; the same command goes on.
    """
    output = Path(output)
    parts = _Parts(run, split, output, part_rows)
    try:
        parts.folder.mkdir(exist_ok=True)
        with _claimed(parts.folder):
            done = parts.begin()
            reported = now()
            for number, columns in enumerate(_columns(run, split, parts, done), start=done):
                faults.point("predict.part", step=number)
                parts.write(number, columns)
                if now() - reported > _REPORT_SECONDS:
                    reported = now()
                    _log.info(f"{min(parts.count, (number + 1) * parts.rows)} of {parts.count} rows")
            parts.finish(output)
    except OSError as error:
        raise IOFailure(
            f"the predictions can't be written: {error.strerror or error}",
            where=str(parts.folder),
            fix="free space, then run the same command again",
        ) from error
    return parts.count


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(RunDir(folder).claimed())
        except OutputError as error:
            raise OutputError(error.what, where="output", fix="wait for it, or choose another output=PATH") from None
        yield


class _Parts:
    """The folder of finished parts and the manifest that says of what they are."""

    def __init__(self, run: RestoredRun, split: str, output: Path, part_rows: int):
        self.kind: JsonLines | Parquet = table_kind(output)
        self.folder = output.with_name(output.name + ".parts")
        self.count = run.num_examples(split)
        refuse_bad(run, split)
        self.steps = max(1, -(-part_rows // run.global_batch))
        self.rows = self.steps * run.global_batch
        self.total = -(-self.count // self.rows)
        self.pinned = {
            "format": _FORMAT,
            "run": run.checkpoint.identity,
            "checkpoint": [run.checkpoint.step, sha256(run.checkpoint.path / "manifest.json")],
            "input": _input_identity(run, split),
            "rows": self.rows,
            "precision": run.plan.precision,
            "global_batch": run.global_batch,
        }

    def path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}{self.kind.suffix}"

    def begin(self) -> int:
        """How many parts are there already; those of something else are removed."""
        manifest = RunDir(self.folder)
        found = manifest.read_json(_MANIFEST)
        if found != self.pinned:
            old = list(self.folder.glob("part-*"))
            for path in old:
                path.unlink()
            if old:
                _log.info(f"{self.folder} holds parts of another checkpoint or input: starting afresh")
            manifest.write_json(_MANIFEST, self.pinned)
        done = 0
        while done < self.total and self.path(done).is_file():
            done += 1
        if done:
            _log.info(
                f"{done} of {self.total} parts are there already: going on at row {min(self.count, done * self.rows)}"
            )
        return done

    def write(self, number: int, columns: dict[str, Any]) -> None:
        with replacing(self.path(number), durable=True) as temporary:
            self.kind.write(columns, temporary)

    def finish(self, output: Path) -> None:
        with replacing(output, self.folder / f".whole{self.kind.suffix}", durable=True) as whole:
            self.kind.join([self.path(number) for number in range(self.total)], whole)
        shutil.rmtree(self.folder, ignore_errors=True)


def _columns(run: RestoredRun, split: str, parts: _Parts, done: int) -> Iterator[dict[str, Any]]:
    """The columns of every part from `done` on."""
    import numpy as np

    if done == parts.total:
        return
    names = run.source.example_names(split)
    pieces: list[dict[str, np.ndarray]] = []
    first = done * parts.rows
    for step in answered_steps(run, split, done * parts.steps):
        pieces.append(step.columns())
        if len(pieces) == parts.steps or first + sum(map(_length, pieces)) == parts.count:
            joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
            places = range(first, first + _length(joined))
            yield {"name": [str(names[i]) if names else str(i) for i in places], **_named(joined, run.class_names)}
            first, pieces = places.stop, []


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
    run: RestoredRun, split: str, start_step: int = 0, *, ask: Callable[..., Mapping[str, Any]] | None = None
) -> Iterator[AnsweredStep]:
    """What the task says about a split, step by step and in order.

    Args:
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
        for step in run.batches(split, start_step=start_step):
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
    """Which examples these are: the source with its places, their number and names, and when its file was changed."""
    source = run.source
    fields = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    if isinstance(source, GivenDataset | GivenFunctions):
        fields = {"given": uuid.uuid4().hex}  # what they will yield isn't known, so that nothing goes on with it
    elif isinstance(source, GivenArrays):
        fields = source.identity()
    path = Path(str(fields.get("path") or ""))
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
        }
    )
