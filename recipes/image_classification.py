"""What every recipe that classifies pictures shares: its data, its augmentation, its loss and its answers.

Owns all but the architecture. A recipe adds the fields of its own and two methods:

    @dataclass
    class Mine(ImageClassification):
        def build_model(self): ...      # pixels 0-255 [batch, size, size, channels] -> logits [batch, classes]
        def cost(self): ...             # its Footprint for self.shape()
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from tfscale.data.source import READING
from tfscale.data.transforms import transforms
from tfscale.errors import UsageError
from tfscale.models.class_scores import class_answers, class_losses
from tfscale.task import Footprint, Task


@dataclass
class ImageClassification(Task):
    """Base of the recipes; image_size, channels and num_classes come from the data where null.

    `augment`: "digits" shifts, turns and zooms a little; "cifar" pads, crops and mirrors; "imagenet" is the
    random-resized crop with the central crop in evaluation, "photos" the same with larger crops, for small data sets;
    or a list of transforms, see tfscale.data.transforms. Accuracy in training counts the label with the larger
    share where pictures are mixed.
    """

    image_size: Optional[int] = None  # pixels of a side; null: the data's
    channels: Optional[int] = None  # channels of a picture; null: the data's
    num_classes: Optional[int] = None  # how many classes there are; null: the data's
    label_smoothing: float = 0.0  # share of a label that is spread over all classes
    augment: Any = "none"  # none, digits, cifar, photos, imagenet, or a list of transforms (docs/data.md)
    reading: Optional[int] = None  # how pictures are decoded, see Source.reading; the data say it

    def cost(self) -> Footprint:
        """What one example costs, whose shape is known."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        transforms(self.augment)

    def shape(self) -> dict[str, int]:
        """{"image_size": pixels, "channels": ..., "num_classes": ...}; raises UsageError where the data don't tell."""
        shape = {"image_size": self.image_size, "channels": self.channels, "num_classes": self.num_classes}
        unknown = [name for name, value in shape.items() if value is None]
        if unknown:
            raise UsageError(
                f"the data doesn't tell {', '.join(unknown)} before it is prepared",
                where="task",
                fix=" ".join(f"task.{name}=..." for name in unknown),
            )
        return {name: int(value) for name, value in shape.items() if value is not None}

    def check_data(self, spec):
        self.shape()
        if self.augment == "digits" and "image_size" not in spec:
            raise UsageError(
                "augment=digits moves figures by two pixels, and these pictures differ in size: they are photos",
                where="task.augment",
                fix="task.augment=photos, or none",
            )

    def identity(self):
        return {name: value for name, value in super().identity().items() if name != "reading"}  # the data's

    def footprint(self) -> Footprint | None:
        if None in (self.image_size, self.channels, self.num_classes):
            return None  # known once the data is prepared
        return self.cost()

    def preprocess(self, example, *, training):
        from tfscale.data import augment

        shape = self.shape()
        looks = augment.Looks(training, shape["image_size"], shape["channels"], self.reading or READING)
        prepared = augment.prepare(example["image"], example["seed"], transforms(self.augment), looks)
        return {**prepared, "label": example["label"]} if "label" in example else prepared

    def loss(self, model, batch, *, training):
        from tfscale.data.mixing import augmented

        image, mix = augmented(batch, transforms(self.augment))
        logits = model(image, training=training)
        return class_losses(logits, batch["label"], smoothing=self.label_smoothing if training else 0.0, mix=mix)

    def predict(self, model, batch):
        return class_answers(model(batch["image"], training=False))

    def serving_inputs(self):
        import tensorflow as tf

        return {"image": tf.TensorSpec([], tf.string)}


def refuse_numbers(drop_path: float, deviation: float | None) -> None:
    """Raises UsageError for a share of stochastic depth, or a deviation of fresh weights, that makes no sense."""
    if not 0 <= drop_path < 1:
        raise UsageError("it is a share of the examples", where="task.drop_path", fix="use 0 or more, and below 1")
    if deviation is not None and deviation <= 0:
        raise UsageError(f"a deviation of {deviation:g} draws nothing", where="task.deviation", fix="use 0.02, or null")
