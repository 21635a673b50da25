"""The task around a Keras model that somebody else wrote: compiled, Sequential, functional or subclassed.

Owns the translation of Keras's training protocol (`compile`, `compute_loss`, `compute_metrics`) into a Task. Refuses to
know where examples come from, loops and strategies' devices.

    task = GivenModel(model=model)              # an instance, or a function that returns one
    task.meet(lambda: {"x": ..., "y": ...})     # two examples, to build what is still unbuilt
    model = task.build_model()
    loss, metrics = task.loss(model, batch, training=True)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.errors import UsageError, first_line
from tfscale.keras_task.fixed_batch import (
    check_stateful,
    declared_rows,
    filled,
    kept_states,
    needed_rows,
    refuse_other_rows,
)
from tfscale.keras_task.label_kinds import Kind, label_kinds, loss_name
from tfscale.keras_task.metrics import Measures
from tfscale.labels import Labels
from tfscale.task import SUMMED, Example, Task
from tfscale.user_places import place_of

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf


@dataclass
class KerasModelTask(Task):
    """Base of tasks around a Keras model; subclasses say where the model comes from (`obtain`).

    Examples are {"x": ..., "y": ..., "sample_weight": ...}, each nested as the model takes it; "sample_weight" is
    optional.
    """

    def __post_init__(self) -> None:
        self._first: Callable[[], Example] | None = None
        self.live: Any = None  # the model in training
        self._metrics: Any = None
        self._rows: int | None = None  # the only batch size that the model takes

    def obtain(self) -> tuple[keras.Model, bool]:
        """The compiled model, which may be unbuilt, and whether it was made just now, under the scope in force."""
        raise NotImplementedError

    # -- the model

    def meet(self, first: Callable[[], Example]) -> None:
        self._first = first

    def build_model(self) -> keras.Model:
        """The model itself; on several replicas a copy of one that was made elsewhere.

        Raises:
            UsageError: it isn't compiled, has a training step of its own, or doesn't take the data.
        """
        import tensorflow as tf

        assert self._first is not None, "call meet() first"
        model, fresh = self.obtain()
        _check_protocol(model)
        check_stateful(model)
        example, y_pred, self._rows = _shown(model, self._first())
        if "y" in example and (settle := getattr(self._first, "settle", None)):
            settle(self._hear(label_kinds(model, y_pred, "y")))
            example = filled(self._first(), self._rows)  # with their labels as they are numbered now
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            _check_for_replicas(model)
            if not fresh:
                model = _copy(model)
                y_pred = _call(model, example)
        self.live = model
        self._metrics = Measures(model, example, y_pred) if "y" in example else None  # without labels: prediction only
        return model

    def _hear(self, kinds: list[Kind]) -> list[Labels]:
        """What the data are told of the labels: these classes have outputs, whatever else stands in y."""
        return [labels for kind in kinds if (labels := kind.labels(numbered=False)) is not None]

    def labels(self) -> tuple[Labels, ...]:
        return ()  # known once the model is built, which tells the data itself

    @property
    def keeps_precision(self) -> bool:
        return True

    @property
    def fixed_rows(self) -> int | None:
        return self._rows

    def build_optimizer(self) -> keras.optimizers.Optimizer | None:
        optimizer = self.live.optimizer
        # Under mixed_float16 Keras wraps it to scale the loss, which the engine does by itself.
        return getattr(optimizer, "inner_optimizer", optimizer)

    # -- one step

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        weight = batch["weight"]
        refuse_other_rows(self._rows, weight.shape[0], f"{'training' if training else 'evaluation'} steps")
        x, y, sample_weight = batch["x"], batch["y"], batch.get("sample_weight")
        y_pred = model(x, training=training)
        if not training:
            # Metrics without weights would count the filling of the last step. (A dynamic shape: not for TPUs.)
            x, y, y_pred, sample_weight = (_rows(part, weight > 0) for part in (x, y, y_pred, sample_weight))
        value, summed = self._metrics.measure(x, y, y_pred, sample_weight, training=training)
        value = tf.where(tf.reduce_any(weight > 0), value, tf.zeros_like(value))  # a mean over nothing is NaN
        return value * tf.ones_like(weight, value.dtype), {SUMMED: summed}

    @property
    def summed_size(self) -> int:
        return self._metrics.size if self._metrics else 0

    def summarise(self, summed: np.ndarray) -> dict[str, float]:
        return self._metrics.results(summed)

    def model_inputs(self, batch):
        return batch["x"]

    def predict(self, model, batch):
        import tensorflow as tf

        y_pred = model(self.model_inputs(batch), training=False)
        if isinstance(y_pred, dict):
            return dict(y_pred)
        outputs = tf.nest.flatten(y_pred)
        if len(outputs) > 1:
            names = getattr(model, "output_names", None) or [f"output_{i}" for i in range(len(outputs))]
            return dict(zip(names, outputs, strict=True))
        return _classified(model, outputs[0]) or {"output": outputs[0]}


def _check_protocol(model: keras.Model) -> None:
    import keras

    for step in ("train_step", "test_step"):
        if getattr(type(model), step) is not getattr(keras.Model, step):
            raise UsageError(
                f"{type(model).__name__}.{step} would not be called: tfscale's loop takes its place",
                where="model",
                fix="override compute_loss and compute_metrics instead, or write a tfscale.Task",
            )
    if not model.compiled or model.optimizer is None:
        raise UsageError("the model isn't compiled", where="model", fix="give loss=..., or compile it before")
    if getattr(model.optimizer, "use_ema", False):
        raise UsageError(
            "an optimizer with use_ema=True would end with other weights than Keras's fit leaves",
            where="model.optimizer",
            fix="use an optimizer without it",
        )
    for loss in flat(model.loss):
        if getattr(loss, "reduction", None) == "sum":
            raise UsageError(
                "a loss with reduction='sum' depends on how many examples a replica sees at once",
                where="model.loss",
                fix="use reduction='sum_over_batch_size' and a larger learning rate",
            )


def _check_for_replicas(model: keras.Model) -> None:
    import keras

    if type(model).compute_loss is not keras.Model.compute_loss:
        raise UsageError(
            f"{type(model).__name__}.compute_loss can't be scaled for several replicas",
            where="model",
            fix="train on one device (plan.strategy=one_device), or write a tfscale.Task",
        )


def _call(model: keras.Model, example: Example) -> Any:
    """The model's answer to two examples, which builds what is unbuilt."""
    import tensorflow as tf

    try:
        with kept_states(model):
            return model(example["x"], training=False)
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        shapes = tf.nest.map_structure(lambda t: f"{t.dtype.name}{list(t.shape)[1:]}", example["x"])
        raise UsageError(
            f"the model doesn't take the data, {shapes} per example: {first_line(error)}",
            where=place_of(error) or "data",
            fix="give data of the model's input shape",
        ) from error


