"""A trained run as a file of another library, which counts once that library has loaded it and answered like the model.

Owns the order: convert, ask a process that has the library alone, measure what a lower precision costs, write; of
SavedModels in bfloat16, which are bfloat16_export.py's, the folder alone. Refuses to know the libraries, which are
litert_file.py's and onnx_file.py's.

    path = export_converted(run, Conversion("litert", "int8"))       # runs/r/export-litert-int8
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfscale.errors import CheckFailed
from tfscale.export import litert_file, onnx_file
from tfscale.export.bfloat16_export import write_bfloat16
from tfscale.export.conversion import Conversion
from tfscale.export.export_folder import files_of, replacing_export, versions, write_about
from tfscale.export.lost_accuracy import measure
from tfscale.export.model_card import model_card
from tfscale.export.real_samples import Wanted, real_samples, served_fields
from tfscale.export.run_facts import run_facts
from tfscale.export.verify import largest_difference, run_apart
from tfscale.trained.restored_run import RestoredRun

if TYPE_CHECKING:
    from tfscale.export.tensor_function import Answer, TensorFunction

TOLERANCE = 1e-4  # of float32: other libraries add the same numbers in another order
_SAME = 1e-5  # of one library in two processes
_PLACES, _ROWS = 8, 32  # calibrated at so many places of the training split, on about so many examples of each

# The library alone: an import of what made the file fails
_CHILD = """import sys; sys.modules['tensorflow'] = None; sys.modules['keras'] = None; sys.modules['tfscale'] = None
import numpy
file, given, answered, rows = sys.argv[1:]
rows = int(rows)
LOADED
with numpy.load(given) as arrays:
    named = {key: arrays[key] for key in arrays.files}
found = {}
for start in range(0, len(next(iter(named.values()))), rows):
    for name, value in answer(**{key: value[start : start + rows] for key, value in named.items()}).items():
        found.setdefault(name, []).append(value)
