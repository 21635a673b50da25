"""The check of an export: a fresh process without tfscale must answer like the trained model.

Owns that process, what is passed to it and back by files, and the tolerance. Refuses to know tasks.

    said = ask(folder, inputs, raw)             # {"keras/0": [...], "served/probabilities": [...]}
    worst = differences(expected, said)         # raises CheckFailed beyond the tolerance
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfscale.errors import CheckFailed, ClusterFault, killed_by
from tfscale.process.startup import HIDDEN

TOLERANCE = 1e-5
TIES = 1e-3  # of a picture's pixels whose class may differ: two classes are as likely there but for rounding
DEADLINE = 300.0  # seconds

# Strings travel as bytes and lengths: NumPy would need pickle for them, or cut zeros off their ends.
_SIZES = "|sizes"
_CHILD = """
import json, sys
sys.modules["tfscale"] = None  # the proof that it isn't needed
sys.modules.update(dict.fromkeys(HIDDEN))
import keras, numpy, tensorflow as tf
for name in HIDDEN:
    del sys.modules[name]
export, given, answered, structure, rows, *imports = sys.argv[1:]
rows = int(rows)
for name in imports:
    __import__(name)  # brings operations that the SavedModel has
values = {}
with numpy.load(given) as arrays:
    for key in arrays.files:
        if key.endswith("|sizes"):
            continue
        value = arrays[key]
        if key + "|sizes" in arrays.files:
            sizes = arrays[key + "|sizes"]
            cut = [0, *numpy.cumsum(sizes)]
            texts = [value[a:b].tobytes() for a, b in zip(cut, cut[1:])]
            value = tf.reshape(tf.constant(texts, tf.string), sizes.shape)
        part, name = key.split("/", 1)
        values.setdefault(part, {})[name] = tf.constant(value)
def plain(t):  # NumPy's files don't know bfloat16
    return (tf.cast(t, tf.float32) if t.dtype == tf.bfloat16 else t).numpy()
def packed(node, named):  # what the model takes, with the places of its tensors
    if isinstance(node, dict):
        return {key: packed(value, named) for key, value in node.items()}
    return [packed(one, named) for one in node] if isinstance(node, list) else named[str(node)]
def parts(named):
    count = max(value.shape[0] if value.shape.rank else 0 for value in named.values())
    if count <= rows:
        return [named]
    return [{key: value[start : start + rows] for key, value in named.items()} for start in range(0, count, rows)]
def kept(key, t):
    if t.dtype != tf.string:
        return {key: plain(t)}
    texts = t.numpy()
    found = [text for text in texts.ravel()]
    sizes = numpy.array([len(text) for text in found]).reshape(texts.shape)
    return {key: numpy.frombuffer(b"".join(found), numpy.uint8), key + "|sizes": sizes}
found = {}
def keep(key, t):
    found.setdefault(key, []).append(t)
if "keras" in values:
    model = keras.saving.load_model(export + "/model.keras")
    for part in parts(values["keras"]):
        for i, t in enumerate(tf.nest.flatten(model(packed(json.loads(structure), part), training=False))):
            keep(f"keras/{i}", t)
loaded = tf.saved_model.load(export + "/saved_model")
signature = loaded.signatures["serving_default"]
for part in parts(values["served"]):
    for name, t in signature(**part).items():
        keep(f"served/{name}", t)
    for name, t in (loaded.preprocess(**part) if hasattr(loaded, "preprocess") else {}).items():
        keep(f"prepared/{name}", t)
arrays = {}
for key, some in found.items():
    arrays.update(kept(key, tf.concat(some, 0) if len(some) > 1 else some[0]))
numpy.savez(answered, **arrays)
""".replace("HIDDEN", repr(HIDDEN))


def ask(
    export: Path,
    inputs: Any,
    raw: Mapping[str, Any],
    *,
    imports: Sequence[str] = (),
    rows: int = 2**31,
    deadline: float = DEADLINE,
) -> dict[str, np.ndarray]:
    """What a process without tfscale gets from both exports.

    Args:
        inputs: what the Keras model is called with: a tensor, or tuples and dicts of them; None where there is none.
        raw: what the SavedModel's signature takes, lists of bytes or arrays by name.
        imports: packages that whoever loads the SavedModel must import before.
        rows: how many examples it asks about at once.

    Returns:
        "keras/0", ...: the model's flattened outputs; "served/NAME": those of the signature; "prepared/NAME": what the
        SavedModel's own preprocessing makes of `raw`, where it has one.

    Raises:
        CheckFailed: it couldn't load or run them.
    """
    leaves: list[Any] = []
    structure = _places(inputs, leaves) if inputs is not None else None
    named = {str(place): leaf for place, leaf in enumerate(leaves)}
    given: dict[str, np.ndarray] = {}
    for part, values in (("keras", named), ("served", raw)):
        for name, value in values.items():
            given.update(_as_arrays(f"{part}/{name}", value))
    with tempfile.TemporaryDirectory() as scratch:
        question, answer = Path(scratch) / "given.npz", Path(scratch) / "answered.npz"
        np.savez(question, **given)  # type: ignore[arg-type]
        link = Path(scratch) / "export"  # TensorFlow would take brackets in the path of a SavedModel for a pattern
        link.symlink_to(export.resolve(), target_is_directory=True)
        words = [str(link), str(question), str(answer), json.dumps(structure), str(rows), *imports]
        run_apart(_CHILD, words, deadline=deadline)
        with np.load(answer) as arrays:
            return {key: _read(arrays, key) for key in arrays.files if not key.endswith(_SIZES)}


def _read(arrays: Any, key: str) -> np.ndarray:
    if key + _SIZES not in arrays.files:
        return np.asarray(arrays[key])
    sizes, whole = arrays[key + _SIZES], arrays[key].tobytes()
    ends = np.cumsum(sizes.reshape(-1)).tolist()
    texts = np.empty(len(ends), object)
    texts[:] = [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return texts.reshape(sizes.shape)


def _places(node: Any, leaves: list[Any]) -> Any:
    """The structure as JSON can hold it, numbers in the tensors' places; the tensors are added to `leaves`."""
    if isinstance(node, Mapping):
        return {key: _places(value, leaves) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_places(one, leaves) for one in node]
    leaves.append(node)
    return len(leaves) - 1


