"""model.onnx: a model for ONNX Runtime and whatever else reads ONNX.

Owns the conversion, by tf2onnx, and how another process runs the file by ONNX Runtime (extra `onnx`). Refuses to know
tasks.

    content = to_onnx(function)
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

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
            function.in_order,
            input_signature=list(function.specs.values()),
            opset=_OPSET,
            custom_op_handlers={"Erfc": (_one_minus_erf, [])},  # of the exact GELU; tf2onnx knows Erf alone
        )
        _hold_captures(made, function)
        onnx.checker.check_model(made)  # the converter goes on where it knows no operation
    except Exception as error:  # whatever the two raise
        raise UsageError(
            f"the model can't be converted to ONNX: {first_line(error)}",
            where="format",
            fix="format=savedmodel, or a model without this operation",
        ) from error
    content: bytes = made.SerializeToString()
    return content


def _hold_captures(made: Any, function: TensorFunction) -> None:
    """Puts into the file what the function has by value besides variables, such as a Normalization's mean, of which
    tf2onnx makes inputs."""
    import tensorflow as tf
    from onnx import numpy_helper

    graph = function.in_order.get_concrete_function(*function.specs.values()).graph
    held = {inner.name: outer for outer, inner in graph.captures if outer.dtype != tf.resource}
    inputs = [one for one in made.graph.input if one.name not in held]
    taken = {one.name for one in made.graph.input} & set(held)
    del made.graph.input[:]
    made.graph.input.extend(inputs)
    made.graph.initializer.extend(numpy_helper.from_array(held[name].numpy(), name) for name in sorted(taken))


def _one_minus_erf(graph: Any, node: Any, name: str, _: Any) -> None:
    """Puts 1 - Erf in the place of an Erfc: in float32 the same to 6e-8, though not relative to where it nears 0."""
    import numpy as np
    from tf2onnx.utils import make_name, map_onnx_to_numpy_type

    given, outputs, shapes, dtypes = node.input[0], node.output, node.output_shapes, node.output_dtypes
    graph.remove_node(name)
    one = graph.make_const(make_name("one"), np.array(1, map_onnx_to_numpy_type(dtypes[0])))
    erf = graph.make_node("Erf", [given], shapes=shapes, dtypes=dtypes)
    graph.make_node("Sub", [one.output[0], erf.output[0]], name=name, outputs=outputs, shapes=shapes, dtypes=dtypes)
