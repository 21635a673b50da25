"""RetinaNet of KerasHub (extra hub): built small, what it costs, its loss for each picture, and what it finds.

Owns the calls of the library: its backbone, heads, anchors, matching and encoding of boxes are used as they are. Lin et
al., "Focal Loss for Dense Object Detection" (2017). Boxes are ymin, xmin, ymax, xmax, in pixels of the model's picture.

    model = build(shape, anchors)
    losses, positives = summed_losses(model, model(images, training=True), targets(model, images, boxes, labels))
    answer = found(model, model(images), images, Limits())
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.errors import UsageError
from tfscale.hooks.keras_hooks import layers_in
from tfscale.models import hub
from tfscale.models.dtypes import at_least_float32
from tfscale.models.picture_layers import check_halvings
from tfscale.task import Footprint

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

FIRST = 64  # channels of the first convolution and stage, as the library's ResNet wants them
_WIDTH = 256  # channels of the pyramid and the heads, as the library has them
_ENDS = ("box_pred_", "cls_pred_", "bbox_regression", "cls_logits")  # the library's names behind its heads
_PRIOR = 0.01  # of an object at an anchor, before anything is learnt: section 4.1 of the paper


@dataclass(frozen=True)
class Anchors:
    """The boxes that are judged at each place of each level of the pyramid.

    Attributes:
        size: of the smallest one's side, in strides of its level (2 ** level pixels).
        scales: sizes in an octave.
        ratios: of height to width.
        positive, negative: of the overlap (IoU) with an object: from here on an anchor stands for it, and below it for
            the background. Between both it isn't trained.
    """

    size: float = 4.0
    scales: int = 3
    ratios: Sequence[float] = (0.5, 1.0, 2.0)
    positive: float = 0.5
    negative: float = 0.4

    def check(self) -> None:
        """Raises UsageError where no anchor could stand for an object or the background."""
        if not self.ratios or min(self.ratios) <= 0 or self.size <= 0:
            raise UsageError(
                f"anchors of size {self.size} and ratios {list(self.ratios)} are no boxes",
                where="task.anchor_ratios, task.anchor_size",
                fix="task.anchor_ratios=[0.5,1,2] task.anchor_size=4",
            )
        if not 0 <= self.negative <= self.positive <= 1:
            raise UsageError(
                f"the overlap of background ends at {self.negative}, and that of objects begins at {self.positive}",
                where="task.anchor_negative",
                fix="use a smaller one, such as task.anchor_negative=0.4 task.anchor_positive=0.5",
            )

    @property
    def at_a_place(self) -> int:
        return self.scales * len(self.ratios)


@dataclass(frozen=True)
class Shape:
    """A detector without a preset.

    Attributes:
        filters: channels of the ResNet's stages: level 2 (a quarter of the picture's size), level 3...
        blocks: basic blocks of each stage.
        levels: the pyramid's first and last.
        convolutions: of a head, in front of its answers; 4 in the paper.
    """

    filters: tuple[int, ...]
    blocks: tuple[int, ...]
    levels: tuple[int, int]
    convolutions: int
    image_size: int
    channels: int
    num_classes: int

    def check(self) -> None:
        """Raises UsageError where it is none that the library builds."""
        stages, (first, last) = 1 + len(self.filters), self.levels
        if self.filters[:1] != (FIRST,):
            fix = f"begin with {FIRST}, such as task.filters=[64,128,256]"
            raise UsageError(f"the library's first stage has {FIRST}", where="task.filters", fix=fix)
        if len(self.filters) != len(self.blocks):
            raise UsageError(
                f"{len(self.filters)} stages have {len(self.blocks)} numbers of blocks",
                where="task.blocks",
                fix=f"task.blocks={[1] * len(self.filters)}".replace(" ", ""),
            )
        if not 2 <= first <= stages <= last or (stages < 5 <= last):
            raise UsageError(
                f"stages at levels 2 to {stages} make no pyramid of levels {first} to {last}",
                where="task.min_level, task.max_level",
                fix="give a stage for each level to max_level or, from level 5 on, to 5; min_level is one of theirs",
            )
        check_halvings(self.image_size, last)


@dataclass(frozen=True)
class Limits:
    """What counts as found.

    Attributes:
        most: boxes of a picture.
        score: the least.
        overlap: the most (IoU) of two boxes of a class; of more the better one is kept.
    """

    most: int = 100
    score: float = 0.05
    overlap: float = 0.5


# -- its cost, without TensorFlow


@dataclass(frozen=True)
class _Conv:
    kernel: int
    before: int
    after: int
    size: int  # of a side of what it gives
    normalised: bool = False  # in the place of a bias


def _convolutions(shape: Shape) -> list[_Conv]:
    """Without those of the heads."""
    first, last = shape.levels
    convs, before = [_Conv(3, shape.channels, FIRST, shape.image_size // 2, True)], FIRST
    for level, (after, blocks) in enumerate(zip(shape.filters, shape.blocks, strict=True), 2):
        size = shape.image_size >> level
        shortcut = [_Conv(1, before, after, size, True)] if level > 2 else []
        convs += [*shortcut, _Conv(3, before, after, size, True)]
        convs += [_Conv(3, after, after, size, True)] * (2 * blocks - 1)
        if level >= first:
            convs += [_Conv(1, after, _WIDTH, size), _Conv(3, _WIDTH, _WIDTH, size)]
        before = after
    return convs + [_Conv(3, _WIDTH, _WIDTH, shape.image_size >> level) for level in range(level + 1, last + 1)]


def footprint(shape: Shape, anchors: Anchors) -> Footprint:
    """Trainable parameters, activation bytes and forward FLOPs of one picture, counted from the convolutions.

    Kept for the backward pass, within a few percent: the picture, what each convolution gives and its normalisation
    makes of it, what the first pooling takes and gives and, of the answers, what the loss makes of them.
    """
    body, answers = _convolutions(shape), (4 * anchors.at_a_place, shape.num_classes * anchors.at_a_place)

    def head(size: int, after: int) -> list[_Conv]:
        return [*[_Conv(3, _WIDTH, _WIDTH, size)] * shape.convolutions, _Conv(3, _WIDTH, after, size)]

    sizes = [shape.image_size >> level for level in range(shape.levels[0], shape.levels[1] + 1)]
    once = [*body, *head(1, answers[0]), *head(1, answers[1])]  # a head is the same at each level
    everywhere = [*body, *(conv for size in sizes for after in answers for conv in head(size, after))]
    quarter = shape.image_size // 4
    kept = shape.image_size**2 * shape.channels + FIRST * ((2 * quarter + 2) ** 2 + quarter**2)
    kept += sum(c.size**2 * c.after * (1 + c.normalised) for c in everywhere)
    kept += sum(size**2 * (answers[0] + 8 * answers[1]) for size in sizes)
    return Footprint(
        parameters=sum(c.kernel**2 * c.before * c.after + c.after * (1 + c.normalised) for c in once),
        activation_bytes=4 * kept,
        forward_flops=sum(2 * c.size**2 * c.after * c.before * c.kernel**2 for c in everywhere),
    )


# -- the model


def build(shape: Shape, anchors: Anchors) -> keras.Model:
    """From pictures [batch, size, size, channels] around 0 to {"bbox_regression", "cls_logits"}: [batch, anchors, 4 and
    classes]."""
    models = hub.keras_hub("task").models
    first, last = shape.levels
    pixels = (shape.image_size, shape.image_size, shape.channels)
    stages = len(shape.filters)
    encoder = models.ResNetBackbone(
        input_conv_filters=[FIRST],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=list(shape.filters),
        stackwise_num_blocks=list(shape.blocks),
        stackwise_num_strides=[1] + [2] * (stages - 1),
        block_type="basic_block",
        image_shape=pixels,
    )
    backbone = models.RetinaNetBackbone(
        image_encoder=encoder, min_level=first, max_level=last, use_p5=False, image_shape=pixels
    )
    return detector(backbone, shape.num_classes, anchors, shape.convolutions)


def detector(backbone: Any, num_classes: int, anchors: Anchors, convolutions: int) -> keras.Model:
    """The library's detector with this backbone, and heads that are drawn anew. Anchors and what they stand for are
    computed in float32 in every precision."""
    library = hub.keras_hub("task")
    generator = library.layers.AnchorGenerator(
        "yxyx",
        min_level=backbone.min_level,
        max_level=backbone.max_level,
        num_scales=anchors.scales,
        aspect_ratios=[float(ratio) for ratio in anchors.ratios],
        anchor_size=anchors.size,
        dtype="float32",
    )
    model = library.models.RetinaNetObjectDetector(
        backbone, num_classes=num_classes, anchor_generator=generator, pre_logits_num_conv_layers=convolutions
    )
    made = model.label_encoder  # of a class that the library doesn't export
    thresholds = {"positive_threshold": anchors.positive, "negative_threshold": anchors.negative}
    model.label_encoder = type(made).from_config({**made.get_config(), **thresholds, "dtype": "float32"})
    model.label_encoder.box_matcher.dtype_policy = "float32"
    heads = (model.classification_head, -math.log((1 - _PRIOR) / _PRIOR)), (model.box_head, 0.0)
    ends = [layer for layer in model.layers if layer.name.startswith(_ENDS)]
    for head, bias in heads:
        _begin(head, bias)
        ends.append(head.prediction_layer)
    for layer in ends:  # scores of 8 bits would tie
        layer.dtype_policy = at_least_float32()
    return model


def backbone_of(preset: str, pixels: Sequence[int]) -> Any:
    """A preset's RetinaNetBackbone with its weights.

    Args:
        pixels: height, width and channels of the pictures.

    Raises:
        UsageError: it takes others. And what `hub.opened` raises.
    """
    backbone = hub.opened(preset, "RetinaNetBackbone")
    takes = backbone.input_shape[1:]
    if any(one not in (None, other) for one, other in zip(takes, pixels, strict=True)):
        raise UsageError(
            f"the preset takes pictures of {list(takes)}, and these are {list(pixels)}",
            where="task.image_size",
            fix="give the preset's own size",
        )
    check_halvings(pixels[0], max(int(name[1:]) for name in backbone.image_encoder.pyramid_outputs))
    return backbone


def scaling(preset: str | None) -> tuple[Any, Any]:
    """What pixels of 0 to 255 are multiplied by, and what is added then: as the preset's preprocessor has it."""
    if preset is None:
        return 1 / 127.5, -1.0
    converter = hub.opened(preset, "RetinaNetObjectDetectorPreprocessor").image_converter
    if converter is None:
        raise UsageError(
            "the preset doesn't say how pictures are converted",
            where="task.preset",
            fix="save it with a RetinaNetObjectDetectorPreprocessor that has an image_converter",
        )
    scale, offset = converter.scale, converter.offset
    return 1.0 if scale is None else scale, 0.0 if offset is None else offset


