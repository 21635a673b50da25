"""Export: a trained model as files that work without tfscale, counted only once another process has proved it.

Owns the folder export/ of a run: model.keras, saved_model/, export.json and README.md. Refuses to know runs and where
samples come from. It is written beside its place and renamed, so that what stands there is whole and was checked.

    path = export_model(task, state, "runs/r/export", samples={"image": [png, jpeg]})
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.errors import IOFailure, OutputError, UsageError, first_line
from tfscale.export.model_card import model_card
from tfscale.export.real_samples import Samples
from tfscale.export.run_facts import RunFacts
from tfscale.files import dumps, move, sha256
from tfscale.process import fault_points as faults
from tfscale.state.train_state import TrainState
from tfscale.task import Task
from tfscale.version import __version__

if TYPE_CHECKING:
    import keras

    from tfscale.export.saved_model import Served

_log = logging.getLogger(__name__)

ABOUT, CARD = "export.json", "README.md"
_PREPARED = "prepared/"  # what the other process says of the SavedModel's preprocessing
_WARM_UP = 8  # examples that servers read at every start


def export_model(
    task: Task,
    state: TrainState,
    directory: str | Path,
    *,
    samples: Mapping[str, Sequence[Any]] | Samples,
    identity: str = "",
    class_names: Sequence[str] | None = None,
    run: RunFacts | None = None,
) -> Path:
    """Writes model.keras, saved_model/, export.json and README.md, in full precision, and checks the model in a fresh
    process.

    Args:
        state: its model is exported, whatever precision it was trained in.
        directory: replaced whole, and only by an export that was checked.
        samples: raw examples, field -> values, which the exported and the trained model are compared on; with what the
            evaluation makes of them where they are `Samples`.
        identity: of the experiment, for export.json, as are the names of the classes.
        run: what README.md says of the training; None: nothing.

    Raises:
        CheckFailed: the exported model doesn't load without tfscale, or answers otherwise; nothing is left.
        UsageError: no samples, or a model whose inputs nothing tells.
        OutputError: the folder exists and is no export.
        IOFailure: the files can't be written.
    """
    directory = Path(directory)
    _refuse_foreign(directory)
    samples = samples if isinstance(samples, Samples) else Samples(samples)
    if not samples.raw or not _count(samples):
        raise UsageError("an export is checked on samples, and there are none", where="samples", fix="give one example")
    temporary = directory.with_name(f".{directory.name}.writing-{os.getpid()}")
    try:
        _remove_leftovers(directory)
        temporary.mkdir(parents=True)
        about = _write(task, state, temporary, _served_fields(task, samples))
        about = {"step": state.step, "identity": identity, "classes": list(class_names or []) or None, **about}
        (temporary / CARD).write_text(model_card(about, run or RunFacts(type(task).__name__)), encoding="utf-8")
        about["files"] = _files(temporary)
        (temporary / ABOUT).write_text(dumps(about, indent=2) + "\n")
        _put_in_place(temporary, directory)
    except OSError as error:
        raise IOFailure(
            f"the export can't be written: {error.strerror or error}",
            where=str(directory),
            fix="free space or make the folder writable, then python -m tfscale.export run.dir=PATH",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def read_about(directory: str | Path) -> dict[str, Any]:
    """What export.json says of an export."""
    about: dict[str, Any] = json.loads((Path(directory) / ABOUT).read_text())
    return about


@dataclass(frozen=True)
class _Models:
    """What is written: the trained weights in full precision.

    Attributes:
        exact: as the task builds it.
        stock: the same of Keras's own layers.
        served: the SavedModel.
        why: there is no model.keras; "" where there is one.
    """

    exact: keras.Model
    stock: keras.Model
    served: Served
    why: str


def _write(task: Task, state: TrainState, folder: Path, samples: Samples) -> dict[str, Any]:
    """Both exports, checked; returns what export.json says of them."""
    import tensorflow as tf

    from tfscale.export.keras_file import full_precision_copy, left_out
    from tfscale.export.live_answers import keras_answers, rows_of, served_answers
    from tfscale.export.saved_model import Served
    from tfscale.export.signature import feed
    from tfscale.export.verify import ask, differences, largest_difference
    from tfscale.runtime import global_state as runtime

    with tf.device("CPU:0"), runtime.exact_policy():  # the checking process has no accelerator either
        exact = _in_full_precision(task, state.model)
        stock = full_precision_copy(exact)
        fields = _preprocessed(task, samples)
        inputs = feed(task, stock, fields)
        made = _Models(exact, stock, Served(task, exact, inputs), left_out(stock, task.keras_file_with))
        expected, outputs = keras_answers(task, stock, inputs)
    tensors = _described_tensors(task, made, inputs, outputs)
    raw = _save(task, made, folder, samples, inputs)
    faults.point("export.before_verify", step=state.step)
    imports = [*task.served_with, *(() if made.why else task.keras_file_with)]
    said = ask(folder, None if made.why else inputs, raw, imports=imports, rows=rows_of(task))
    fields, compared = _compared(task, stock, samples, fields, said)
    with tf.device("CPU:0"), runtime.exact_policy():
        inputs = feed(task, stock, fields)
        wanted = served_answers(task, exact, fields, inputs)
    live = served_answers(task, state.model, fields, inputs)
    answered = {name: value for name, value in said.items() if not name.startswith(_PREPARED)}
    worst = differences(wanted if made.why else {**wanted, **expected}, answered)
    lossy = [largest_difference(wanted[n], live[n]) for n in live if live[n].dtype.kind == "f"]
    return {
        **tensors,
        "left_out": {"model.keras": made.why} if made.why else {},
        "samples": _count(samples),
        "split": samples.split or None,
        "preprocessing": compared,
        "differences": worst,
        "live_precision": state.model.dtype_policy.name,
        "difference_to_live": max(lossy, default=0.0),
        "versions": _versions(),
        "files": _files(folder),
    }


def _save(task: Task, made: _Models, folder: Path, samples: Samples, inputs: Any) -> dict[str, Any]:
    """Writes both files; returns the samples as the SavedModel's signature takes them."""
    from tfscale.export.keras_file import save
    from tfscale.export.warm_up import write_examples

    if made.why:
        _log.warning(f"model.keras is left out of the export: {made.why}; saved_model/ holds the model")
    else:
        save(made.stock, folder / "model.keras")
        if task.keras_file_with:
            _log.info(f"whoever loads model.keras imports {', '.join(task.keras_file_with)} before")
    served = made.served
    served.save(folder / "saved_model")
    raw: dict[str, Any] = served.signature.named(inputs) if served.raw is None else served.named(samples.raw)
    few = {name: values[:_WARM_UP] for name, values in raw.items()}
    write_examples(folder / "saved_model", few, {name: spec.dtype for name, spec in served.inputs.items()})
    return raw


