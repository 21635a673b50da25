"""What Keras measures on a batch, as a value and as numbers that may be added up.

Owns the call of `compute_loss` and `compute_metrics` as functions of the batch alone, inside a `keras.StatelessScope`:
the compiled loop writes to no metric variable, and sums over steps and replicas are right under every strategy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tfscale.errors import UsageError, first_line, place_of
from tfscale.hooks.keras_hooks import compiled_loss, loss_of_batch
from tfscale.keras_task.partial_losses import Counts, Kind, PartLosses, part_kind, with_gradient
from tfscale.task import Example

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf


class Measures:
    """The loss and the metrics of one compiled model.

    Args:
        example: two examples, {"x", "y", "sample_weight"}, of which "x" alone is needed.
        y_pred: the model's answer to them.

    Raises:
        UsageError: a metric's state is no sum over examples, so that it can't be added up over steps and replicas.
    """

    def __init__(self, model: keras.Model, example: Example, y_pred: Any):
        import keras
        import numpy as np
        import tensorflow as tf

        self._model = model
        self._own_loss = type(model).compute_loss is not keras.Model.compute_loss
        given = example["x"], example.get("y"), y_pred, example.get("sample_weight")
        try:
            if self._own_loss or compiled_loss(model) is not None:  # else what layers add is all there is
                loss_of_batch(model, *given)  # also of models that override it without `training`, as Keras calls it
            model.compute_metrics(*given)  # creates their variables
            self.parts = PartLosses(model, given)
        except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
            if any(getattr(y, "dtype", None) == tf.string for y in tf.nest.flatten(example.get("y"))):
                raise UsageError(
                    "y is text, and the model's loss takes numbers",
                    where="data",
                    fix="number the classes from 0, as by names, y = numpy.unique(y, return_inverse=True)",
                ) from error
            raise UsageError(
                f"the model's loss or metrics don't take the data: {first_line(error)}",
                where=place_of(error) or "data",
                fix="give y (and sample weights) as model.fit takes them",
            ) from error
        self._whole_only = self._find_whole_only(given)
        model.reset_metrics()
        self.variables = list({id(v): v for metric in model.metrics for v in metric.variables}.values())
        self._initial = [np.asarray(v) for v in self.variables]
        compiled = compiled_loss(model)
        trackers = compiled.metrics if compiled is not None else []
        self._of_losses = {id(v) for tracker in trackers for v in tracker.variables}
        self.size = sum(v.size for v in self._initial)
        once = self._change(given, self._initial)
        twice = self._change(given, [a + b for a, b in zip(self._initial, once, strict=True)])
        for variable, a, b in zip(self.variables, once, twice, strict=True):
            if not np.allclose(a, b, rtol=1e-3, atol=1e-5):
                raise UsageError(
                    f"{variable.path} of a metric is no sum over examples, so steps and replicas can't be added up",
                    where="metrics",
                    fix="leave this metric out and compute it from a prediction file",
                )

    def _find_whole_only(self, given: tuple) -> list[str]:
        """What of the loss parts of a batch don't give."""
        import tensorflow as tf

        if not self._own_loss:
            return self.parts.whole_only()
        if tf.nest.flatten(given[2])[0].shape[0] != 2:
            return []

        try:
            kind = part_kind(lambda *part: tf.reduce_mean(loss_of_batch(self._model, *part)), given)
        except Exception:  # whatever people's own code raises for one example alone
            kind = Kind.WHOLE
        return [] if kind is Kind.MEAN else [f"{type(self._model).__name__}.compute_loss"]

    def refuse_parts(self) -> None:
        """Raises UsageError where the loss of a batch doesn't follow from those of its parts."""
        if self._whole_only:
            raise UsageError(
                f"{self._whole_only[0]} of a whole batch is not the mean of its parts' (a root or a ratio of means, or"
                " examples that are compared with each other)",
                where="model.loss",
                fix="train in one piece: plan.strategy=one_device and train.accumulate=1",
            )

    def _change(self, given: tuple, start: list[np.ndarray]) -> list[np.ndarray]:
        import numpy as np
        import tensorflow as tf

        rows = tf.nest.flatten(given[2])[0].shape[0]
        after = self._measure(given, start, Counts(tf.constant(float(rows)), rows), True)[1]
        return [np.asarray(b) - a for b, a in zip(after, start, strict=True)]

    def _measure(self, given: tuple, start: list, counts: Counts, training: bool) -> tuple[Any, list]:
        """(the loss without penalties, the metrics' variables after this batch)."""
        import keras
        import tensorflow as tf

        model = self._model
        # Keras reads what it regularizes through the scope.
        regularized = [(v, v.value) for v in model.trainable_variables if self._own_loss and v.regularizer is not None]
        with keras.StatelessScope([*zip(self.variables, start, strict=True), *regularized]) as scope:
            loss = self._unpenalised(given, training) if self._own_loss else self._compiled(given, counts)
            model.compute_metrics(*given)
            after = [scope.get_current_value(v) for v in self.variables]
        # Keras divides by the number of replicas; the engine adds the penalties and divides by the global batch.
        loss *= tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, loss.dtype)
        if loss.shape.rank:  # Keras takes the gradient of the sum of what isn't reduced, and reports the mean
            size = tf.cast(tf.size(loss) / tf.shape(loss)[0], loss.dtype) * tf.cast(counts.all_places, loss.dtype)
            mean = tf.reduce_mean(loss)
            loss = with_gradient(mean, mean * size)
        return loss, after

    def _compiled(self, given: tuple, counts: Counts) -> tf.Tensor:
        import tensorflow as tf

        _, y, y_pred, sample_weight = given
        with self.parts.weighted(counts):
            compiled = compiled_loss(self._model)
            loss = compiled(y, y_pred, sample_weight) if compiled is not None else None
        return tf.zeros([]) if loss is None else tf.convert_to_tensor(loss)

    def _unpenalised(self, given: tuple, training: bool) -> tf.Tensor:
        """What a `compute_loss` of people's own gives: whether it adds the penalties or not, the engine does."""
        import tensorflow as tf

        loss = tf.convert_to_tensor(loss_of_batch(self._model, *given, training=training))
        penalties = [tf.cast(tf.reduce_sum(p), loss.dtype) for p in self._model.losses]
        return loss - tf.add_n(penalties) if penalties else loss

    def count(self, y: Any, y_pred: Any, sample_weight: Any) -> list[tf.Tensor]:
        """What this part of a step would divide its losses by, where that isn't the number of examples."""
        import keras

        with keras.StatelessScope(), self.parts.counting() as found:
            compiled_loss(self._model)(y, y_pred, sample_weight)
        return found

    def measure(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, counts: Counts, *, training: bool
    ) -> tuple[Any, tf.Tensor]:
        """(the loss of this batch without penalties: scalar, what the metrics add up: [size])."""
        import tensorflow as tf

        loss, after = self._measure((x, y, y_pred, sample_weight), self._initial, counts, training)
        wide = loss.dtype if loss.dtype == tf.float64 else tf.float32
        # Keras counts a batch of any size as one example of an output's own loss, as its fit shows it all batches.
        known, steps = tf.nest.flatten(y_pred)[0].shape[0] is not None, counts.step_rows
        if not known or steps is not None:
            count = 1 / tf.cast(steps, wide) if known else counts.rows if steps is None else counts.rows / steps
            after = [
                tf.cast(now, wide) * tf.cast(count, wide) if own else now
                for now, own in zip(after, (id(v) in self._of_losses for v in self.variables), strict=True)
            ]
        changes = [
            tf.reshape(tf.cast(now, wide) - tf.cast(then, wide), [-1])
            for now, then in zip(after, self._initial, strict=True)
        ]
        return loss, tf.concat(changes, 0) if changes else tf.zeros([0], wide)

    def results(self, summed: np.ndarray) -> dict[str, float]:
        """The metrics' values for these sums, by Keras's names; "loss" is left to the engine."""
        import keras
        import numpy as np

        from tfscale.keras_task.own_step import plain_logs

        state, position = [], 0
        for variable, initial in zip(self.variables, self._initial, strict=True):
            part = np.reshape(summed[position : position + initial.size], initial.shape) + initial
            state.append((variable, part.astype(initial.dtype)))
            position += initial.size
        with keras.StatelessScope(state):
            found = self._model.get_metrics_result()
        return {name: float(np.mean(value)) for name, value in plain_logs(found).items() if name != "loss"}
