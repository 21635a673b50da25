"""The task around a Keras model that somebody else wrote: compiled, Sequential, functional or subclassed.

Owns the translation of Keras's training protocol (`compile`, `compute_loss`, `compute_metrics`) into a Task. Refuses to
know where examples come from, loops and strategies' devices.

    task = GivenModel(model=theirs)             # an instance, or a function that returns one
    task.adapt(lambda: {"x": ..., "y": ...})     # two examples, to build what is still unbuilt
    model = task.build_model()
    loss, metrics = task.loss(model, batch, training=True)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.errors import UsageError, first_line, place_of
from tfscale.hooks.keras_hooks import answer_in_step, arguments_of, compiled_loss
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
from tfscale.keras_task.partial_losses import Counts, regularized_count, rows_of, summed_penalties
from tfscale.labels import Labels
from tfscale.state.keras_state import flat, layers_of, learnt
from tfscale.state.placement import Placement
from tfscale.task import METRIC_STATE, STEP_ROWS, WHOLE, Example, Task

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf


class _Kept:
    """What a task is shown of the data, read once: a pipeline for two examples is traced as one for all of them is."""

    def __init__(self, first: Callable[[], Example]):
        self._first = first
        self._example: Example | None = None

    def __call__(self) -> Example:
        if self._example is None:
            self._example = self._first()
        return dict(self._example)

    @property
    def settles(self) -> bool:
        return hasattr(self._first, "settle")

    def settle(self, labels: list[Labels]) -> None:
        """Passes on what the task takes the labels for; then the examples are others."""
        self._first.settle(labels)  # type: ignore[attr-defined]
        self._example = None


@dataclass
class KerasModelTask(Task):
    """Base of tasks around a Keras model; subclasses say where the model comes from (`obtain`).

    Examples are {"x": ..., "y": ..., "sample_weight": ...}, each nested as the model takes it; "sample_weight" is
    optional.
    """

    def __post_init__(self) -> None:
        self._first: _Kept | None = None
        self.live: Any = None  # the model in training
        self.placement = Placement()
        self._metrics: Any = None
        self._rows: int | None = None  # the only batch size that the model takes
        self._penalties: tuple[bool, ...] | None = ()  # which are sums; None: one is neither that nor a mean
        self._regularized = 0  # how many of them, the last, are of variables, before any was frozen
        self._penalised = self._left_out = False

    def obtain(self) -> tuple[keras.Model, bool]:
        """The compiled model, which may be unbuilt, and whether it was made just now, under the scope in force."""
        raise NotImplementedError

    # -- the model

    def adapt(self, first: Callable[[], Example]) -> None:
        self._first = _Kept(first)

    def build_model(self) -> keras.Model:
        """The model itself, moved to the replicas where it was made elsewhere: until `placement.back()`.

        Raises:
            UsageError: it isn't compiled, has a training step of its own, or doesn't take the data.
        """
        import tensorflow as tf

        assert self._first is not None, "call adapt() first"
        model, fresh = self.obtain()
        _check_protocol(model)
        check_stateful(model)
        example, y_pred, self._rows = _shown(model, self._first())
        if "y" in example and self._first.settles:
            self._first.settle(self._hear(label_kinds(model, y_pred, "y")))
            example = filled(self._first(), self._rows)  # with their labels as they are numbered now
        _check_for_strategy(model)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1 and not fresh:
            self.placement.move(model, tf.distribute.get_strategy())
        self.live = model
        self._regularized = regularized_count(model)
        self._penalised = len(model.losses) > self._regularized
        self._penalties = summed_penalties(model, example["x"])
        learns = "y" in example or compiled_loss(model) is None
        self._metrics = Measures(model, example, y_pred) if learns else None  # without labels: prediction only
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
    def follows_keras(self) -> bool:
        return True

    @property
    def fixed_rows(self) -> int | None:
        return self._rows

    def build_optimizer(self) -> keras.optimizers.Optimizer | None:
        return inner_optimizer(self.live.optimizer)

    # -- one step

    def expect_left_out(self) -> None:
        self._left_out = True

    def refuse_parts(self) -> None:
        if self._metrics is not None:
            self._metrics.refuse_parts()
        if self._penalties is None:
            raise UsageError(
                "what a layer adds by add_loss is neither a mean nor a sum over the batch, so that parts don't give it",
                where="model",
                fix="train in one piece: plan.strategy=one_device and train.accumulate=1",
            )

    @property
    def summed_penalties(self):
        sums = self._penalties or ()
        frozen = self._regularized - regularized_count(self.live) if sums else 0  # they have no penalty
        return sums[: len(sums) - frozen]

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        (x, y, sample_weight), counts, keep = self._part(batch, training=training)
        refuse_other_rows(self._rows, batch["weight"].shape[0], f"{'training' if training else 'evaluation'} steps")
        if self._rows is not None and training:
            x = tf.nest.map_structure(lambda t: tf.ensure_shape(t, [self._rows, *t.shape[1:]]), x)
        # What a layer adds to the loss must not see what fills a step; else the shape is static for as long as it can.
        early = keep is not None and (training or self._penalised) and self._rows is None
        y_pred = answer_in_step(model, rows_of(x, keep) if early else x, training=training)
        if keep is not None:
            x, y, sample_weight = (rows_of(part, keep) for part in (x, y, sample_weight))
            y_pred = y_pred if early else rows_of(y_pred, keep)
        value, summed = self._metrics.measure(x, y, y_pred, sample_weight, counts, training=training)
        if keep is not None or counts.step_rows is not None:
            some = counts.rows > 0
            value = tf.where(some, value, tf.zeros_like(value))
            summed = tf.where(some, summed, tf.zeros_like(summed))
        return value * tf.ones_like(batch["weight"], value.dtype), {METRIC_STATE: summed}

    @property
    def counted_size(self) -> int:
        return self._metrics.parts.size if self._metrics else 0

    def count(self, model, batch):
        import keras
        import tensorflow as tf

        (x, y, sample_weight), counts, keep = self._part(batch, training=False)
        cut = (batch["weight"].shape[0] or 1) // (self._rows or batch["weight"].shape[0] or 1)
        if cut > 1:  # a model of a fixed size takes no other
            leaves = [tf.split(leaf, cut) for leaf in tf.nest.flatten(batch)]
            each = [tf.nest.pack_sequence_as(batch, part) for part in zip(*leaves, strict=True)]
            return tf.add_n([self.count(model, one) for one in each])
        with keras.StatelessScope():  # only the masks are wanted, and the graph computes no more
            y_pred = model(x, training=False)
        y, y_pred, sample_weight = (rows_of(part, keep) for part in (y, y_pred, sample_weight))
        some = tf.cast(counts.rows > 0, counts.rows.dtype)
        found = [tf.cast(one, some.dtype) * some for one in self._metrics.count(y, y_pred, sample_weight)]
        return tf.stack([counts.rows, tf.cast(counts.places, some.dtype), *found])

    def _part(self, batch: Example, *, training: bool) -> tuple[tuple, Counts, Any]:
        """(x, y and sample weights of a part of a step, what it holds, which of its rows count or None for all).

        Metrics without weights would count the filling of the last step. (A dynamic shape: not for TPUs.)
        """
        import tensorflow as tf

        weight = batch["weight"]
        dtype = tf.float64 if _exact() else tf.float32
        places, keep = weight.shape[0], None
        if places is None:
            places = tf.shape(weight)[0]
        rows = tf.cast(places, dtype)
        of_step = batch.get(STEP_ROWS)
        if not training or self._left_out or of_step is not None:
            good = weight > 0
            rows = tf.reduce_sum(tf.cast(good, dtype))
            if not training or self._left_out:
                keep = tf.logical_or(good, tf.logical_not(tf.reduce_any(good)))  # a mean over nothing is NaN
        if of_step is not None:
            places = rows  # what fills a part has no place in the step
            of_step = tf.cast(of_step[0], dtype)
        counts = Counts(rows, places, batch.get(WHOLE), of_step)
        return (batch["x"], batch.get("y"), batch.get("sample_weight")), counts, keep

    @property
    def metric_state_size(self) -> int:
        return self._metrics.size if self._metrics else 0

    def metric_result(self, state: np.ndarray) -> dict[str, float]:
        return self._metrics.results(state)

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
    check_compiled(model)
    if getattr(inner_optimizer(model.optimizer), "use_ema", False):
        raise UsageError(
            "an optimizer with use_ema=True would end with other weights than Keras's fit leaves",
            where="model.optimizer",
            fix="use an optimizer without it, and train.ema=0.99 for an average that is evaluated and exported",
        )


def check_compiled(model: keras.Model) -> None:
    """Raises UsageError where it isn't."""
    if not model.compiled or model.optimizer is None:
        raise UsageError("the model isn't compiled", where="model", fix="give loss=..., or compile it before")


