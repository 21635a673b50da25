"""Export: a trained model as files that work without tfscale, counted only once another process has proved it.

Owns the folder export/ of a run: model.keras, saved_model/ and export.json. Refuses to know runs and where samples come
from. It is written beside its place and renamed, so that what stands there is whole and was checked.

    path = export_model(task, state, "runs/r/export", samples={"image": [png, jpeg]})
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.errors import IOFailure, OutputError, UsageError, first_line
from tfscale.files import dumps, move, sha256
from tfscale.process import fault_points as faults
from tfscale.state.train_state import TrainState
from tfscale.task import Task

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)

ABOUT = "export.json"


def export_model(
    task: Task,
    state: TrainState,
    directory: str | Path,
    *,
    samples: Mapping[str, Sequence[Any]],
    identity: str = "",
    class_names: Sequence[str] | None = None,
) -> Path:
    """Writes model.keras, saved_model/ and export.json, in full precision, and checks them in a fresh process.

    Args:
        state: its model is exported, whatever precision it was trained in.
        directory: replaced whole, and only by an export that was checked.
        samples: a few raw examples, field -> values, which the exported and the trained model are compared on.
        identity: of the experiment, for export.json, as are the names of the classes.

    Raises:
        CheckFailed: the exported model doesn't load without tfscale, or answers otherwise; nothing is left.
        UsageError: no samples, or a model whose inputs nothing tells.
        OutputError: the folder exists and is no export.
        IOFailure: the files can't be written.
    """
    directory = Path(directory)
    _refuse_foreign(directory)
    if not samples or not len(next(iter(samples.values()))):
        raise UsageError("an export is checked on samples, and there are none", where="samples", fix="give one example")
    temporary = directory.with_name(f".{directory.name}.writing-{os.getpid()}")
    try:
        _remove_leftovers(directory)
        temporary.mkdir(parents=True)
        about = _write(task, state, temporary, samples)
        about = {"step": state.step, "identity": identity, "classes": list(class_names or []) or None, **about}
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


def _write(task: Task, state: TrainState, folder: Path, samples: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Both exports, checked; returns what export.json says of them."""
    import keras
    import tensorflow as tf

    from tfscale.export.keras_file import full_precision_copy, left_out, save
    from tfscale.export.saved_model import Served, answers, serving_inputs, stacked
    from tfscale.export.signature import Signature, feed
    from tfscale.export.verify import ask, differences, largest_difference, numbers
    from tfscale.export.warm_up import write_examples
    from tfscale.runtime import global_state as runtime

    raw_names = serving_inputs(task)
    if raw_names is not None:
        samples = {name: samples[name] for name in raw_names}
    with tf.device("CPU:0"), runtime.exact_policy():  # the checking process has no accelerator either
        exact = _in_full_precision(task, state.model)
        stock = full_precision_copy(exact)
        fields = stacked(task, samples)
        inputs = feed(task, stock, fields)
        served = Served(task, exact, inputs)
        why = left_out(stock, task.keras_file_with)
        with _undisturbed(exact):
            expected = numbers(answers(task, exact, fields, inputs), "served")
        with _undisturbed(stock):
            keras_outputs = tf.nest.flatten(stock(inputs, training=False))
    if why:
        _log.warning(f"model.keras is left out of the export: {why}; saved_model/ holds the model")
    else:
        expected |= numbers(keras_outputs, "keras")
        save(stock, folder / "model.keras")
        if task.keras_file_with:
            _log.info(f"whoever loads model.keras imports {', '.join(task.keras_file_with)} before")
    with _undisturbed(state.model):
        live = numbers(answers(task, state.model, fields, inputs), "served")
    served.save(folder / "saved_model")
    raw = served.named(samples) if raw_names is not None else served.signature.named(inputs)
    write_examples(folder / "saved_model", raw, {name: spec.dtype for name, spec in served.inputs.items()})
    faults.point("export.before_verify", step=state.step)
    imports = [*task.served_with, *(() if why else task.keras_file_with)]
    worst = differences(expected, ask(folder, None if why else inputs, raw, imports=imports))
    lossy = [largest_difference(expected[n], live[n]) for n in live if live[n].dtype.kind == "f"]
    return {
        "inputs": _described(served.inputs),
        "fields": {name: field for name, field in served.fields.items() if name != field},
        "gaps": None if raw_names is None else [name for name, field in served.fields.items() if field in task.gaps],
        "outputs": _described(served.outputs),
        "keras_inputs": None if why else _described(Signature.of(stock, inputs).seen(inputs)),
        "keras_outputs": None if why else _described({str(i): t for i, t in enumerate(keras_outputs)}),
        "imports": list(task.served_with),
        "keras_imports": [] if why else list(task.keras_file_with),
        "left_out": {"model.keras": why} if why else {},
        "samples": len(next(iter(samples.values()))),
        "differences": worst,
        "live_precision": state.model.dtype_policy.name,
        "difference_to_live": max(lossy, default=0.0),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "files": _files(folder),
    }


@contextlib.contextmanager
def _undisturbed(model: keras.Model) -> Iterator[None]:
    """Puts back what calling the model changes, such as the states of a stateful RNN: files hold the former."""
    import numpy as np
    import tensorflow as tf

    from tfscale.export.saved_model import untracked

    trained = {id(variable.value) for variable in model.trainable_variables}
    variables = [variable.value for variable in model.non_trainable_variables] + untracked(model)
    kept = [
        (one, tf.convert_to_tensor(one)) for one in {id(v): v for v in variables}.values() if id(one) not in trained
    ]
    yield
    for variable, value in kept:
        if not np.array_equal(np.asarray(variable), np.asarray(value)):
            variable.assign(value)


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