def _described_tensors(task: Task, made: _Models, inputs: Any, outputs: Sequence[Any]) -> dict[str, Any]:
    from tfscale.export.signature import Signature

    served, why = made.served, made.why
    return {
        "inputs": _described(served.inputs),
        "fields": {name: field for name, field in served.fields.items() if name != field},
        "gaps": None if served.raw is None else [name for name, field in served.fields.items() if field in task.gaps],
        "outputs": _described(served.outputs),
        "keras_inputs": None if why else _described(Signature.of(made.stock, inputs).seen(inputs)),
        "keras_outputs": None if why else _described({str(i): t for i, t in enumerate(outputs)}),
        "imports": list(task.served_with),
        "keras_imports": [] if why else list(task.keras_file_with),
    }


def _served_fields(task: Task, samples: Samples) -> Samples:
    from tfscale.export.saved_model import serving_inputs

    names = serving_inputs(task)
    return samples if names is None else dataclasses.replace(samples, raw={name: samples.raw[name] for name in names})


def _preprocessed(task: Task, samples: Samples) -> dict[str, Any]:
    """What the model's task takes, [samples, ...] each: of the evaluation's pipeline, where it was asked."""
    from tfscale.export.saved_model import stacked

    if samples.fields is None:
        return stacked(task, samples.raw)
    served = stacked(task, {name: values[:1] for name, values in samples.raw.items()})
    absent = [name for name in served if name not in samples.fields]
    return stacked(task, samples.raw) if absent else {name: samples.fields[name] for name in served}


