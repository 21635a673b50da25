"""One training step and one evaluation step, as TensorFlow graphs.

Owns the order of a step: gradients of a replica's micro-batches are summed, then reduced over replicas, then clipped by
their global norm, then (in float16) checked for finiteness once for all, then applied; the weights' moving average
follows. Refuses to know loops, time and files. What a step has seen leaves it as one vector of sums, so that metrics
cost one addition.

    step = TrainStep(task, state, plan, clip_norm=None)
    sums = step(strategy, batch)      # cross-replica context, inside a tf.function
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.autograph import with_autograph
from tfscale.engine.fused_kernels import fused_kernels
from tfscale.engine.reduce import Reducer, clip, combined, dense, global_norm, lengthened, scaled, statistics, summed
from tfscale.hooks.keras_hooks import leave_gradients_as_they_are
from tfscale.hooks.random_hooks import own_seed_states
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.state.train_state import TrainState
from tfscale.task import METRIC_STATE, STEP_ROWS, WHOLE, Task

SLOTS = 17  # length of the vector of sums: loss, weight, up to 14 metrics and the gradients' norm
_GROWTH_STEPS = 2000  # finite steps before the float16 loss scale doubles (Micikevicius et al., 2018)
_FIRST_SCALE = 2.0**15
NORM = "gradient_norm"  # its name among the metrics


class Sums:
    """Names the slots of the vector of sums; they are learnt when a step is traced.

    The vector is [SLOTS + task.metric_state_size]: what the task sums by itself stands behind the slots.
    """

    def __init__(self, task: Task, plan: ExecutionPlan):
        self.task = task
        self.dtype = tf.float64 if plan.precision == "float64" else tf.float32
        self.size = SLOTS + task.metric_state_size
        self.names: tuple[str, ...] = ()

    def zeros(self) -> tf.Tensor:
        """What the sums of a step's micro-batches begin with."""
        return tf.zeros([self.size], self.dtype)

    def no_steps(self) -> tf.Tensor:
        """What the sums of several steps begin with, as `local_sum` gives them."""
        return tf.zeros([self.size], tf.float64)

    def pack(
        self, losses: tf.Tensor, weight: tf.Tensor, metrics: Mapping[str, tf.Tensor], penalty: tf.Tensor | None
    ) -> tf.Tensor:
        """[size]: sums over the batch of weight * (loss + penalty), of the weights, and of weight * each metric."""
        metrics = dict(metrics)
        summed = metrics.pop(METRIC_STATE, None)
        if len(metrics) > SLOTS - 3:
            raise ValueError(f"a task may return {SLOTS - 3} metrics and returned {len(metrics)}")
        extra = tuple(name for name in self.names if name == NORM)
        self.names = (*sorted(metrics), *extra)
        rows = [losses if penalty is None else losses + penalty, tf.ones_like(losses)]
        rows += [tf.cast(metrics[name], losses.dtype) for name in sorted(metrics)]
        sums = tf.reduce_sum(tf.stack(rows) * weight, axis=1)
        vector = tf.pad(tf.cast(sums, self.dtype), [[0, SLOTS - len(rows)]])
        return vector if summed is None else tf.concat([vector, tf.cast(summed, self.dtype)], 0)

    def add(self, vector: tf.Tensor, name: str, value: tf.Tensor) -> tf.Tensor:
        """The vector with one more metric, the same for all examples of the batch."""
        if name not in self.names:
            self.names = (*self.names, name)
        place = tf.one_hot(2 + self.names.index(name), self.size, dtype=self.dtype)
        return vector + place * tf.cast(value, self.dtype) * vector[1]

    def means(self, vector: Any) -> dict[str, float]:
        """Weighted means by name from a vector [size] of sums; empty where nothing was seen."""
        weight = float(vector[1])
        if not weight:
            return {}
        return {
            "loss": float(vector[0]) / weight,
            **{name: float(vector[i + 2]) / weight for i, name in enumerate(self.names)},
            **(self.task.metric_result(np.asarray(vector[SLOTS:])) if self.size > SLOTS else {}),
        }