def _as_arrays(key: str, value: Any) -> dict[str, np.ndarray]:
    array = np.asarray(value)
    if array.dtype.kind not in "OSU":
        return {key: array}
    if isinstance(value, list | tuple) and all(isinstance(text, bytes | str) for text in value):
        array = np.array(value, object)  # else NumPy cuts zeros off their ends
    texts = [text.encode() if isinstance(text, str) else bytes(text) for text in array.reshape(-1).tolist()]
    sizes = np.array([len(text) for text in texts]).reshape(array.shape)
    return {key: np.frombuffer(b"".join(texts), np.uint8), key + _SIZES: sizes}


def run_apart(code: str, arguments: Sequence[str], *, deadline: float = DEADLINE) -> None:
    """Runs Python code in a process of its own, without an accelerator.

    Raises:
        CheckFailed: it fails, or takes longer than `deadline` seconds.
        ClusterFault: it was killed.
    """
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
    environ.pop("TF_CONFIG", None)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CheckFailed(
            f"the exported model didn't answer within {deadline:.0f} s", where="export", fix="export again"
        ) from None
    if killed := killed_by(done.returncode):
        raise ClusterFault(
            f"the process that checks the export was {killed}",
            where="export",
            fix="give it more memory, then tfscale export run.dir=PATH",
        )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        cause = next((line for line in reversed(lines) if not line.startswith(" ") and "Error" in line), lines[-1])
        raise CheckFailed(
            f"the exported model can't be used without tfscale: {cause[:300]}",
            where="export",
            fix="build the model from stock Keras layers, or keep its registered classes in a module without tfscale",
        )


def differences(expected: Mapping[str, np.ndarray], said: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The largest difference of floats in each of both exports, in units of the tolerance's scale.

    The scale of an example is the larger of 1 and its largest value, so that probabilities are compared absolutely, and
    large logits relative to each other. Of pictures, uint8 [examples, height, width, channels], `TIES` of the numbers
    may be rounded otherwise, by 1. Other outputs, such as classes, must be equal, but for `TIES` of the pixels of an
    encoded mask.

    Raises:
        CheckFailed: with the numbers, where one is beyond the tolerance or the outputs are others.
    """
    worst = {"model.keras": 0.0} if any(name.startswith("keras/") for name in expected) else {}
    worst["saved_model"] = 0.0
    wrong = [f"{name}: absent" for name in sorted(set(expected) - set(said))]
    for name in sorted(set(expected) & set(said)):
        a, b = expected[name], said[name]
        file = "model.keras" if name.startswith("keras/") else "saved_model"
        if a.shape != b.shape:
            wrong.append(f"{name}: shape {list(b.shape)} in place of {list(a.shape)}")
        elif a.dtype.kind in "fV":
            worst[file] = max(worst[file], off := largest_difference(a, b))
            if not off <= TOLERANCE:
                wrong.append(f"{name}: off by {off:.3g}")
        elif a.dtype == b.dtype == np.uint8 and a.ndim == 4:
            off_by = np.abs(a.astype(int) - b)
            if off_by.max() > 1 or np.mean(off_by) > TIES:
                wrong.append(f"{name}: {np.count_nonzero(off_by)} of {a.size} differ")
        elif count := sum(not _is_equal(*pair) for pair in zip(a.flat, b.flat, strict=True)):
            wrong.append(f"{name}: {count} of {a.size} differ")
    if wrong:
        raise CheckFailed(
            f"the exported model answers otherwise than the trained one: {'; '.join(wrong)}",
            where=f"tolerance {TOLERANCE:g}",
            fix="nothing was exported; report this with the task's code, the checkpoint is good",
        )
    return worst


def _is_equal(one: Any, other: Any) -> bool:
    if one == other or not isinstance(one, bytes):
        return bool(one == other)
    masks = [_mask(text) for text in (one, other)]
    if masks[0] is None or masks[1] is None or masks[0].shape != masks[1].shape:
        return False
    return bool(np.mean(masks[0] != masks[1]) <= TIES)


def _mask(text: bytes) -> np.ndarray | None:
    """uint8 [height, width, 1] of what data/encoded_masks.py has written; None of other texts."""
    import tensorflow as tf

    try:
        return np.asarray(tf.io.decode_png(tf.io.decode_base64(text), channels=1))
    except tf.errors.InvalidArgumentError:
        return None


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Over examples (the first axis), the largest |a - b| in units of max(1, the largest |a| of the example)."""
    wide, other = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    if not wide.size:
        return 0.0
    scale = np.maximum(1.0, np.abs(wide).max(axis=1, keepdims=True))
    return float(np.max(np.abs(wide - other) / scale))


def numbers(tensors: Mapping[str, Any] | Sequence[Any], part: str) -> dict[str, np.ndarray]:
    """Tensors as the process without tfscale names them; bfloat16 as float32, as it does."""
    pairs = tensors.items() if isinstance(tensors, Mapping) else enumerate(tensors)
    arrays = {f"{part}/{name}": np.asarray(value) for name, value in pairs}
    return {k: v.astype(np.float32) if v.dtype.name == "bfloat16" else v for k, v in arrays.items()}