def _compared(
    task: Task, model: keras.Model, samples: Samples, fields: dict[str, Any], said: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compares the model's inputs, as the SavedModel's preprocessing makes them, with those that are known already.

    Returns:
        (what the trained model is asked about, what export.json says of the comparison). Where the evaluation reads
        something else than what is served, the raw samples are preprocessed here in its place.
    """
    import tensorflow as tf

    from tfscale.export.live_answers import same_rows
    from tfscale.export.saved_model import stacked
    from tfscale.export.signature import feed

    prepared = {name.removeprefix(_PREPARED): v for name, v in said.items() if name.startswith(_PREPARED)}
    if set(prepared) != set(fields):
        remark = "" if prepared else "the SavedModel takes what the model takes"
        return fields, {"equal": None, "with": None, "remark": remark or "not all of it are plain tensors"}
    count, theirs = _count(samples), {name: tf.constant(value) for name, value in prepared.items()}
    equal = same_rows(feed(task, model, fields), feed(task, model, theirs))
    where = "this process" if samples.fields is None else "prediction" if samples.remark else "evaluation"
    if equal < count:
        _log.warning(
            f"of {count - equal} of {count} examples the export makes other inputs than the {where} does"
            + ": it is compared with the model on its own inputs" * (samples.fields is not None)
        )
        fields = fields if samples.fields is None else stacked(task, samples.raw)
    return fields, {"equal": equal, "with": where, "remark": samples.remark}


def _count(samples: Samples) -> int:
    return len(next(iter(samples.raw.values())))


def rehearse(task: Task, model: keras.Model, samples: Mapping[str, Sequence[Any]]) -> str:
    """Does before the training what can fail in an export without it: the signature and its graph.

    Args:
        samples: as of `export_model`.

    Returns:
        Why the export will hold no model.keras; "" where it will.

    Raises:
        UsageError: this model can't be exported.
    """
    from tfscale.export.keras_file import left_out
    from tfscale.export.saved_model import Served, serving_inputs, stacked
    from tfscale.export.signature import feed

    raw = serving_inputs(task)
    try:
        fields = stacked(task, samples if raw is None else {name: samples[name] for name in raw})
        Served(task, model, feed(task, model, fields))
    except UsageError:
        raise
    except Exception as error:  # whatever a user's preprocess, predict or call raises
        what = f"{type(task).__name__}.predict isn't implemented" if isinstance(error, NotImplementedError) else ""
        raise UsageError(
            f"the model can't be exported: {what or first_line(error)}",
            where="export.at_end",
            fix="mend it, or train with export.at_end=false",
        ) from error
    return left_out(model, task.keras_file_with)


def _in_full_precision(task: Task, live: keras.Model) -> keras.Model:
    """The trained weights in a model that computes in float32 (float64 where that was trained)."""
    from tfscale.export.keras_file import copy_variables, full_precision_copy

    if task.fixed_precision is not None:  # a model that exists already; building it again gives the same
        return full_precision_copy(live) if task.fixed_precision.startswith("mixed_") else live
    model = copy.copy(task).build_model()  # a copy, since tasks may remember the model they built
    copy_variables(live, model)
    return model


def _described(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Names, shapes and dtypes; the first axis counts examples."""
    return {n: {"shape": [None, *t.shape.as_list()[1:]], "dtype": t.dtype.name} for n, t in tensors.items()}


def _versions() -> dict[str, str]:
    import keras
    import numpy as np
    import tensorflow as tf

    found = {"tfscale": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
    return {**found, "numpy": np.__version__, "python": platform.python_version()}


def _files(folder: Path) -> dict[str, Any]:
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found[file.relative_to(folder).as_posix()] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    return found


def _refuse_foreign(directory: Path) -> None:
    """What stands in the way is only removed if an export of ours wrote it."""
    if directory.is_dir() and ((directory / ABOUT).is_file() or not any(directory.iterdir())):
        return
    if directory.exists() or directory.is_symlink():
        raise OutputError(
            f"{directory} exists and is no export", where=str(directory), fix="move it away, or export elsewhere"
        )


def _remove_leftovers(directory: Path) -> None:
    """What killed exports left beside."""
    for kind in ("writing", "former"):
        for path in directory.parent.glob(f".{directory.name}.{kind}-*"):
            shutil.rmtree(path, ignore_errors=True)


def _put_in_place(temporary: Path, directory: Path) -> None:
    former = directory.with_name(f".{directory.name}.former-{os.getpid()}")
    if directory.exists():
        move(directory, former)  # a folder can't be renamed onto one that holds files
    move(temporary, directory)
    shutil.rmtree(former, ignore_errors=True)
