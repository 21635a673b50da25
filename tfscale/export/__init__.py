"""Export: a trained model as files that work without tfscale, counted only once another process has proved it.

Owns the folder export/ of a run: model.keras, saved_model/ and export.json. Refuses to know runs and where samples come
from. It is written beside its place and renamed, so that what stands there is whole and was checked.

    path = export_model(task, state, "runs/r/export", samples={"image": [png, jpeg]})
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale import faults
from tfscale.errors import IOFailure, OutputError, UsageError
from tfscale.state import TrainState
from tfscale.strict_json import dumps
from tfscale.task import Task

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_ABOUT = "export.json"


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
        (temporary / _ABOUT).write_text(dumps(about, indent=2) + "\n")
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
    return json.loads((Path(directory) / _ABOUT).read_text())


def _write(task: Task, state: TrainState, folder: Path, samples: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Both exports, checked; returns what export.json says of them."""
    import keras
    import tensorflow as tf

    from tfscale import runtime
    from tfscale.export.keras_file import feed, full_precision_copy
    from tfscale.export.saved_model import Served, answers, serving_inputs, stacked
    from tfscale.export.verify import ask, differences, largest_difference, numbers

    raw_names = serving_inputs(task)
    if raw_names is not None:
        samples = {name: samples[name] for name in raw_names}
    with tf.device("CPU:0"), runtime.exact_policy():  # the checking process has no accelerator either
        exact = _in_full_precision(task, state.model)
        stock = full_precision_copy(exact)
        served = Served(task, exact)
        fields = stacked(task, samples)
        inputs = feed(stock, fields)
        expected = numbers(tf.nest.flatten(exact(inputs, training=False)), "keras")
        expected |= numbers(answers(task, exact, fields, inputs), "served")
        keras_outputs = tf.nest.flatten(stock(inputs, training=False))
    live = numbers(answers(task, state.model, fields, inputs), "served")
    stock.save(folder / "model.keras")
    served.save(folder / "saved_model")
    raw = samples if raw_names is not None else _by_input(served.inputs, inputs)
    faults.point("export.before_verify", step=state.step)
    worst = differences(expected, ask(folder, inputs, raw))
    lossy = [largest_difference(expected[n], live[n]) for n in live if live[n].dtype.kind == "f"]
    return {
        "inputs": _described(served.inputs),
        "outputs": _described(served.outputs),
        "keras_inputs": _described(inputs if isinstance(inputs, dict) else {"inputs": inputs}),
        "keras_outputs": _described({str(i): t for i, t in enumerate(keras_outputs)}),
        "samples": len(next(iter(samples.values()))),
        "differences": worst,
        "live_precision": state.model.dtype_policy.name,
        "difference_to_live": max(lossy, default=0.0),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "files": _files(folder),
    }


def _in_full_precision(task: Task, live: keras.Model) -> keras.Model:
    """The trained weights in a model that computes in float32 (float64 where that was trained)."""
    from tfscale.export.keras_file import copy_variables, full_precision_copy

    if task.fixed_precision is not None:  # a model that exists already; building it again gives the same
        return full_precision_copy(live) if task.fixed_precision.startswith("mixed_") else live
    model = copy.copy(task).build_model()  # a copy, since tasks may remember the model they built
    copy_variables(live, model)
    return model


def _by_input(signature: Mapping[str, tf.TensorSpec], inputs: Any) -> dict[str, tf.Tensor]:
    import tensorflow as tf

    if not isinstance(inputs, dict):
        inputs = dict.fromkeys(signature, inputs)  # its one name
    elif len(signature) == 1:
        inputs = dict(zip(signature, inputs.values(), strict=True))
    return {name: tf.cast(inputs[name], spec.dtype) for name, spec in signature.items()}


def _described(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Names, shapes and dtypes; the first axis counts examples."""
    return {n: {"shape": [None, *t.shape.as_list()[1:]], "dtype": t.dtype.name} for n, t in tensors.items()}


def _files(folder: Path) -> dict[str, Any]:
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        found[file.relative_to(folder).as_posix()] = {"bytes": file.stat().st_size, "sha256": digest}
    return found


def _refuse_foreign(directory: Path) -> None:
    """What stands in the way is only removed if an export of ours wrote it."""
    if directory.is_dir() and ((directory / _ABOUT).is_file() or not any(directory.iterdir())):
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
        os.replace(directory, former)  # a folder can't be renamed onto one that holds files
    os.replace(temporary, directory)
    shutil.rmtree(former, ignore_errors=True)