class TrainStep:
    """One optimizer update of all replicas.

    Args:
        state: built under the strategy's scope. For mixed_float16 the loss scale is added to its `extra`.
        clip_norm: the largest global norm of the reduced gradients, or None.
        ema: decay of the weights' moving average in state.averages, or None.
        report_norm: whether the global norm of the reduced gradients, before clipping, is among the metrics.
    """

    def __init__(
        self,
        task: Task,
        state: TrainState,
        plan: ExecutionPlan,
        *,
        clip_norm: float | None = None,
        ema: float | None = None,
        report_norm: bool = False,
    ):
        self.task, self.state, self.plan, self.clip_norm = task, state, plan, clip_norm
        self.ema, self.report_norm = ema, report_norm
        self.sums = Sums(task, plan)
        self._parts = plan.num_replicas * plan.accumulate
        if self._parts > 1:
            task.refuse_parts()
        self._unconnected: set[int] = set()  # places of variables that no loss depends on, learnt when a step is traced
        self.statistics = [v.value for v in statistics(state.model)] if plan.num_replicas > 1 else []
        # Where replicas draw numbers, such as Dropout's, no fit equals one device's: it equals Keras's on replicas then
        self.reducer = Reducer(plan, as_one=not (task.follows_keras and own_seed_states(state.model)))
        if plan.num_replicas > 1:
            leave_gradients_as_they_are(state.optimizer)  # reduced before they are clipped
        self.retrace()
        self._scaled = plan.precision == "mixed_float16"
        if self._scaled and "loss_scale" not in state.extra:
            state.extra["loss_scale"] = tf.Variable(_FIRST_SCALE, trainable=False, name="loss_scale")
            state.extra["finite_steps"] = tf.Variable(0, trainable=False, name="finite_steps")

    def retrace(self) -> None:
        """To be called when other layers train than were traced."""
        self._compute = (
            tf.function(self._accumulated, autograph=False, jit_compile=True) if self.plan.xla else self._accumulated
        )

    @property
    def variables(self) -> list[Any]:
        """What trains now: asked while a step is traced."""
        return [v.value for v in self.state.model.trainable_variables]

    def __call__(self, strategy: tf.distribute.Strategy, batch: Any) -> tf.Tensor:
        """Runs the step; returns this step's sums over all local replicas, [size] (PerReplica for several)."""
        with fused_kernels(self.plan.fused_kernels):
            return self._of_all(strategy, batch)

    def _of_all(self, strategy: tf.distribute.Strategy, batch: Any) -> tf.Tensor:
        if not self._scaled:
            return strategy.run(self._step, args=(batch,))
        gradients, sums, finite = strategy.run(self._gradients, args=(batch,))
        # The verdict is on reduced gradients, hence the same on every replica: the first one's is enough.
        ok = strategy.experimental_local_results(finite)[0]

        def apply() -> tf.Tensor:
            strategy.run(self._apply, args=(gradients,))
            return tf.constant(True)

        tf.cond(ok, apply, lambda: tf.constant(False))
        self._adjust_scale(ok)
        return sums

    def look(self, strategy: tf.distribute.Strategy, batch: Any) -> tf.Tensor:
        """The sums of a step whose gradients are not applied."""
        with fused_kernels(self.plan.fused_kernels):
            return strategy.run(lambda one: self._gradients(one)[1], args=(batch,))

    # -- in replica context

    def _step(self, batch: Any) -> tf.Tensor:
        gradients, sums, _ = self._gradients(batch)
        self._apply(gradients)
        return sums

    def _gradients(self, batch: Any) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        scale = tf.convert_to_tensor(self.state.extra["loss_scale"]) if self._scaled else None
        whole = _whole(self.task, self.state.model, batch, self._parts)
        gradients, sums = self._compute(batch, whole, scale)
        if self.reducer.replicas > 1 and batch["weight"].shape[0] is None:  # a part may be smaller than others
            rows = tf.shape(batch["weight"])[0]
            gradients = [lengthened(g, rows, self.plan.replica_batch) for g in gradients]
        gradients, means = self.reducer(gradients, self.statistics)
        if not self.task.follows_keras:
            gradients = [combined(g) for g in gradients]
        for variable, mean in zip(self.statistics, means, strict=True):
            variable.assign(mean)
        if scale is not None:
            gradients = [scaled(g, 1 / scale) for g in gradients]  # a power of two
        norm = global_norm(gradients) if self.clip_norm is not None or self.report_norm else None
        if self.report_norm:
            sums = self.sums.add(sums, NORM, norm)
        if self.clip_norm is not None:
            gradients = clip(gradients, norm, self.clip_norm)
        finite = tf.constant(True)
        if self._scaled:
            finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(dense(g))) for g in gradients])
        return gradients, sums, finite

    def _apply(self, gradients: list[tf.Tensor]) -> None:
        factor = self.state.optimizer.loss_scale_factor
        if factor is not None:  # the optimizer divides by it, since Keras's fit multiplies the loss
            gradients = [scaled(tf.convert_to_tensor(g), factor) for g in gradients]
        pairs = list(zip(gradients, self.state.model.trainable_variables, strict=True))
        if self.task.follows_keras and len(self._unconnected) < len(pairs):  # which Keras doesn't decay, either
            pairs = [pair for place, pair in enumerate(pairs) if place not in self._unconnected]
        self.state.optimizer.apply(*zip(*pairs, strict=True))
        if self.ema is None:
            return
        updates = tf.cast(self.state.optimizer.iterations, tf.float32)
        # Short at first, so that the fresh weights are soon forgotten, as tf.train.ExponentialMovingAverage does it.
        decay = tf.minimum(self.ema, updates / (9.0 + updates))
        for average, variable in zip(self.state.averages.values(), self.state.trained, strict=True):
            if variable.trainable:  # a frozen one is its own average
                keep = tf.cast(decay, average.dtype)
                average.assign(average * keep + tf.convert_to_tensor(variable.value) * (1 - keep))

    def _accumulated(
        self, batch: Any, whole: tf.Tensor | None, scale: tf.Tensor | None
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Gradients and sums of a replica's batch, in plan.accumulate micro-batches one after another."""
        parts = self.plan.accumulate
        if parts == 1:
            return self._one(batch, whole, scale)
        cut = tf.nest.map_structure(lambda t: tf.reshape(t, [parts, _per_part(t, parts), *t.shape[1:]]), batch)
        if self.task.reduces_inside:  # replicas can't meet inside a loop of the graph
            seen = [self._one(tf.nest.map_structure(lambda t: t[i], cut), whole, scale) for i in range(parts)]  # noqa: B023
            gradients = [tf.add_n(list(g)) for g in zip(*(part[0] for part in seen), strict=True)]
            return gradients, tf.add_n([part[1] for part in seen])

        first = tf.nest.map_structure(lambda t: t[0], cut)
        sparse = self._sparse(first, whole, scale) if self.task.follows_keras else [None] * len(self.variables)

        def more(i: tf.Tensor, gradients: list[Any], sums: tf.Tensor) -> tuple[tf.Tensor, list[Any], tf.Tensor]:
            fresh, seen = self._one(tf.nest.map_structure(lambda t: t[i], cut), whole, scale)
            return i + 1, [_more(a, b, i) for a, b in zip(gradients, fresh, strict=True)], sums + seen

        zeros = [
            tf.zeros_like(v) if spec is None else _no_rows(spec, parts)
            for v, spec in zip(self.variables, sparse, strict=True)
        ]
        start = (tf.constant(0), zeros, self.sums.zeros())
        _, gradients, sums = tf.while_loop(lambda i, *_: i < parts, more, start, parallel_iterations=1)
        return [_all_rows(g, v) for g, v in zip(gradients, self.variables, strict=True)], sums

    def _sparse(self, batch: Any, whole: tf.Tensor | None, scale: tf.Tensor | None) -> list[tf.IndexedSlices | None]:
        """Of each variable what its gradient is like where it is sparse: traced, and never run."""
        traced = tf.function(self._one, autograph=False).get_concrete_function(batch, whole, scale)
        gradients, _ = traced.structured_outputs
        return [g if isinstance(g, tf.IndexedSlices | tf.IndexedSlicesSpec) else None for g in gradients]

    def _one(self, batch: Any, whole: tf.Tensor | None, scale: tf.Tensor | None) -> tuple[list[tf.Tensor], tf.Tensor]:
        with tf.GradientTape() as tape:
            losses, weight, metrics, penalty = _losses(
                self.task, self.state.model, batch, whole, self._parts, training=True
            )
        targets = [losses] if penalty is None else [losses, penalty]
        gradients = tape.gradient(targets, self.variables, self._seeds(batch, losses, weight, scale)[: len(targets)])
        self._unconnected = {place for place, gradient in enumerate(gradients) if gradient is None}
        gradients = [tf.zeros_like(v) if g is None else g for g, v in zip(gradients, self.variables, strict=True)]
        return gradients, self.sums.pack(losses, weight, metrics, penalty)

    def _seeds(self, batch: Any, losses: tf.Tensor, weight: tf.Tensor, scale: tf.Tensor | None) -> list[tf.Tensor]:
        """What the gradients of a part's losses and of its penalty begin with.

        d(sum(weight * loss) / rows of the step): every replica and micro-batch adds its share of the mean. Seeding the
        tape with the weights says so without operations of its own.
        """
        by: Any = 1 if scale is None else tf.cast(scale, losses.dtype)
        if STEP_ROWS not in batch:
            factor = by * (1 / self.plan.global_batch)
            return [weight * factor, factor * (self.plan.micro_batch * tf.ones([], losses.dtype))]
        rows = tf.cast(batch[STEP_ROWS], losses.dtype)
        share = by * (tf.reduce_sum(weight) / rows[0])
        if not self.task.follows_keras:
            return [by * weight / rows, share]
        # All losses are one number, whose share is given to the first: k times 1/k need not be 1.
        return [tf.concat([[share], tf.zeros_like(weight)[1:]], 0), share]

    def _adjust_scale(self, finite: tf.Tensor) -> None:
        """Halves the scale after an overflow, doubles it after many finite steps."""
        scale, steps = self.state.extra["loss_scale"], self.state.extra["finite_steps"]
        grown = tf.logical_and(finite, steps + 1 >= _GROWTH_STEPS)
        steps.assign(tf.where(tf.logical_or(grown, tf.logical_not(finite)), 0, steps + 1))
        factor = tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5)
        scale.assign(tf.clip_by_value(scale * factor, 1.0, 2.0**24))


