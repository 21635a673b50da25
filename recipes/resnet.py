"""ResNet image classification: +recipe=resnet (digits, two cores) and +recipe=resnet50_imagenet (Goyal et al.)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from tfscale.data.source import READING
from tfscale.data.transforms import transforms
from tfscale.errors import UsageError
from tfscale.models import resnet
from tfscale.task import Footprint, Task


@dataclass
class ResNet(Task):
    """Image classification by a ResNet; image_size, channels and num_classes come from the data where null.

    `augment`: "digits" shifts, turns and zooms a little; "cifar" pads, crops and mirrors; "imagenet" is the
    random-resized crop with the central crop in evaluation, "photos" the same with larger crops, for small data sets;
    or a list of transforms, see tfscale.data.transforms. Accuracy in training counts the label with the larger
    share where pictures are mixed.
    `sync_batch_norm` normalises by the moments of the global batch instead of each replica's part of it.
    """

    depth: int = 50
    width: int = 64
    image_size: Optional[int] = None
    channels: Optional[int] = None
    num_classes: Optional[int] = None
    label_smoothing: float = 0.0
    augment: Any = "none"
    sync_batch_norm: bool = False
    reading: Optional[int] = None  # how pictures are decoded, see Source.reading; the data say it

    @property
    def reduces_inside(self) -> bool:
        return self.sync_batch_norm

    def __post_init__(self) -> None:
        if self.depth not in resnet.DEPTHS:
            depths = ", ".join(map(str, resnet.DEPTHS))
            raise UsageError(
                f"there is no ResNet of depth {self.depth}", where="task.depth", fix=f"use one of {depths}"
            )
        transforms(self.augment)

    def _shape(self) -> dict[str, int]:
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
        self._shape()
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
        return resnet.footprint(self.depth, width=self.width, **self._shape())

    def build_model(self):
        return resnet.build(self.depth, width=self.width, synchronized=self.sync_batch_norm, **self._shape())

    def preprocess(self, example, *, training):
        from tfscale.data import augment

        shape = self._shape()
        looks = augment.Looks(training, shape["image_size"], shape["channels"], self.reading or READING)
        prepared = augment.prepare(example["image"], example["seed"], transforms(self.augment), looks)
        return {**prepared, "label": example["label"]} if "label" in example else prepared

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        from tfscale.data.mixing import augmented

        image, mix = augmented(batch, transforms(self.augment))
        logits = model(image, training=training)
        labels = tf.cast(batch["label"], tf.int32)
        smoothing = self.label_smoothing if training else 0.0

        def losses(labels):
            if not smoothing:
                return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            classes = logits.shape[-1]
            on, off = 1 - smoothing + smoothing / classes, smoothing / classes
            targets = tf.one_hot(labels, classes, on, off, dtype=logits.dtype)
            return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

        counted = labels if mix is None else mix.larger(labels)
        correct = tf.equal(tf.argmax(logits, -1, output_type=tf.int32), counted)
        loss = losses(labels) if mix is None else mix.loss(losses, labels)
        return loss, {"accuracy": tf.cast(correct, tf.float32)}

    def predict(self, model, batch):
        import tensorflow as tf

        logits = model(batch["image"], training=False)
        probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))
        return {"class": tf.argmax(logits, -1, output_type=tf.int32), "probabilities": probabilities}

    def serving_inputs(self):
        import tensorflow as tf

        return {"image": tf.TensorSpec([], tf.string)}