def _check_for_strategy(model: keras.Model) -> None:
    """Raises UsageError for what several replicas, or workers that share servers, would compute otherwise."""
    import keras
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    servers = isinstance(strategy, tf.distribute.ParameterServerStrategy)
    if strategy.num_replicas_in_sync == 1 and not servers:
        return
    if type(model).compute_loss is not keras.Model.compute_loss and not servers:
        raise UsageError(
            f"{type(model).__name__}.compute_loss can't be scaled for several replicas",
            where="model",
            fix="train on one device (plan.strategy=one_device), or write a tfscale.Task",
        )
    if steps := getattr(inner_optimizer(model.optimizer), "gradient_accumulation_steps", None):
        raise UsageError(
            f"an optimizer with gradient_accumulation_steps={steps} can't be used on several devices: Keras's own"
            " accumulation can't, either",
            where="model.optimizer",
            fix=f"leave it out, and give a batch {steps} times as large with train.accumulate={steps}",
        )


def inner_optimizer(optimizer: Any) -> Any:
    """Under mixed_float16 Keras wraps it to scale the loss, which the engine does by itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _exact() -> bool:
    import keras

    return keras.config.floatx() == "float64"


def answer_of(model: keras.Model, example: Example) -> Any:
    """The model's answer to two examples, which builds what is unbuilt."""
    import tensorflow as tf

    try:
        with kept_states(model):
            return model(example["x"], training=False)
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        raise untaken(model, example["x"], error) from error