numpy.savez(answered, **{name: numpy.concatenate(values) for name, values in found.items()})
"""


def export_converted(run: RestoredRun, wanted: Conversion) -> Path:
    """Writes export-FORMAT[-PRECISION]/ into the run's folder: the file, export.json and README.md.

    Raises:
        UsageError: the model has something that the library has not, or nothing measures what precision costs.
        DataMissing: there is no split to measure it on, or to calibrate int8 on.
        CheckFailed: the file answers otherwise than the model, or loses more than the bound; nothing is left.
        OutputError, IOFailure: like `export_model`.
    """
    if wanted.lossy:
        run.num_examples(run.config.eval.split)
    directory = run.folder / wanted.folder
    with replacing_export(directory) as folder:
        if wanted.format == "savedmodel":
            made = write_bfloat16(run, folder, most_loss=wanted.bound)
        else:
            made = _convert(run, wanted, folder)
        classes = list(run.class_names or ()) or None
        about = {"step": run.state.step, "identity": run.checkpoint.identity, "classes": classes, **made}
        facts = run_facts(run.folder, run.task, run.config, step=run.state.step)
        write_about(folder, about, model_card(about, facts))
    return directory


def _convert(run: RestoredRun, wanted: Conversion, folder: Path) -> dict[str, Any]:
    """Writes the file; returns what export.json says of it."""
    import tensorflow as tf

    from tfscale.export.keras_file import full_precision_copy, in_full_precision
    from tfscale.export.live_answers import keras_answers, preprocessed_samples, rows_of
    from tfscale.export.signature import Signature, feed
    from tfscale.export.tensor_function import TensorFunction
    from tfscale.runtime import global_state as runtime

    task, library = run.task, litert_file if wanted.format == "litert" else onnx_file
    samples = real_samples(task, run.source, Wanted(run.plan, run.config.train.seed, run.config.export.examples))
    samples = served_fields(task, samples)
    with tf.device("CPU:0"), runtime.exact_policy():
        model = full_precision_copy(in_full_precision(task, run.state.model))
        inputs = feed(task, model, preprocessed_samples(task, samples))
        function = TensorFunction(model, Signature.of(model, inputs, rows=task.fixed_rows))
        answers, _ = keras_answers(task, model, inputs)
        file = folder / library.FILE
        file.write_bytes(_content(run, wanted, function))
    named = {name: np.asarray(value) for name, value in function.signature.named(inputs).items()}
    expected = dict(zip(function.outputs, answers.values(), strict=True))
    said = _ask(file, library.LOADED, named, rows_of(task))
    off = _compared(expected, said, np.inf if wanted.lossy else TOLERANCE)
    lost = None
    if wanted.lossy:
        answer: Answer = litert_file.litert_answer(file)
        _compared(_in_parts(answer, named, rows_of(task)), said, _SAME)  # what is measured is what was checked
        lost = measure(run, model, function.called_by(answer), most_loss=wanted.bound)
    return {
        "format": wanted.format,
        "precision": wanted.precision,
        "live_precision": run.state.model.dtype_policy.name,
        "inputs": _described(function.specs),
        "outputs": _described(function.outputs),
        "samples": samples.count,
        "split": samples.split or None,
        "differences": {file.name: off},
        "loss_of_precision": lost,
        "versions": {**versions(), **{name: version(name) for name in library.PACKAGES}},
        "files": files_of(folder),
    }


def _content(run: RestoredRun, wanted: Conversion, function: TensorFunction) -> bytes:
    if wanted.format == "onnx":
        return onnx_file.to_onnx(function)
    calibration = list(_calibration(run, function)) if wanted.precision == "int8" else []
    return litert_file.to_litert(function, wanted.precision, calibration)


def _calibration(run: RestoredRun, function: TensorFunction) -> Iterator[dict[str, np.ndarray]]:
    """What the model is called with for examples of the training split, from its beginning to its end, one by one."""
    from tfscale.export.signature import feed

    rows = run.task.fixed_rows or 1
    steps = int(run.num_examples("train") / run.global_batch)
    for start in sorted({steps * place // _PLACES for place in range(_PLACES)}):
        left = _ROWS
        for batch in run.batches("train", start_step=start).take(-(-_ROWS // run.global_batch)):
            good = np.flatnonzero(batch["weight"])[:left]
            left -= len(good)
            named = function.signature.named(feed(run.task, function.model, batch))
            arrays = {name: np.asarray(value)[good] for name, value in named.items()}
            for row in range(0, len(good) - rows + 1, rows):
                yield {name: value[row : row + rows] for name, value in arrays.items()}


def _in_parts(answer: Answer, named: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    count = len(next(iter(named.values())))
    parts = [answer({name: v[start : start + rows] for name, v in named.items()}) for start in range(0, count, rows)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _ask(file: Path, loaded: str, named: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """What a process that has the library alone gets from the file."""
    with tempfile.TemporaryDirectory() as scratch:
        question, answered = Path(scratch) / "given.npz", Path(scratch) / "answered.npz"
        np.savez(question, **named)  # type: ignore[arg-type]
        run_apart(_CHILD.replace("LOADED", loaded), [str(file), str(question), str(answered), str(rows)])
        with np.load(answered) as arrays:
            return {key: np.asarray(arrays[key]) for key in arrays.files}


def _compared(expected: Mapping[str, np.ndarray], said: Mapping[str, np.ndarray], tolerance: float) -> float:
    """The largest difference of all outputs, see `largest_difference`; whole numbers count as they are.

    Raises:
        CheckFailed: it is beyond the tolerance or no number, or an output is absent or of another shape.
    """
    worst, wrong = 0.0, []
    for name, value in expected.items():
        other = said.get(name)
        if other is None or other.shape != value.shape:
            there = "nothing" if other is None else f"shape {list(other.shape)}"
            wrong.append(f"{name}: {there} in place of {list(value.shape)}")
            continue
        off = largest_difference(value, other)
        worst = max(worst, off)
        if not (off <= tolerance and np.isfinite(off)):
            wrong.append(f"{name}: off by {off:.3g}")
    if wrong:
        raise CheckFailed(
            f"the converted model answers otherwise than the trained one: {'; '.join(wrong)}",
            where="format",
            fix="nothing was exported; format=savedmodel keeps the numbers",
        )
    return worst


def _described(specs: Mapping[str, Any]) -> dict[str, Any]:
    return {n: {"shape": [None, *s.shape.as_list()[1:]], "dtype": s.dtype.name} for n, s in specs.items()}
