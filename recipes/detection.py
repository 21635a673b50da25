"""Boxes around objects, found by KerasHub's RetinaNet: +recipe=detection (digits on canvases, two cores)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Optional

from tfscale.data.source import READING
from tfscale.errors import UsageError, refuse_below
from tfscale.models import average_precision, hub, retinanet
from tfscale.task import METRIC_STATE, WHOLE, Task

_OWN = 3  # numbers of the state of metrics in front of those of the average precision


@dataclass
class Detection(Task):
    """The class and the box of every object, learnt from boxes by a RetinaNet (Lin et al., 2017) of KerasHub's.

    Pictures are resized to squares of `image_size`, whatever their shape is. `preset`: a RetinaNet's backbone, from a
    folder or a name that the library downloads; null: a small ResNet with these `filters` and `blocks` from level 2 on
    (a quarter of the size), and a pyramid from `min_level` to `max_level`. `convolutions` of each head, and all
    `anchor_...`: see models/retinanet.py. `augment`: none or flip.
    Of a picture with more than `most_boxes` the others are left out, and counted. Boxes of crowds are left away.
    Evaluation gives COCO's AP (`ap`) and that at an IoU of 0.5 (`ap50`), of at most `most_found` boxes a picture of at
    least this score.
    """

    # a RetinaNet's backbone: a folder or a name that the library downloads; null: a small ResNet
    preset: Optional[str] = None
    filters: Any = (64, 128, 256)  # of the small ResNet: channels of levels 2, 3 and on
    blocks: Any = (1, 2, 1)  # of the small ResNet: blocks of each level
    min_level: int = 2  # of the pyramid, the finest: 2 is a quarter of the size
    max_level: int = 4  # of the pyramid, the coarsest
    convolutions: int = 4  # of each head; 4 in the paper
    anchor_size: float = 4.0  # side of a level's smallest anchor, in strides; 4 in the paper
    anchor_scales: int = 3  # sizes of anchors in an octave; 3 in the paper
    anchor_ratios: Any = (0.5, 1.0, 2.0)  # of an anchor: height to width
    anchor_positive: float = 0.5  # overlap (IoU) with an object from which on an anchor stands for it
    anchor_negative: float = 0.4  # overlap below which an anchor is background; between both it is not trained
    sync_batch_norm: bool = False  # normalises by the whole global batch, and not by each replica's part of it
    augment: Any = "none"  # none, or flip
    most_boxes: int = 100  # boxes of a picture that are learnt
    most_found: int = 100  # boxes of a picture that are answered at most
    least_score: float = 0.05  # score from which on a box is answered; 0 to 1
    most_overlap: float = 0.5  # overlap up to which two boxes of a class are both answered; 0 to 1
    image_size: int = 512  # pixels of a side that pictures are resized to
    channels: Optional[int] = None  # channels of a picture; null: the data's
    num_classes: Optional[int] = None  # how many classes boxes have; null: the data's
    object_classes: Optional[int] = None  # the data's, where they tell it
    reading: Optional[int] = None  # how pictures are decoded, see Source.reading; the data say it

    def __post_init__(self) -> None:
        if self.num_classes is None:
            self.num_classes = self.object_classes
        if self.augment not in ("none", "flip", ["flip"], ("flip",)):
            raise UsageError(
                f"boxes don't follow {self.augment}", where="task.augment", fix="task.augment=flip, or none"
            )
        refuse_below(
            self, "task", most_boxes=1, most_found=1, anchor_scales=1, convolutions=0, image_size=1, num_classes=1
        )
        for name in ("least_score", "most_overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{getattr(self, name)} is no share", where=f"task.{name}", fix="use 0 to 1")
        self._anchors.check()
        if self.preset is None:
            self._shape.check()

    # -- without TensorFlow

    def check(self) -> None:
        hub.check_preset(self.preset, where="task.preset")

    def check_data(self, spec):
        if self.num_classes is None:
            raise UsageError("the data tell no classes of boxes", where="task.num_classes", fix="task.num_classes=20")

    def ignored(self) -> dict[str, str]:
        fields = type(self).__dataclass_fields__
        own = ("filters", "blocks", "min_level", "max_level") if self.preset is not None else ()
        given = {name: getattr(self, name) for name in own}
        plain = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}
        return {name: "the preset has its own" for name, value in plain.items() if value != fields[name].default}

    def labels(self):
        return ()  # classes of boxes stand as they are

    def for_data(self, spec):
        return super().for_data({name: value for name, value in spec.items() if name != "num_classes"})  # of pictures

    def identity(self):
        own = {n: v for n, v in super().identity().items() if n not in ("reading", "object_classes") and n[0] != "_"}
        return own if self.preset is None else {**own, "preset": hub.content_of(self.preset)}

    @property
    def _anchors(self) -> retinanet.Anchors:
        ratios = tuple(self.anchor_ratios)
        return retinanet.Anchors(
            self.anchor_size, self.anchor_scales, ratios, self.anchor_positive, self.anchor_negative
        )

    @property
    def _shape(self) -> retinanet.Shape:
        levels, channels = (self.min_level, self.max_level), self.channels or 3
        stages = tuple(self.filters), tuple(self.blocks)
        return retinanet.Shape(*stages, levels, self.convolutions, self.image_size, channels, self._classes)

    @property
    def _classes(self) -> int:
        return self.num_classes or 0

    def footprint(self):
        if self.preset is not None or self.num_classes is None:
            return None  # it is counted
        return retinanet.footprint(self._shape, self._anchors)

    @property
    def reduces_inside(self) -> bool:
        return self.sync_batch_norm

    # -- the model and examples

    @cached_property
    def _scaling(self) -> tuple[Any, Any]:
        return retinanet.scaling(self.preset)

    def build_model(self):
        if self.preset is None:
            model = retinanet.build(self._shape, self._anchors)
        else:
            pixels = [self.image_size, self.image_size, self.channels or 3]
            backbone = retinanet.backbone_of(self.preset, pixels)
            model = retinanet.detector(backbone, self._classes, self._anchors, self.convolutions)
        retinanet.synchronise(model, self.sync_batch_norm)
        return model

    def preprocess(self, example, *, training):
        import tensorflow as tf

        from tfscale.data import augment, boxes

        channels = self.channels or 3
        image = augment.decode(example["image"], channels, self.reading or READING)
        found = {"image": augment.resize(image, self.image_size, channels)}
        if "objects" in example:
            if "label" not in example["objects"]:
                raise UsageError("the boxes have no classes", where="data", fix="use data whose objects have labels")
            found.update(boxes.padded(example["objects"], self.most_boxes, self._classes))
        if training and self.augment != "none":
            mirrored = tf.random.stateless_uniform([], example["seed"]) < 0.5
            found = tf.cond(mirrored, lambda: boxes.mirrored(found), lambda: found)
        return found

    def serving_inputs(self):
        import tensorflow as tf

        return {"image": tf.TensorSpec([], tf.string)}

    @property
    def keras_file_with(self):
        return ("keras_hub",)

    def model_inputs(self, batch):
        import keras
        import tensorflow as tf

        scale, offset = (tf.cast(one, keras.config.floatx()) for one in self._scaling)
        return tf.cast(batch["image"], keras.config.floatx()) * scale + offset

    # -- what is learnt

    @property
    def _limits(self) -> retinanet.Limits:
        return retinanet.Limits(self.most_found, self.least_score, self.most_overlap)

    def _wanted(self, model, batch):
        if "boxes" not in batch:
            raise UsageError("the examples have no boxes", where="data", fix="use data=canvas, or import boxes")
        return retinanet.targets(model, batch["image"], batch["boxes"] * self.image_size, batch["labels"])

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        answers = model(self.model_inputs(batch), training=training)
        losses, positives = retinanet.summed_losses(model, answers, self._wanted(model, batch))
        weight = tf.cast(batch["weight"], losses.dtype)
        each = (losses, positives, tf.cast(batch["left_out"], weight.dtype))
        own = tf.stack([tf.reduce_sum(weight * one) for one in each])
        whole = tf.cast(batch[WHOLE], weight.dtype) if WHOLE in batch else (own[1], tf.reduce_sum(weight))
        if training:  # which doesn't pay for finding boxes
            more = tf.zeros([average_precision.size(self._classes)], own.dtype)
        else:
            real = tf.where(batch["weight"][:, tf.newaxis] > 0, 1, 0)
            answer = retinanet.found(model, answers, batch["image"], self._limits)
            answer["classes"], labels = answer["classes"] * real + real - 1, batch["labels"] * real + real - 1
            more = average_precision.counts(batch["boxes"], labels, answer, self._classes)
        state = tf.concat([own, tf.cast(more, own.dtype)], 0)
        return losses * whole[1] / tf.maximum(whole[0], 1), {METRIC_STATE: state}

    @property
    def counted_size(self):
        return 2

    def count(self, model, batch):
        import tensorflow as tf

        weight = batch["weight"]
        positives = tf.reduce_sum(tf.cast(self._wanted(model, batch)[1] > -1, weight.dtype), 1)
        return tf.stack([tf.reduce_sum(weight * positives), tf.reduce_sum(weight)])

    @property
    def metric_state_size(self):
        return _OWN + average_precision.size(self._classes)

    def metric_result(self, state):
        losses, positives, left_out = (float(one) for one in state[:_OWN])
        told = {"loss": losses / max(positives, 1.0)}
        more = {"boxes_left_out": left_out} if left_out else {}
        return {**told, **more, **average_precision.figures(state[_OWN:], self._classes)}

    def predict(self, model, batch):
        """Of each picture at most `most_found` boxes, the best score first: "boxes" (ymin, xmin, ymax, xmax as shares
        of its sides), "classes" and "scores", and their "number"; behind it boxes and scores are 0, and classes -1."""
        answers = model(self.model_inputs(batch), training=False)
        return retinanet.found(model, answers, batch["image"], self._limits)
