"""task=keras: a model by its file or by the name of a function, on whatever fields the data have."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from tfscale.data.source import READING
from tfscale.data.transforms import transforms
from tfscale.errors import UsageError, first_line, place_of
from tfscale.files import sha256
from tfscale.keras_task.file import SUFFIXES, check_keras_file, is_compiled, load_keras_file, policy_of
from tfscale.keras_task.model_task import KerasModelTask
from tfscale.user_code import check_code_exists, load_code

if TYPE_CHECKING:
    import keras

# Metrics that make sense of labels that are shares
_OF_SHARES = (
    "acc",
    "accuracy",
    "categorical_accuracy",
    "categorical_crossentropy",
    "kl_divergence",
    "top_k_categorical_accuracy",
)


@dataclass
class NamedModel(KerasModelTask):
    """`task.model` is a .keras file, or package.function whose result is a Keras model.

    The data's field `label` becomes y, "sample_weight" the weights, and all other fields x: alone as they are, several
    as a dict by name. Encoded pictures are decoded and resized to the model's input. A model that isn't compiled is
    compiled with `loss_function`, `metrics` and the configuration's optimizer.
    """

    code_fields: ClassVar[tuple[str, ...]] = ("model",)  # may name code: held against extensions.allow

    model: str = "???"  # a .keras file, or package.function whose result is a Keras model
    arguments: dict[str, Any] = field(default_factory=dict)  # arguments of the function that model names
    loss_function: Optional[str] = None  # Keras's name of one, which a model that isn't compiled needs
    metrics: list[str] = field(default_factory=list)  # Keras's names of metrics, for a model that isn't compiled
    label: str = "label"  # the field of the data that becomes y
    augment: Any = "none"  # none, digits, cifar, photos, imagenet, or a list of transforms (docs/data.md)
    image_size: Optional[int] = None  # pixels of a side; null: the model's own input, else the data's
    channels: Optional[int] = None  # of pictures; null: the model's own input, else the data's
    num_classes: Optional[int] = None  # how many classes there are; null: the data's
    reading: Optional[int] = None  # how pictures are decoded, see Source.reading; the data say it

    def __post_init__(self) -> None:
        super().__post_init__()
        self._own_optimizer: bool | None = None
        self._has_pictures: bool | None = None

    @property
    def is_file(self) -> bool:
        return self.model.endswith(SUFFIXES)

    def check(self) -> None:
        transforms(self.augment)
        if self.is_file:
            check_keras_file(self.model)
        else:
            check_code_exists(self.model, key="task.model")

    @property
    def code(self) -> str:
        return "" if self.is_file else self.model

    def ignored(self) -> dict[str, str]:
        found = {"arguments": "a file takes none"} if self.is_file and self.arguments else {}
        if self.brings_optimizer:
            why = "the model is compiled and brings its own"
            found.update({name: why for name in ("loss_function", "metrics") if getattr(self, name)})
        if self._has_pictures is False:
            given = {
                "augment": bool(transforms(self.augment)),
                "image_size": self.image_size,
                "channels": self.channels,
            }
            found.update({name: "the data have no pictures" for name, value in given.items() if value})
        return found

    @property
    def brings_optimizer(self) -> bool | None:
        if self._own_optimizer is None and self.is_file:
            return is_compiled(Path(self.model))
        return self._own_optimizer

    def obtain(self) -> tuple[keras.Model, bool]:
        model = load_keras_file(self.model) if self.is_file else self._call_function()
        if not model.compiled:
            if self.loss_function is None:
                raise UsageError(
                    "the model isn't compiled and no loss is given",
                    where="task.loss_function",
                    fix="give Keras's name of one, such as task.loss_function=sparse_categorical_crossentropy",
                )
            # A stand-in: the run's optimizer is the configuration's.
            model.compile(optimizer="sgd", loss=self.loss_function, metrics=list(self.metrics))
            self._own_optimizer = False
        elif self._own_optimizer is None:
            self._own_optimizer = True
        return model, True

    def _call_function(self) -> keras.Model:
        import keras

        function = load_code(self.model, key="task.model")
        try:
            made = function(**self.arguments)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise UsageError(
                f"{self.model}({', '.join(self.arguments)}) can't be called: {first_line(error)}",
                where=", ".join(filter(None, ["task.model", place_of(error)])),
                fix="give a .keras file, or package.function with task.arguments",
            ) from error
        if not isinstance(made, keras.Model):
            raise UsageError(f"{self.model} gives {type(made).__name__}, not a Keras model", where="task.model")
        return made

    def build_optimizer(self):
        return super().build_optimizer() if self._own_optimizer else None

    # -- labels

    def for_data(self, spec):
        # How many classes there are the model says, and labels may be quantities.
        return super().for_data({name: value for name, value in spec.items() if name != "num_classes"})

    def _hear(self, kinds):
        self._one_hot = None
        if len(kinds) != 1:
            return []
        (kind,) = kinds
        self._one_hot = kind.outputs if kind.kind == "one_hot" else None
        return [labels for labels in [replace(kind, field=self.label).labels(numbered=True)] if labels is not None]

    # -- examples

    def preprocess(self, example, *, training):
        from tfscale.data import augment

        example = dict(example)
        seed = example.pop("seed")
        found = {name: example.pop(name) for name in (self.label, "sample_weight") if name in example}
        prepared: dict[str, Any] = {"sample_weight": found["sample_weight"]} if "sample_weight" in found else {}
        if (only := self._only_picture(example)) is not None:
            example = {"image": example[only]}
        self._has_pictures = "image" in example
        if self._has_pictures:
            looks = augment.Looks(training, reading=self.reading or READING, **self._picture)
            drawn = augment.prepare(example["image"], seed, transforms(self.augment), looks)
            example["image"] = drawn.pop("image")
            prepared.update(drawn)
        prepared["x"] = example if len(example) > 1 else next(iter(example.values()))
        if self.label in found:
            prepared["y"] = self._encoded(found[self.label])
        return prepared

    def _encoded(self, label):
        """One-hot, where the loss takes it so and the data number the classes."""
        import tensorflow as tf

        number = label.shape.rank == 0 and label.dtype.is_integer
        return tf.one_hot(label, self._one_hot) if number and getattr(self, "_one_hot", None) else label

    def loss(self, model, batch, *, training):
        from tfscale.data.mixing import DRAWS, augmented

        if DRAWS in batch:
            x = batch["x"]
            pictures = {"image": x["image"] if isinstance(x, dict) else x, DRAWS: batch[DRAWS]}
            image, mix = augmented(pictures, transforms(self.augment))
            batch = {**batch, "x": {**x, "image": image} if isinstance(x, dict) else image}
            if mix is not None:
                self._refuse_mixing(x, batch.get("y"))
                batch["y"] = mix.targets(batch["y"])
        return super().loss(model, batch, training=training)

    def _refuse_mixing(self, x, y):
        """Raises UsageError where what belongs to two pictures has no mixture."""
        why = ""
        if isinstance(x, dict):
            why = f"the model takes {', '.join(sorted(set(x) - {'image'}))} beside the picture"
        elif y is None:
            why = "the data have no labels"
        elif not y.dtype.is_floating:
            why = "the loss takes whole numbers for labels"
        elif whole := [name for name in self.metrics if name not in _OF_SHARES or y.shape.rank < 2]:
            why = f"the metrics {', '.join(whole)} take labels that are 0 or 1"
        if why:
            raise UsageError(
                f"mixup and cutmix make labels that are shares of two, and {why}",
                where="task.augment",
                fix="task.loss_function=categorical_crossentropy task.metrics=[accuracy] take such labels"
                if y is not None
                else "leave them away",
            )

    def serving_inputs(self):
        import tensorflow as tf

        x = self._first()["x"] if self._first else None
        if isinstance(x, dict) or x is None or x.shape.rank != 4:
            raise NotImplementedError("only pictures are served from raw bytes")
        return {"image": tf.TensorSpec([], tf.string)}

    def _only_picture(self, fields) -> str | None:
        """The name of the only field, where it is encoded bytes and the model takes pictures."""
        if len(fields) != 1:
            return None
        ((name, value),) = fields.items()
        if name == "image" or value.dtype != "string" or value.shape.rank != 0:
            return None
        return name if isinstance(self._input_shape, tuple) and len(self._input_shape) == 4 else None

    @cached_property
    def _input_shape(self) -> Any:
        return getattr(self.obtain()[0], "input_shape", None)  # an unbuilt model has none

    @cached_property
    def _picture(self) -> dict[str, int]:
        """size and channels of the pictures: the model's where it fixes them."""
        shape = self._input_shape
        shape = shape.get("image") if isinstance(shape, dict) else shape
        fixed = shape[1:4] if isinstance(shape, tuple) and len(shape) == 4 else (None, None, None)
        size, channels = fixed[0] or self.image_size, fixed[2] or self.channels
        if size is None or channels is None:
            raise UsageError(
                "neither the model nor the data fix the size of the pictures",
                where="task.image_size",
                fix="give task.image_size=224",
            )
        return {"size": size, "channels": channels}

    # -- identity

    @property
    def fixed_precision(self) -> str | None:
        return policy_of(Path(self.model)) if self.is_file else None

    def identity(self) -> dict[str, Any]:
        names = ("arguments", "loss_function", "metrics", "label", "augment", "image_size", "channels", "num_classes")
        what = self.model
        if self.is_file:
            self.check()
            what = sha256(Path(self.model))[:16]
        return {"model": what, **{name: getattr(self, name) for name in names}}
