"""What a model costs, counted from traced graphs without running them: FLOPs and what the backward pass keeps.

Owns the counting. Refuses to know what is decided by it.

    profiled_flops(task, model, examples)     # of one example's forward pass; None where the task doesn't predict
    footprint_of(forward, model, examples)    # the Footprint of a step
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from tfscale.autograph import with_autograph
from tfscale.hooks.tensorflow_hooks import function_in
from tfscale.task import Footprint, Task

_CONVOLUTIONS = ("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInputV2")
_ALIASES = ("Identity", "Reshape", "Squeeze", "ExpandDims", "EnsureShape", "PreventGradient", "StopGradient")
_LOOPS = ("While", "StatelessWhile", "If", "Case", "StatelessIf")
_NOT_KEPT = ("ReadVariableOp", "Const", "Shape", "ResourceGather")


def profiled_flops(task: Task, model: Any, examples: dict[str, Any]) -> int | None:
    """FLOPs of one example's forward pass, 2 per multiply-add; None where nothing tells them.

    Args:
        examples: a few examples as the step takes them, [examples, ...] in every field.

    Matrix products and convolutions are counted, since they are what a model's FLOPs mean, and what the peak is of.
    """
    rows, specs = _specs(examples)
    if not rows:
        return None
    try:
        predict = tf.function(lambda fields: with_autograph(task.predict)(model, fields), autograph=False)
        graph = predict.get_concrete_function(specs).graph
    except Exception:  # a task's own code, which may say nothing about prediction; no count is no reason to fail
        return None
    return _flops(graph.get_operations()) // rows or None


def footprint_of(forward: Callable[[dict[str, Any]], Any], model: Any, examples: dict[str, Any]) -> Footprint | None:
    """What a training step costs per example; None where shapes aren't known, or the graph has loops.

    Args:
        forward: what is differentiated, from examples [examples, ...] in every field: tensors of any shape.
    """
    rows, specs = _specs(examples)
    if not rows:
        return None
    variables = [variable.value for variable in model.trainable_variables]
    before: set[str] = set()

    def step(batch: dict[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            targets = [t for t in tf.nest.flatten(forward(batch)) if t.dtype.is_floating]
        before.update(op.name for op in tf.compat.v1.get_default_graph().get_operations())
        return [tf.convert_to_tensor(g) for g in tape.gradient(targets, variables) if g is not None]

    operations = tf.function(step, autograph=False).get_concrete_function(specs).graph.get_operations()
    if any(op.type in _LOOPS for op in operations):
        return None  # what a loop keeps lies in lists, whose length no graph tells
    kept = {}
    for op in operations:
        if op.name not in before:
            for tensor in op.inputs:
                source = _source(tensor)
                if source.op.name in before and _is_activation(source, rows):
                    kept[source.name] = 4 * math.prod(source.shape) // rows
    return Footprint(
        parameters=sum(math.prod(v.shape) for v in variables),
        activation_bytes=sum(kept.values()),
        forward_flops=_flops(op for op in operations if op.name in before) // rows,
    )


def _specs(examples: dict[str, Any]) -> tuple[int, Any]:
    """(how many examples there are, their specs); 0 where shapes aren't fixed."""
    specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), examples)
    flat = tf.nest.flatten(specs)
    if any(not isinstance(s, tf.TensorSpec) or s.shape.rank in (None, 0) or None in s.shape for s in flat):
        return 0, None
    return int(flat[0].shape[0]), specs


def _source(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor whose memory this is another name of."""
    while tensor.op.type in _ALIASES:
        tensor = tensor.op.inputs[0]
    return tensor


def _is_activation(tensor: tf.Tensor, rows: int) -> bool:
    shape = tensor.shape
    known = shape.rank and None not in shape.as_list()
    return bool(known and shape[0] == rows and tensor.dtype.is_floating and tensor.op.type not in _NOT_KEPT)


def _flops(operations: Iterable[tf.Operation]) -> int:
    return sum(_of(op) for op in operations)


def _of(op: tf.Operation) -> int:
    """FLOPs of one operation, with those of the function that it calls, and of a loop as often as it turns."""
    try:
        if op.type == "MatMul" or op.type.startswith("BatchMatMul"):
            turned = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            return 2 * math.prod(op.outputs[0].shape) * op.inputs[0].shape[-2 if turned else -1]
        if op.type in _CONVOLUTIONS:
            turned = "Backprop" in op.type
            kernel = op.inputs[1].shape
            channels = 1 if op.type.startswith("Depthwise") else kernel[-2]
            return 2 * math.prod((op.inputs[2] if turned else op.outputs[0]).shape) * math.prod(kernel[:-2]) * channels
        if op.type == "Einsum":
            return 2 * math.prod(op.outputs[0].shape) * _summed(op)
        if op.type in ("While", "StatelessWhile"):
            turns = tf.get_static_value(op.inputs[1])  # the loop's maximum_iterations
            return max(1, int(turns) if turns is not None else 1) * _inside(op, "body")
        if op.type in ("PartitionedCall", "StatefulPartitionedCall"):
            return _inside(op, "f")
        if op.type in ("If", "StatelessIf"):
            return max(_inside(op, "then_branch"), _inside(op, "else_branch"))
    except (TypeError, ValueError):  # a shape that isn't known
        pass
    return 0


def _inside(op: tf.Operation, attribute: str) -> int:
    function = function_in(op.graph, op.get_attr(attribute).name)
    return 0 if function is None else _flops(function.graph.get_operations())


def _summed(op: tf.Operation) -> int:
    """The product of the sizes that an Einsum sums over."""
    terms, _, result = op.get_attr("equation").decode().partition("->")
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms.split(","), op.inputs, strict=True):
        left, dots, right = term.partition("...")
        sizes.update(zip(left, tensor.shape, strict=not dots))
        if right:
            sizes.update(zip(right, tensor.shape[-len(right) :], strict=True))
    return math.prod(size for label, size in sizes.items() if label not in result)
