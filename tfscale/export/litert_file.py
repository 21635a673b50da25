"""model.tflite: a model for LiteRT, which runs it on phones and small machines.

Owns the conversion, by TensorFlow's own converter, and the interpreter (extra `litert`). Refuses to know tasks.

    content = to_litert(function, "int8", calibration=[{"image": pixels}, ...])
    answer = litert_answer(file)                     # {"image": ...} -> {"outputs": ...}
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfscale.console import hushed
from tfscale.errors import UsageError, first_line

if TYPE_CHECKING:
    from tfscale.export.tensor_function import Answer, TensorFunction

FILE = "model.tflite"
PACKAGES = ("ai-edge-litert",)
_ABSENT = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
# How a process without TensorFlow, Keras and tfscale loads `file`
LOADED = """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=file)
answer = interpreter.get_signature_runner("serving_default")
"""


def to_litert(function: TensorFunction, precision: str, calibration: Iterable[dict[str, np.ndarray]]) -> bytes:
    """The content of the file.

    Args:
        precision: float16 stores weights in half; int8 computes in whole numbers, and inputs and outputs stay what they
            are.
        calibration: for int8, what real examples give the model: by them it learns the range of every tensor.

    Raises:
        UsageError: the model has an operation that LiteRT has not.
    """
    import tensorflow as tf

    held = tf.Module()
    held.variables_of_layers = [variable.value for variable in function.model.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.by_name], held)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = lambda: iter(calibration)
        # what has no kernel of whole numbers stays in float32
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    content, why = _converted(converter)
    if content is None:
        raise UsageError(
            f"the model can't be converted to LiteRT: {why}",
            where="format",
            fix="format=savedmodel, or a model without this operation",
        )
    return content


def _converted(converter: Any) -> tuple[bytes | None, str]:
    """(the file, "") or (None, why there is none), without the pages that the converter prints of a failure."""
    with hushed(), warnings.catch_warnings():  # it calibrates by an interpreter of its own that it calls deprecated
        warnings.filterwarnings("ignore", "(?s).*tf.lite.Interpreter is deprecated")
        try:
            return converter.convert(), ""
        except Exception as error:  # ConverterError, and whatever else the converter raises
            absent = sorted(set(_ABSENT.findall(str(error))))
            return None, f"LiteRT has no {', '.join(absent)}" if absent else first_line(error)


def litert_answer(file: Path) -> Answer:
    """What the file answers in this process, to one caller after another: TensorFlow's loops call it from many threads,
    and an interpreter has one set of tensors."""
    from ai_edge_litert.interpreter import Interpreter

    run, one_by_one = Interpreter(model_path=str(file)).get_signature_runner("serving_default"), threading.Lock()

    def answer(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with one_by_one:
            said: dict[str, np.ndarray] = run(**named)
        return said

    return answer
