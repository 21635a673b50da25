"""A model's own steps: `train_step` and `test_step` as Keras's fit calls them, each a function of one batch.

Owns how a step is compiled, what its logs are called, and which variables it has besides the model's: metrics, and
optimizers that people keep as attributes. Refuses to know loops and data.

    steps = OwnSteps(model, strategy)
    steps.train.trace(element_spec)       # makes every variable, as Keras's first step would
    logs = steps.train(batch)             # float64 [steps.train.size], in a graph or eagerly
    steps.train.figures(logs)             # {"loss": 0.3, "accuracy": 0.9}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfscale.engine.fused_kernels import fused_kernels
from tfscale.hooks.keras_fit_hooks import (
    batch_function,
    build_eagerly,
    metrics_or_logs,
    without_absent,
    without_optionals,
)
from tfscale.hooks.placement_hooks import held_variable
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.state.keras_state import other_optimizers

LOSS = "loss"


class OwnStep:
    """One step of a model as a function of a batch.

    Args:
        step: the model's method.
        strategy: it runs on every replica of it, and the logs are averaged over them, as in Keras's fit.
        fused_kernels: of a step that TensorFlow compiles by itself, and not by XLA.
        xla: compiles it by XLA, as a model does that was compiled with jit_compile=True.
    """

    def __init__(
        self,
        model: keras.Model,
        step: Callable[[Any], Any],
        strategy: tf.distribute.Strategy,
        *,
        fused_kernels: bool = False,
        xla: bool = False,
    ):
        self.model, self._given, self._strategy = model, step, strategy
        self._xla = (xla or bool(model.jit_compile)) and not model.run_eagerly
        self._fused = fused_kernels and not model.run_eagerly and not self._xla
        self._logs: Any = None  # in the form that the step returns
        self._form: _Form | None = None
        self._spec: Any = None  # that it was traced by
        self.renew()

    def by(self, plan: ExecutionPlan) -> OwnStep:
        """The same step, as another plan compiles it."""
        step = OwnStep(self.model, self._given, self._strategy, fused_kernels=plan.fused_kernels, xla=plan.xla)
        if self._spec is not None:
            step.trace(self._spec)
        return step

    def renew(self) -> None:
        """To be called when what was traced as a constant has changed, as an adapted layer's statistics have once
        variables were assigned from elsewhere."""
        self._function: Any = batch_function(self.model, self._step, self._strategy, xla=self._xla)
        self._run = without_optionals(self.model, self._function)

    def _step(self, data: Any) -> Any:
        with fused_kernels(self._fused):
            return self._given(data)

    def trace(self, spec: Any) -> None:
        """Makes the variables and learns the logs' names; without it a step that runs eagerly learns them at its first.

        Args:
            spec: of a batch, as the data set says it.

        Raises:
            Exception: whatever the model, or its step, raises about such a batch.
        """
        if self._logs is not None:
            return
        self._spec = spec = without_absent(spec)
        if self.model.run_eagerly:
            build_eagerly(self.model, spec)
            return
        self._logs = self._function.get_concrete_function(spec).structured_outputs

    def __call__(self, batch: Any) -> tf.Tensor:
        """The logs of one step, nested as it returns them, as one vector: float64 [size], the loss first. In several
        workers what this one's metrics have counted comes behind them, to be added up over the workers."""
        logs = self._run(batch)
        if self._logs is None:
            self._logs = logs
        values = tf.nest.flatten(logs)
        flat = [tf.reduce_mean(tf.cast(keras.ops.convert_to_tensor(values[i]), tf.float64)) for i in self.form.order]
        found = tf.stack(flat or [tf.constant(0.0, tf.float64)])
        parts = [
            tf.add_n([tf.reshape(tf.cast(part, tf.float64), [-1]) for part in local_parts(variable)])
            for variable in self._counted
        ]
        return tf.concat([found, *parts], 0)

    @property
    def _counted(self) -> list[Any]:
        """The variables of metrics, where several workers count for themselves."""
        if not isinstance(self._strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return []
        return list({id(v): v for metric in self.model.metrics for v in metric.variables}.values())

    @property
    def form(self) -> _Form:
        """Of what the step returns."""
        if self._form is None or self._form.logs is not self._logs:
            self._form = _Form(self._logs)
        return self._form

    @property
    def size(self) -> int:
        """How long the vector is."""
        if self._logs is None:
            return 1
        return max(1, len(tf.nest.flatten(self._logs))) + sum(math.prod(v.shape) for v in self._counted)

    def batch_figures(self, summed: np.ndarray | None, workers: int = 1) -> dict[str, Any]:
        """What Keras tells callbacks behind a batch: what the step itself has returned, computed in its graph. Means
        over replicas, and values that are arrays, aren't in the vector: then the same as `figures`.

        Args:
            summed: the vectors of all workers, added up.
        """
        if summed is None or self._strategy.num_replicas_in_sync > 1 or not self.form.is_plain:
            return self.figures(summed, workers)
        return plain_logs(self.form.packed(summed))

    def figures(self, summed: np.ndarray | None, workers: int = 1) -> dict[str, Any]:
        """What Keras would report after a step: the model's metrics, or the logs.

        Args:
            summed: the vectors of all workers, added up.
        """
        if summed is None or self._logs is None:
            return {}
        place, state = max(1, len(self.form.order)), []
        for variable in self._counted:
            shape = tuple(variable.shape)
            part = summed[place : place + math.prod(shape)].reshape(shape)
            state.append((variable, tf.constant(part, variable.dtype)))
            place += math.prod(shape)
        with keras.StatelessScope(state):
            return plain_logs(metrics_or_logs(self.model, self.form.packed(summed, workers)))


class _Form:
    """How the logs of a step are nested, found out once, since callbacks may hear of every batch.

    Args:
        logs: as the step returns them.
    """

    def __init__(self, logs: Any):
        self.logs = logs
        flat = tf.nest.flatten(logs)
        named = tf.nest.pack_sequence_as(logs, list(range(len(flat))))
        first = named.get(LOSS, 0) if isinstance(named, dict) else 0
        #: The places of the logs in the vector: the loss comes first, where there is one.
        self.order = sorted(range(len(flat)), key=lambda place: place != first)
        #: Whether they are numbers by name, as Keras's own steps return them.
        self.is_plain = isinstance(logs, dict) and all(
            tf.TensorShape(getattr(value, "shape", ())).rank == 0 for value in flat
        )
        self._place = [self.order.index(place) for place in range(len(flat))]

    def packed(self, summed: np.ndarray, workers: int = 1) -> Any:
        """The logs' means over the workers, nested as the step returns them.

        Args:
            summed: the vectors of all workers, added up.
        """
        flat = [float(summed[place]) / workers for place in self._place]
        return tf.nest.pack_sequence_as(self.logs, flat)


def local_parts(variable: keras.Variable) -> list[Any]:
    """TensorFlow's variables of this process inside of Keras's: one for each replica, where those differ."""
    held = held_variable(variable)
    return list(held.values) if isinstance(held, tf.distribute.DistributedValues) else [held]


def plain_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
    """As Keras hands logs to callbacks: by name, without nesting; numbers, and arrays of metrics that have several."""
    found: dict[str, Any] = {}
    for name, value in sorted(logs.items()):
        if isinstance(value, dict):
            found.update(plain_logs(value))
        else:
            array = value if isinstance(value, float) else np.asarray(keras.ops.convert_to_numpy(value))
            found[name] = array if isinstance(array, np.ndarray) and array.ndim else float(array)
    return found


def numbers_in(figures: Mapping[str, Any]) -> dict[str, float]:
    """Those that are numbers: what a report can show."""
    return {name: value for name, value in figures.items() if isinstance(value, float)}


class OwnSteps:
    """Both steps of a model. Args: as of `OwnStep`; evaluation has Keras's own kernels."""

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy, *, fused_kernels: bool = False):
        self.model = model
        self.train = OwnStep(model, model.train_step, strategy, fused_kernels=fused_kernels)
        self.test = OwnStep(model, model.test_step, strategy)

    def variables(self) -> dict[str, Any]:
        """What the steps have besides the model's variables and its optimizer's, by a name that lasts."""
        known = {id(v) for v in (*self.model.variables, *self.model.optimizer.variables)}
        found: dict[str, Any] = {}
        for name, optimizer in other_optimizers(self.model).items():
            found.update({f"{name}/{i}": v for i, v in enumerate(optimizer.variables) if id(v) not in known})
        for metric in self.model.metrics:
            found.update({
                f"metric/{metric.name}/{i}": v for i, v in enumerate(metric.variables) if id(v) not in known
            })  # fmt: skip
        return found