def _shown(model: keras.Model, example: Example) -> tuple[Example, Any, int | None]:
    """(the examples that the model takes, its answer, the only batch size that it takes or None)."""
    needed, declared = needed_rows(model), declared_rows(model)
    if needed is None:
        try:
            return example, _call(model, example), None
        except UsageError:
            if declared is None:
                raise
            needed = declared
    example = filled(example, needed)
    return example, _call(model, example), needed


def _copy(model: keras.Model) -> keras.Model:
    """The same model with variables of the scope in force; raises UsageError where it can't be made."""
    import keras

    named = {getattr(f, "__name__", ""): f for f in flat(model.loss) if callable(f)}
    try:
        with keras.saving.custom_object_scope(named):
            copied = type(model).from_config(model.get_config())
            copied.compile_from_config(model.get_compile_config())
        if not copied.built:
            copied.build_from_config(model.get_build_config())
        copied.set_weights(model.get_weights())
    except Exception as error:  # whatever people's own get_config and from_config raise
        raise UsageError(
            f"no copy of the model can be made for several replicas: {first_line(error)}",
            where="model",
            fix="give a function that returns the compiled model instead of the model",
        ) from error
    return copied


def _rows(part: Any, keep: tf.Tensor) -> Any:
    """Only these rows of every tensor, with Keras's masks."""
    import tensorflow as tf

    def one(tensor):
        if isinstance(tensor, tf.RaggedTensor | tf.SparseTensor):
            return tensor  # of a step that the data made, which nothing fills
        kept = tf.boolean_mask(tensor, keep)
        mask = getattr(tensor, "_keras_mask", None)
        if mask is not None:
            kept._keras_mask = tf.boolean_mask(mask, keep)
        return kept

    return None if part is None else tf.nest.map_structure(one, part)


def _classified(model: keras.Model, output: tf.Tensor) -> dict[str, tf.Tensor] | None:
    """Class and probabilities where the loss says that the one output is a distribution over classes; of one for two
    classes the class beside what the model says."""
    import keras
    import tensorflow as tf

    kinds = (keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy)
    (loss, *more) = flat(model.loss) or [None]
    loss = keras.losses.get(loss) if isinstance(loss, str) else loss
    functions = {keras.losses.sparse_categorical_crossentropy, keras.losses.categorical_crossentropy}
    if not more and output.shape.rank == 2 and output.shape[1] == 1 and loss_name(loss).startswith("binary_"):
        middle = 0.0 if getattr(loss, "_fn_kwargs", {}).get("from_logits", False) else 0.5
        return {"class": tf.cast(output[:, 0] > middle, tf.int32), "output": output}
    if more or output.shape.rank != 2 or not (isinstance(loss, kinds) or (callable(loss) and loss in functions)):
        return None
    logits = getattr(loss, "_fn_kwargs", {}).get("from_logits", False)
    wide = tf.cast(output, tf.float32 if output.dtype.size < 4 else output.dtype)
    return {
        "class": tf.argmax(output, -1, output_type=tf.int32),
        "probabilities": tf.nn.softmax(wide) if logits else wide,
    }


def flat(node: Any) -> list:
    """The leaves of nested dicts, lists and tuples that are not None."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list | tuple):
        return [leaf for child in node for leaf in flat(child)]
    return [] if node is None else [node]
