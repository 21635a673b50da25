"""Segmentation by a U-Net: +recipe=unet (digits on canvases, two cores) and +recipe=unet_paper (Ronneberger et al.)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from tfscale.data.source import READING
from tfscale.data.transforms import Colour, mask_transforms
from tfscale.errors import UsageError
from tfscale.models import overlap, unet
from tfscale.task import METRIC_STATE, Footprint, Task


@dataclass
class UNet(Task):
    """The class of every pixel, learnt from masks; channels and num_classes come from the data where null, and
    num_classes counts the background. Pixels of 255 in a mask are ignored.

    A picture and its mask are resized to `image_size`, whatever their shape is (without `padded` to the size that is
    answered, and the picture is mirrored around it). `augment`: none, digits, photos, imagenet, or a list of
    resized_crop, jitter, flip and colour. The loss is cross-entropy, over the pixels of each example, and `dice` times
    1 - the mean overlap of the classes in its mask.
    Evaluation gives the IoU of whole split's pixels, at the model's size, as Pascal VOC counts it: their mean is over
    the classes that a mask or an answer has, the background among them.
    """

    levels: int = 4  # poolings, and up-convolutions; 4 in the paper
    width: int = 64  # channels of the first level; 64 in the paper
    padded: bool = True  # whether convolutions are, so that the answer is as large as the input
    dropout: float = 0.0  # share of the numbers behind the two last levels that are left out in training
    dice: float = 0.0  # weight of 1 - the mean overlap of the classes, beside cross-entropy
    image_size: int = 512  # pixels of a side that a picture and its mask are resized to
    channels: Optional[int] = None  # channels of a picture; null: the data's, else 3
    # classes of pixels, with the background; null: the data's, which imported masks don't say
    num_classes: Optional[int] = None
    augment: Any = "none"  # none, digits, photos, imagenet, or a list of resized_crop, jitter, flip and colour
    mask_classes: Optional[int] = None  # the data's, where they tell it
    reading: Optional[int] = None  # how pictures are decoded, see Source.reading; the data say it

    def __post_init__(self) -> None:
        mask_transforms(self.augment)
        if self.num_classes is None:
            self.num_classes = self.mask_classes
        if self.num_classes is not None and not 2 <= self.num_classes <= 255:
            raise UsageError(f"{self.num_classes} classes", where="task.num_classes", fix="use 2 to 255")
        try:
            unet.answered_size(unet.Shape(self.levels, self.width, self.image_size, 1, 2, self.padded))
        except ValueError as error:
            step = 2**self.levels
            fix = f"use a multiple of {step}, such as {-(-self.image_size // step) * step}, or fewer task.levels"
            if not self.padded:
                fix = "use another size, such as 572 for 4 levels, or task.padded=true"
            raise UsageError(str(error), where="task.image_size", fix=fix) from None

    def _shape(self) -> unet.Shape:
        if self.num_classes is None:
            raise UsageError(
                "the data don't tell how many classes their masks have",
                where="task.num_classes",
                fix="give it, the background among them: task.num_classes=21 for Pascal VOC",
            )
        channels = 3 if self.channels is None else self.channels
        return unet.Shape(self.levels, self.width, self.image_size, channels, self.num_classes, self.padded)

    def check_data(self, spec):
        self._shape()

    def labels(self):
        return ()  # a mask's numbers stand as they are

    def identity(self):
        return {name: value for name, value in super().identity().items() if name not in ("reading", "mask_classes")}

    def footprint(self) -> Footprint | None:
        return None if self.num_classes is None else unet.footprint(self._shape())

    def build_model(self):
        return unet.build(self._shape(), dropout=self.dropout)

    def preprocess(self, example, *, training):
        import tensorflow as tf

        from tfscale.data import augment, mixing
        from tfscale.data.augment_masks import IGNORED, prepare_both

        shape = self._shape()
        size = unet.answered_size(shape)
        steps, reading = mask_transforms(self.augment), self.reading or READING
        looks = augment.Looks(training, size, shape.channels, reading)
        image = augment.decode(example["image"], shape.channels, reading)
        found = {} if training else {"size": tf.shape(image)[:2]}
        if "mask" in example:
            image, mask = prepare_both(image, example["mask"], example["seed"], steps, looks)
            beyond = (mask >= shape.num_classes) & (mask != IGNORED)
            worst = tf.reduce_max(tf.where(beyond, mask, 0))
            fine = tf.debugging.assert_equal(
                tf.cast(worst, tf.int32),
                0,
                f"a mask has a class that is not below task.num_classes={shape.num_classes}",
            )
            with tf.control_dependencies([fine] if fine is not None else []):
                found["mask"] = tf.identity(mask)
        else:
            image = augment.resize(image, size, shape.channels)
        margin = shape.image_size - size
        around = [[margin // 2, margin - margin // 2]] * 2
        image = tf.pad(image, [*around, [0, 0]], "REFLECT") if margin else image
        return {"image": image, **found, **(mixing.draws(self._colour(), example["seed"]) if training else {})}

    def _colour(self):
        return tuple(one for one in mask_transforms(self.augment) if isinstance(one, Colour))

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        from tfscale.data.augment_masks import IGNORED
        from tfscale.data.mixing import augmented

        if "mask" not in batch:
            raise UsageError("the examples have no mask", where="data", fix="use data=canvas, or import masks")
        image, _ = augmented(batch, self._colour())
        logits = model(image, training=training)
        known = batch["mask"][..., 0] != IGNORED
        labels = tf.where(known, tf.cast(batch["mask"][..., 0], tf.int32), 0)
        counted = tf.cast(known, logits.dtype)
        pixels = tf.reduce_sum(counted, [1, 2])
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits) * counted
        loss = tf.math.divide_no_nan(tf.reduce_sum(each, [1, 2]), pixels)
        if self.dice:
            loss += self.dice * overlap.dice(logits, labels, counted)
        answers = tf.argmax(logits, -1, output_type=tf.int32)
        real = known & (batch["weight"] > 0)[:, tf.newaxis, tf.newaxis]
        return loss, {METRIC_STATE: overlap.confusion(labels, answers, real, self.num_classes)}

    @property
    def metric_state_size(self):
        return (self.num_classes or 0) ** 2

    def metric_result(self, state):
        return overlap.figures(state, self.num_classes)

    def predict(self, model, batch):
        import tensorflow as tf

        from tfscale.data.encoded_masks import encoded_masks

        classes = tf.argmax(model(batch["image"], training=False), -1, output_type=tf.int32)
        return {"mask": encoded_masks(classes, batch["size"])}

    def serving_inputs(self):
        import tensorflow as tf

        return {"image": tf.TensorSpec([], tf.string)}