def check_adapted(model: keras.Model) -> None:
    """Raises UsageError where a layer can't be called before it is adapted."""
    if name := _unadapted(model):
        raise UsageError(
            f"the layer {name} has learnt nothing yet",
            where="model",
            fix="call its adapt() with the training data, or give it its vocabulary, before fit",
        )


def untaken(model: keras.Model, x: Any, error: Exception) -> UsageError:
    """What is to be said of a model that fails on these tensors, or tensors as these specs say."""
    import tensorflow as tf

    try:
        check_adapted(model)
    except UsageError as unadapted:
        return unadapted
    shapes = tf.nest.map_structure(lambda t: f"{t.dtype.name}{t.shape.as_list()[1:] if t.shape.rank else []}", x)
    return UsageError(
        f"the model doesn't take the data, {shapes} per example: {first_line(error)}",
        where=place_of(error) or "data",
        fix="give data of the model's input shape",
    )


def _unadapted(model: keras.Model) -> str:
    """The name of a layer that can't be called before it is adapted; "" where there is none."""
    import keras

    for layer in layers_of(model):
        words = learnt(layer)
        bins = isinstance(layer, keras.layers.Discretization) and layer.bin_boundaries is None
        if bins or (words is not None and not words[0]):
            return layer.name
    return ""


def _shown(model: keras.Model, example: Example) -> tuple[Example, Any, int | None]:
    """(the examples that the model takes, its answer, the only batch size that it takes or None)."""
    needed, declared = needed_rows(model), declared_rows(model)
    if needed is None:
        try:
            return example, answer_of(model, example), None
        except UsageError:
            if declared is None:
                raise
            needed = declared
    example = filled(example, needed)
    return example, answer_of(model, example), needed


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
        middle = 0.0 if arguments_of(loss).get("from_logits", False) else 0.5
        return {"class": tf.cast(output[:, 0] > middle, tf.int32), "output": output}
    if more or output.shape.rank != 2 or not (isinstance(loss, kinds) or (callable(loss) and loss in functions)):
        return None
    logits = arguments_of(loss).get("from_logits", False)
    wide = tf.cast(output, tf.float32 if output.dtype.size < 4 else output.dtype)
    return {
        "class": tf.argmax(output, -1, output_type=tf.int32),
        "probabilities": tf.nn.softmax(wide) if logits else wide,
    }