def synchronise(model: keras.Model, synchronized: bool) -> None:
    """Whether BatchNorm takes the moments of the global batch, or of each replica's part of it."""
    from keras import layers

    for layer in layers_in(model):
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = synchronized


def _begin(head: Any, bias: float) -> None:
    """As section 4.1 of the paper has it: weights of a deviation of 0.01, and the prior in the head of the classes.
    KerasHub 0.32 has 0.05, and the prior in the other head, so that boxes would begin at e ** -4.6 of their anchors."""
    answers = head.prediction_layer
    answers.kernel.assign(0.2 * answers.kernel)
    answers.bias.assign(0 * answers.bias + bias)


# -- what it learns and finds


def targets(model: Any, images: tf.Tensor, boxes: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What each anchor stands for: float32 ([batch, anchors, 4], what its box differs by from the anchor, and [batch,
    anchors], its class, -1 of the background and -2 where it isn't trained).

    Args:
        boxes: float32 [batch, boxes, 4], with zeros where there is none.
        labels: [batch, boxes].
    """
    import tensorflow as tf

    return model.label_encoder(images=images, gt_boxes=boxes, gt_classes=tf.cast(labels, tf.float32))


def summed_losses(
    model: Any, answers: Mapping[str, tf.Tensor], wanted: tuple[tf.Tensor, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """[batch] each: the loss of each picture's anchors together, and how many of them stand for an object.

    The library's own: the focal loss, the mean over the classes, and Huber's of the boxes, the mean over four numbers.
    It divides the sum over the whole step by that of the positive anchors.
    """
    import tensorflow as tf
    from keras import losses

    deltas, classes = wanted
    logits, boxes = (answers[name] for name in ("cls_logits", "bbox_regression"))
    positive = tf.cast(classes > -1, logits.dtype)
    trained = tf.cast(tf.not_equal(classes, -2), logits.dtype)
    one_hot = tf.one_hot(tf.cast(classes, tf.int32), logits.shape[-1], dtype=logits.dtype)
    focal = losses.binary_focal_crossentropy(one_hot, logits, from_logits=True)
    off = losses.huber(tf.cast(deltas, boxes.dtype), boxes)
    return tf.reduce_sum(focal * trained + off * positive, 1), tf.reduce_sum(positive, 1)


def found(model: Any, answers: Mapping[str, tf.Tensor], images: tf.Tensor, limits: Limits) -> dict[str, tf.Tensor]:
    """{"boxes": float32 [batch, most, 4], shares of the sides, "classes": int32 [batch, most], "scores": float32
    [batch, most], "number": int32 [batch]}, the best score first; behind that number boxes and scores are 0, and
    classes -1."""
    import tensorflow as tf
    from keras.utils import bounding_boxes

    height, width, channels = images.shape[1:]
    boxes = bounding_boxes.decode_deltas_to_boxes(
        anchors=tf.concat(list(model.anchor_generator(images).values()), 0),
        boxes_delta=tf.cast(answers["bbox_regression"], tf.float32),
        anchor_format="yxyx",
        box_format="yxyx",
        encoded_format="center_xywh",
        image_shape=(height, width, channels),
    )
    kept = tf.image.combined_non_max_suppression(
        boxes[:, :, tf.newaxis] / [height, width, height, width],
        tf.nn.sigmoid(tf.cast(answers["cls_logits"], tf.float32)),
        max_output_size_per_class=limits.most,
        max_total_size=limits.most,
        iou_threshold=limits.overlap,
        score_threshold=limits.score,
    )
    there = tf.sequence_mask(kept.valid_detections, limits.most)
    classes = tf.where(there, tf.cast(kept.nmsed_classes, tf.int32), -1)
    return {
        "boxes": kept.nmsed_boxes,
        "classes": classes,
        "scores": kept.nmsed_scores,
        "number": kept.valid_detections,
    }