def _no_rows(spec: tf.IndexedSlices, parts: int) -> tuple[tf.TensorArray, tf.TensorArray]:
    """Room for the rows of all micro-batches, (values, indices): a sum of sparse gradients is not their concatenation
    to Keras's optimizers."""
    arrays = (spec.values, spec.indices)
    return tuple(tf.TensorArray(t.dtype, parts, element_shape=t.shape, infer_shape=False) for t in arrays)


def _per_part(tensor: tf.Tensor, parts: int) -> int:
    """The length of each of its parts; -1: known when the step runs."""
    return -1 if tensor.shape[0] is None else tensor.shape[0] // parts


def _more(seen: Any, gradient: Any, part: tf.Tensor) -> Any:
    if not isinstance(seen, tuple | list):
        return seen + tf.convert_to_tensor(gradient)  # a sparse gradient becomes a dense one: the parts can't grow
    values, indices = seen
    return values.write(part, gradient.values), indices.write(part, gradient.indices)


def _all_rows(seen: Any, variable: tf.Variable) -> Any:
    if not isinstance(seen, tuple | list):
        return seen
    values, indices = (array.concat() for array in seen)
    return tf.IndexedSlices(values, indices, tf.constant(variable.shape.as_list(), tf.int64))


class EvalStep:
    """Sums of loss and metrics over one batch, weighted by "weight" (0 for the filling of the last batch)."""

    def __init__(self, task: Task, state: TrainState, plan: ExecutionPlan):
        self.task, self.state = task, state
        self.sums = Sums(task, plan)
        self._parts = plan.num_replicas
        if self._parts > 1:
            task.refuse_parts()

    def __call__(self, strategy: tf.distribute.Strategy, batch: Any) -> tf.Tensor:
        return strategy.run(self._step, args=(batch,))

    def _step(self, batch: Any) -> tf.Tensor:
        whole = _whole(self.task, self.state.model, batch, self._parts)
        return self.sums.pack(*_losses(self.task, self.state.model, batch, whole, self._parts, training=False))


