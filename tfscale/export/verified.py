"""Export: a trained model as files that work without tfscale, counted only once another process has proved it.

Owns model.keras and saved_model/, and what is compared. Refuses to know runs, where samples come from, and how a folder
is written whole.

    path = export_model(task, state, "runs/r/export", samples={"image": [png, jpeg]})
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.errors import UsageError, first_line
from tfscale.export.export_folder import files_of, replacing_export, versions, write_about
from tfscale.export.model_card import model_card
from tfscale.export.real_samples import Samples, served_fields
from tfscale.export.run_facts import RunFacts
from tfscale.process import fault_points as faults
from tfscale.state.train_state import TrainState
from tfscale.task import Task

if TYPE_CHECKING:
    import keras

    from tfscale.export.saved_model import Served

_log = logging.getLogger(__name__)

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
    samples = samples if isinstance(samples, Samples) else Samples(samples)
    if not samples.raw or not samples.count:
        raise UsageError("an export is checked on samples, and there are none", where="samples", fix="give one example")
    with replacing_export(directory) as folder:
        about = _write(task, state, folder, served_fields(task, samples))
        about = {"step": state.step, "identity": identity, "classes": list(class_names or []) or None, **about}
        write_about(folder, about, model_card(about, run or RunFacts(type(task).__name__)))
    return directory


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

    from tfscale.export.keras_file import full_precision_copy, in_full_precision, left_out
    from tfscale.export.live_answers import keras_answers, preprocessed_samples, rows_of, served_answers
    from tfscale.export.saved_model import Served
    from tfscale.export.signature import feed
    from tfscale.export.verify import ask, differences, largest_difference
    from tfscale.runtime import global_state as runtime

    with tf.device("CPU:0"), runtime.exact_policy():  # the checking process has no accelerator either
        exact = in_full_precision(task, state.model)
        stock = full_precision_copy(exact)
        fields = preprocessed_samples(task, samples)
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
        "samples": samples.count,
        "split": samples.split or None,
        "preprocessing": compared,
        "differences": worst,
        "live_precision": state.model.dtype_policy.name,
        "difference_to_live": max(lossy, default=0.0),
        "versions": versions(),
        "files": files_of(folder),
    }


def _save(task: Task, made: _Models, folder: Path, samples: Samples, inputs: Any) -> dict[str, Any]:
    """Writes both files; returns the samples as the SavedModel's signature takes them."""
    from tfscale.export.keras_file import save

    if made.why:
        _log.warning(f"model.keras is left out of the export: {made.why}; saved_model/ holds the model")
    else:
        save(made.stock, folder / "model.keras")
        if task.keras_file_with:
            _log.info(f"whoever loads model.keras imports {', '.join(task.keras_file_with)} before")
    return write_served(made.served, folder, samples, inputs)


def write_served(served: Served, folder: Path, samples: Samples, inputs: Any) -> dict[str, Any]:
    """Writes saved_model/ with requests that warm a server up; returns the samples as its signature takes them.

    Args:
        inputs: what the model is called with for these samples.
    """
    from tfscale.export.warm_up import write_examples

    served.save(folder / "saved_model")
    raw: dict[str, Any] = served.signature.named(inputs) if served.raw is None else served.named(samples.raw)
    few = {name: values[:_WARM_UP] for name, values in raw.items()}
    write_examples(folder / "saved_model", few, {name: spec.dtype for name, spec in served.inputs.items()})
    return raw


def _described_tensors(task: Task, made: _Models, inputs: Any, outputs: Sequence[Any]) -> dict[str, Any]:
    from tfscale.export.signature import Signature

    why = made.why
    return {
        **described_signature(task, made.served),
        "keras_inputs": None if why else _described(Signature.of(made.stock, inputs).seen(inputs)),
        "keras_outputs": None if why else _described({str(i): t for i, t in enumerate(outputs)}),
        "keras_imports": [] if why else list(task.keras_file_with),
    }


def described_signature(task: Task, served: Served) -> dict[str, Any]:
    """What export.json says of the SavedModel's signature."""
    return {
        "inputs": _described(served.inputs),
        "fields": {name: field for name, field in served.fields.items() if name != field},
        "gaps": None if served.raw is None else [name for name, field in served.fields.items() if field in task.gaps],
        "outputs": _described(served.outputs),
        "imports": list(task.served_with),
    }


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
    count, theirs = samples.count, {name: tf.constant(value) for name, value in prepared.items()}
    equal = same_rows(feed(task, model, fields), feed(task, model, theirs))
    where = "this process" if samples.fields is None else "prediction" if samples.remark else "evaluation"
    if equal < count:
        _log.warning(
            f"of {count - equal} of {count} examples the export makes other inputs than the {where} does"
            + ": it is compared with the model on its own inputs" * (samples.fields is not None)
        )
        fields = fields if samples.fields is None else stacked(task, samples.raw)
    return fields, {"equal": equal, "with": where, "remark": samples.remark}


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


def _described(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Names, shapes and dtypes; the first axis counts examples."""
    return {n: {"shape": [None, *t.shape.as_list()[1:]], "dtype": t.dtype.name} for n, t in tensors.items()}
