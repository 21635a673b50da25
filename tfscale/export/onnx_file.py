"""model.onnx: a model for ONNX Runtime and whatever else reads ONNX.

Owns the conversion, by tf2onnx, and how another process runs the file by ONNX Runtime (extra `onnx`). Refuses to know
tasks.

    content = to_onnx(function)
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tfscale.errors import UsageError, first_line

if TYPE_CHECKING:
    from tfscale.export.tensor_function import TensorFunction

FILE = "model.onnx"
PACKAGES = ("tf2onnx", "onnx", "onnxruntime")
_OPSET = 17
# How a process without TensorFlow, Keras and tfscale loads `file`
LOADED = """
import onnxruntime
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
names = [one.name for one in session.get_outputs()]
answer = lambda **named: dict(zip(names, session.run(names, named)))
"""


def to_onnx(function: TensorFunction) -> bytes:
    """The content of the file.

    Raises:
        UsageError: the model has an operation that ONNX has not.
    """
    import onnx
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # it tells of what is raised below
    try:
        made, _ = tf2onnx.convert.from_function(
            function.in_order, input_signature=list(function.specs.values()), opset=_OPSET
        )
        onnx.checker.check_model(made)  # the converter goes on where it knows no operation
    except Exception as error:  # whatever the two raise
        raise UsageError(
            f"the model can't be converted to ONNX: {first_line(error)}",
            where="format",
            fix="format=savedmodel, or a model without this operation",
        ) from error
    content: bytes = made.SerializeToString()
    return content
