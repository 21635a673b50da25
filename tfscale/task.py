"""Task: what one workload is, apart from where and how it trains.

Owns the interface between a recipe and the engine. Refuses to know strategies, files and clocks. A task is a dataclass
of hyper-parameters; TensorFlow is imported inside its methods, so that a run can be planned without it.

    task = ResNet(depth=20).for_data(spec)
    model = task.build_model()
    fields = task.preprocess(example, training=True)         # one example, inside tf.data
    loss, metrics = task.loss(model, batch, training=True)   # one batch, inside the compiled step
    answers = task.predict(model, batch)                     # one batch, without labels
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.labels import Labels

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

Example = dict[str, Any]  # field name -> tensor
METRIC_STATE = "_summed"  # the key of `Task.metric_state_size` numbers among the metrics
# What methods were called that people's tasks may override
_FORMER = {"meet": "adapt", "summed_size": "metric_state_size", "summarise": "metric_result"}
WHOLE = "_whole"  # the key of `Task.counted_size` numbers in a batch
STEP_ROWS = "_step_rows"  # the key of how many examples the whole step has, [batch], where steps are not all as large


@dataclass(frozen=True)
class Footprint:
    """What one recipe costs, known without building the model.

    Attributes:
        parameters: trainable parameters.
        activation_bytes: bytes kept for the backward pass, per example, in float32.
        forward_flops: FLOPs of one example's forward pass, 2 per multiply-add.
        table_parameters: those of `parameters` that are rows of tables, of which an example looks up a few: a worker of
            parameter servers holds none of them.
    """

    parameters: int
    activation_bytes: int
    forward_flops: int
    table_parameters: int = 0


@dataclass
class Task:
    """Base of all tasks: subclass it as a dataclass; override the first three methods, and `predict` and
    `serving_inputs` for prediction and export.

    Args:
        freeze: patterns (fnmatch) of the paths of layers that don't train, such as ["stage_1*", "*/block_3/*"]: the
            names of the layers around a layer and its own, joined by "/".
        unfreeze: patterns of those that begin to train later, by the point of training: {"2ep": ["stage_1*"]}.
    """

    stable_name: ClassVar[str] = ""  # what its runs are named by, for a class that is renamed or moves; not inherited

    # Any, as OmegaConf takes neither Sequence nor a tuple of any length
    freeze: Any = dataclasses.field(default=(), kw_only=True)
    unfreeze: Any = dataclasses.field(default=None, kw_only=True)

    def check(self) -> None:
        """Finds what is wrong without TensorFlow, such as a missing file; raises TfscaleError."""

    @property
    def code(self) -> str:
        """ "package.function" of people's own that is imported to build the model, or ""."""
        return ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for before, now in _FORMER.items():
            if before in vars(cls) and now not in vars(cls):
                warnings.warn(f"{cls.__name__}.{before} is called {now} now", DeprecationWarning, stacklevel=2)
                setattr(cls, now, vars(cls)[before])

    def check_data(self, spec: Mapping[str, Any]) -> None:
        """Finds what is wrong on data that are prepared, without TensorFlow; called after `for_data`.

        Args:
            spec: the data's own, see `Source.spec`.
        """

    def ignored(self) -> dict[str, str]:
        """Fields that are given and take no effect, each with the reason; asked without TensorFlow, and again once the
        model is built."""
        return {}

    def adapt(self, first: Callable[[], Example]) -> None:
        """Called once before `build_model`, for tasks that can't build their model without having seen data.

        Args:
            first: returns two preprocessed examples, stacked.
        """

    def build_model(self) -> keras.Model:
        """Builds the Keras 3 model with fresh variables, under whatever policy and scope are in force."""
        raise NotImplementedError

    def begin_training(self) -> None:
        """Called once the model that `build_model` gave is going to be trained; not where a trained run is opened
        again. Evaluations and training steps follow, so that a task may learn from `metric_result`."""

    def preprocess(self, example: Example, *, training: bool) -> Example:
        """Turns one raw example into what `loss` takes; a pure function, traced by tf.data.

        Args:
            example: the source's fields, and "seed": int64 [2], a function of the run's seed, epoch and index,
                which is the only randomness to use (tf.image.stateless_*). In prediction and serving the label's
                field is absent.
            training: whether to augment.

        Returns:
            Fields of static shape. "weight" and "seed" are reserved.
        """
        return example

    @property
    def preprocesses_rows(self) -> bool:
        """Whether `preprocess` takes many examples just as well, stacked, which is faster where they are small."""
        return False

    def loss(self, model: keras.Model, batch: Example, *, training: bool) -> tuple[tf.Tensor, Mapping[str, tf.Tensor]]:
        """The loss and the metrics of every example of a batch.

        Args:
            batch: what `preprocess` returned, batched, and "weight": float32 [batch], 0 for the filling of an
                evaluation's last batch. The engine applies it.

        Returns:
            (loss, metrics): float [batch] each, one number per example. The engine weights, sums and divides by the
            global batch, so that the result doesn't depend on the number of replicas.
        """
        raise NotImplementedError

    def predict(self, model: keras.Model, batch: Example) -> dict[str, tf.Tensor]:
        """What the model says about a batch: named tensors [batch, ...]; used by prediction files and exported models.

        Image classification gives "class": int32 [batch] and "probabilities": float32 [batch, classes].
        """
        raise NotImplementedError

    def shown(self, model: keras.Model) -> str:
        """What people are shown of a model once its training is complete, such as a text that it wrote; "": nothing.
        The weights are those that are exported."""
        return ""

    def leaves(self, model: keras.Model) -> dict[str, bytes]:
        """Files by name, such as {"samples.png": ...}, that people find in the folder shown/ of a run whose training is
        complete. The weights are those that are exported."""
        return {}

    def labels(self) -> tuple[Labels, ...]:
        """What the fields with labels are taken for, as far as it is known: a task with a field `num_classes` takes
        "label" for a class; of others the labels stand as they are."""
        names = {f.name for f in dataclasses.fields(self)}
        return (Labels(outputs=self.num_classes),) if "num_classes" in names else ()  # type: ignore[attr-defined]

    def model_inputs(self, batch: Example) -> Any:
        """What the Keras model is called with: a tensor, or tuples and dicts of them. Not implemented: the fields that
        its inputs are named after, or the one field that is no label. Used by exports."""
        raise NotImplementedError

    def serving_inputs(self) -> dict[str, tf.TensorSpec]:
        """The raw fields of one example that a served model takes, such as {"image": TensorSpec([], tf.string)}: what
        `preprocess` reads, without labels. "seed" among them is what whoever asks gives; else it is 0."""
        raise NotImplementedError

    @property
    def gaps(self) -> tuple[str, ...]:
        """Of `serving_inputs` those in which NaN stands for a value that isn't there; in others it is refused."""
        return ()

    @property
    def served_with(self) -> tuple[str, ...]:
        """Packages that whoever loads the exported SavedModel must import before: they bring operations that its
        preprocessing has, such as tensorflow_text."""
        return ()

    @property
    def keras_file_with(self) -> tuple[str, ...]:
        """Packages of whose classes the exported model.keras is made, besides Keras: whoever loads it must import them
        before."""
        return ()

    def build_optimizer(self) -> keras.optimizers.Optimizer | None:
        """An optimizer that the task brings along, or None: the configuration's."""
        return None

    def extra_variables(self) -> dict[str, Any]:
        """Variables by name that a run must remember besides the model's and its optimizer's; asked once the model is
        built."""
        return {}

    @property
    def by_own_steps(self) -> bool:
        """Whether a Keras model's own `train_step` and `test_step` are run, in the place of `loss`."""
        return False

    @property
    def brings_optimizer(self) -> bool | None:
        """Whether `build_optimizer` gives one; None: that is known once the model is built."""
        return None if type(self).build_optimizer is not Task.build_optimizer else False

    @property
    def fixed_precision(self) -> str | None:
        """The dtype policy that the model already has and can't change, or None: it follows the plan's."""
        return None

    @property
    def keeps_precision(self) -> bool:
        """Whether the model is a user's own Keras model, whose precision plan.precision alone changes."""
        return False

    @property
    def follows_keras(self) -> bool:
        """Whether the optimizer is to see what Keras's `fit` shows it: of a sparse gradient the rows that come twice
        one by one (their squares and norms are not those of their sum), and nothing of what no loss depends on. Else
        such rows are added up first, and what has no gradient has zeros. All examples of a part of a step have one loss
        then, that of the part."""
        return False

    @property
    def fixed_rows(self) -> int | None:
        """The only number of examples that the built model takes at once, or None: any."""
        return None

    @property
    def reduces_inside(self) -> bool:
        """Whether the model itself reduces over replicas in training, as synchronised BatchNorm does."""
        return False

    @property
    def metric_state_size(self) -> int:
        """How many numbers `loss` may return besides the metrics, under `METRIC_STATE` as one float vector: each
        is summed over the examples of many steps, for metrics that are no mean, such as AUC."""
        return 0

    def metric_result(self, state: np.ndarray) -> dict[str, float]:
        """The metrics from the sums of `METRIC_STATE` over all steps since the last report."""
        return {}

    @property
    def counted_size(self) -> int:
        """How many numbers `count` returns; 0 where the losses of a part of a step need nothing of the others."""
        return 0

    def count(self, model: keras.Model, batch: Example) -> tf.Tensor:
        """What of a part of a step, [counted_size], must be summed over all parts before the losses of any: `loss`
        finds the sum in batch[WHOLE]. A step in one piece isn't asked."""
        raise NotImplementedError

    def refuse_parts(self) -> None:
        """Raises UsageError where the loss of a step can't be put together from several replicas' or micro-batches'."""

    def expect_left_out(self) -> None:
        """Called before training where a batch may hold examples of weight 0, which stand in for bad records: for tasks
        whose `loss` doesn't leave the weights to the engine."""

    @property
    def summed_penalties(self) -> Sequence[bool]:
        """Which of the model's `losses` are sums over the batch; empty where none is."""
        return ()

    def identity(self) -> dict[str, Any]:
        """The fields that make this workload itself, for the name of a run."""
        return dict(vars(self))

    def footprint(self) -> Footprint | None:
        """The cost of one example, computed without TensorFlow, or None if it isn't known."""
        return None

    def for_data(self, spec: Mapping[str, Any]) -> Task:
        """This task with those of its fields that are None filled from the data: num_classes, image_size, channels."""
        names = {f.name for f in dataclasses.fields(self)}
        blanks = {k: v for k, v in spec.items() if k in names and getattr(self, k) is None}
        return dataclasses.replace(self, **blanks)