def _whole(task: Task, model: Any, batch: Any, parts: int) -> tf.Tensor | None:
    """What the task counts in a replica's batch, summed over all replicas; None where nothing is needed."""
    if parts == 1 or not task.counted_size:
        return None
    return summed(with_autograph(task.count)(model, batch))


def _losses(
    task: Task, model: Any, batch: Any, whole: tf.Tensor | None, parts: int, *, training: bool
) -> tuple[tf.Tensor, tf.Tensor, Mapping[str, tf.Tensor], tf.Tensor | None]:
    """(losses [batch], weights [batch], metrics, the model's penalty or None), in at least float32."""
    if whole is not None:
        batch = {**batch, WHOLE: whole}
    losses, metrics = with_autograph(task.loss)(model, batch, training=training)
    if losses.shape.rank != 1:
        raise ValueError(f"{type(task).__name__}.loss must return one loss per example, not shape {losses.shape}")
    dtype = losses.dtype if losses.dtype == tf.float64 else tf.float32
    added = [tf.cast(tf.reduce_sum(loss) if loss.shape.rank else loss, dtype) for loss in model.losses]
    sums = task.summed_penalties if parts > 1 else ()
    weight = tf.cast(batch["weight"], dtype)
    if any(sums) and len(sums) == len(added):  # the step averages what its parts add, and these are to be summed
        here = tf.reduce_sum(weight)
        if training and STEP_ROWS in batch:
            grown = tf.math.divide_no_nan(tf.cast(batch[STEP_ROWS][0], dtype), here)
        else:
            grown = parts if training else tf.math.divide_no_nan(summed(here), here)
        added = [p * grown if is_sum else p for p, is_sum in zip(added, sums, strict=True)]
    return tf.cast(losses, dtype), weight, metrics, tf.add_n(added) if added else None
