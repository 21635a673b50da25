"""Any KerasHub classifier or language model, fine-tuned from a preset: +recipe=keras_hub task.preset=NAME_OR_FOLDER."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

from tfscale.data.source import READING
from tfscale.data.transforms import transforms
from tfscale.errors import UsageError, nearest
from tfscale.models import hub
from tfscale.models.class_scores import class_answers, class_losses
from tfscale.task import METRIC_STATE, Task
from tfscale.text import token_losses

_log = logging.getLogger(__name__)
KINDS = ("ImageClassifier", "TextClassifier", "CausalLM")


@dataclass
class KerasHub(Task):
    """A task of KerasHub's: its backbone and preprocessor as the preset has them, its head for the data's classes.

    `kind`: which of the library's tasks. Pictures are the data's field "image", texts the field `text`. Examples go
    through the preset's own preprocessor; with `augment`, pictures are cut to its size first, in training alone.
    `preset`: a folder, or a name that the library downloads; null: a small DeiT with random weights, below `presets`.
    `lora_rank`: only low-rank updates of the queries and values train, and the head.
    """

    kind: str = "ImageClassifier"  # which of the library's tasks
    # a folder, or a name that the library downloads; null: a small DeiT with random weights, below presets
    preset: Optional[str] = None
    presets: str = "data/presets"  # the folder of the small DeiT
    lora_rank: Optional[int] = None  # only low-rank updates of queries and values train, and the head; null: all
    augment: Any = None  # transforms of pictures (docs/data.md); null: digits where the small DeiT learns, else none
    size: Optional[int] = None  # pixels of a side that pictures are cut to; null: the preset's own
    text: str = "text"  # the field of the data that holds texts
    length: Optional[int] = None  # tokens of a text; null: the preset's own
    image_size: Optional[int] = None  # the data's, which the small DeiT is made for
    channels: Optional[int] = None  # channels of a picture; null: the data's
    num_classes: Optional[int] = None  # how many classes there are; null: the data's
    reading: Optional[int] = None  # how pictures are decoded, see Source.reading; the data say it

    def __post_init__(self) -> None:
        self._steps()
        if self.kind not in KINDS:
            raise UsageError(
                f"no task of KerasHub that this recipe trains is called {self.kind!r}{nearest(self.kind, KINDS)}",
                where="task.kind",
                fix=f"use one of {', '.join(KINDS)}",
            )
        if self.preset is None and self.kind != "ImageClassifier":
            raise UsageError(
                f"a {self.kind} needs a preset", where="task.preset", fix="task.preset=FOLDER, or a preset's name"
            )
        if self.lora_rank is not None and self.lora_rank < 1:
            raise UsageError("a rank is 1 or more", where="task.lora_rank", fix="task.lora_rank=4, or null")

    # -- without TensorFlow

    def _steps(self):
        small = self.preset is None and self.kind == "ImageClassifier"
        return transforms(self.augment if self.augment is not None else "digits" if small else "none")

    @property
    def _pictures(self) -> bool:
        return self.kind == "ImageClassifier"

    def check(self) -> None:
        hub.check_preset(self.preset, where="task.preset")

    def check_data(self, spec):
        if self.preset is None:
            self._small  # noqa: B018 - raises where it can't be made
        if self.num_classes is None and self.kind != "CausalLM":
            raise UsageError("the data tell no classes", where="task.num_classes", fix="task.num_classes=2")

    def ignored(self) -> dict[str, str]:
        unused = {"text": self.text != "text", "length": self.length} if self._pictures else {}
        if not self._pictures:
            unused = {"augment": bool(self._steps()), "size": self.size}
        return {name: f"a {self.kind} takes none" for name, value in unused.items() if value}

    def labels(self):
        return () if self.kind == "CausalLM" else super().labels()

    def identity(self):
        own = {n: v for n, v in super().identity().items() if n not in ("presets", "reading") and n[0] != "_"}
        return own if self.preset is None else {**own, "preset": hub.content_of(self.preset)}

    def footprint(self):
        if self.preset is not None or None in (self.image_size, self.channels, self.num_classes):
            return None  # it is counted
        return self._small.footprint(self.num_classes)

    @property
    def _small(self) -> hub.SmallDeiT:
        if None in (self.image_size, self.channels):
            raise UsageError(
                "the data's pictures have no common size that a small model could be made for",
                where="task.preset",
                fix="task.image_size=64 task.channels=3, or task.preset=FOLDER of a trained model",
            )
        return hub.SmallDeiT(self.size or self.image_size or 0, self.channels or 0)

    # -- the library's objects

    def _opened(self, kind: str, **arguments: Any) -> Any:
        preset = self.preset or str(self._small.saved(Path(self.presets)))
        return hub.opened(preset, kind, **arguments)

    @cached_property
    def _converter(self) -> Any:
        """The preset's preprocessor, as it is called in a graph."""
        import tensorflow as tf

        with tf.init_scope():  # preprocess is traced
            made = self._opened(f"{self.kind}Preprocessor")
            if self._pictures and made.image_converter is None:
                raise UsageError(
                    "the preset doesn't say how pictures are converted",
                    where="task.preset",
                    fix="save it with an ImageClassifierPreprocessor that has an image_converter",
                )
            if self._pictures and self.size is not None:
                made.image_converter.image_size = (self.size, self.size)
            if not self._pictures:
                made.sequence_length = self.length or made.sequence_length
        return made

    @cached_property
    def _picture_shape(self) -> tuple[int, int, int]:
        size, channels = (
            self._converter.image_converter.image_size,
            self._small.channels if self.preset is None else None,
        )
        if size is None:
            raise UsageError("the preset fixes no size of pictures", where="task.size", fix="task.size=224")
        if size[0] != size[1] and self._steps():
            raise UsageError(
                f"pictures of {size[0]} x {size[1]} pixels aren't augmented, which makes squares",
                where="task.augment",
                fix="task.augment=none",
            )
        return *size, channels or hub.channels_of(self.preset or "")

    def adapt(self, first):
        self._converter  # noqa: B018 - a small preset is made here, outside of a strategy's scope

    def build_model(self):
        import tensorflow as tf

        arguments = {} if self.kind == "CausalLM" else {"num_classes": self.num_classes, "activation": None}
        model = self._opened(self.kind, compile=False, preprocessor=None, **arguments)
        shape = [None, *self._picture_shape] if self._pictures else None
        if shape is not None and not tf.TensorShape(shape).is_compatible_with(model.input_shape):
            raise UsageError(
                f"the model takes pictures of {list(model.input_shape[1:])}, and the preprocessor gives {shape[1:]}",
                where="task.size",
                fix="leave it away, or give the model's own",
            )
        if self.lora_rank is not None:
            hub.enable_lora(model, self.lora_rank)
        self._trained = sum(int(tf.size(v)) for v in model.trainable_variables), model.count_params()
        return model

    def begin_training(self) -> None:
        if self.preset is None:
            place = Path(self.presets, self._small.name)
            _log.info(f"task.preset is not given: it begins from {place}, a small DeiT with random weights")
        if self.lora_rank is not None:
            trained, whole = self._trained
            _log.info(f"LoRA of rank {self.lora_rank}: {trained:,} of {whole:,} parameters train")

    # -- examples

    def preprocess(self, example, *, training):
        field = "image" if self._pictures else self.text
        if field not in example:
            others = sorted(set(example) - {"label", "seed"})
            raise UsageError(
                f"a {self.kind} learns from the field {field!r}, and the data have {', '.join(others)}",
                where="data" if self._pictures else "task.text",
                fix="choose data with pictures, or another task.kind" if self._pictures else "task.text=FIELD of these",
            )
        prepared = self._picture(example, training) if self._pictures else self._tokens(example[field])
        labelled = "label" in example and self.kind != "CausalLM"
        return {**prepared, "label": example["label"]} if labelled else prepared

    def _picture(self, example, training):
        import tensorflow as tf

        from tfscale.data import augment

        height, width, channels = self._picture_shape
        image, reading = example["image"], self.reading or READING
        if image.dtype != tf.string and image.shape[-1] == 1 and channels == 3:
            image = tf.image.grayscale_to_rgb(image)
        if training and (steps := self._steps()):
            return augment.prepare(image, example["seed"], steps, augment.Looks(True, height, channels, reading))
        converted = self._converter(augment.decode(image, channels, reading))
        return {"image": tf.ensure_shape(tf.cast(converted, tf.float32), [height, width, channels])}

    def _tokens(self, text):
        import tensorflow as tf

        length = self._converter.sequence_length
        if self.kind == "CausalLM":
            features, targets, learnt = self._converter(text)
            features = {**features, "targets": targets, "learnt": tf.cast(learnt, tf.float32)}
        else:
            features = self._converter(text)
        return {name: tf.ensure_shape(value, [length]) for name, value in features.items()}

    def serving_inputs(self):
        import tensorflow as tf

        return {"image" if self._pictures else self.text: tf.TensorSpec([], tf.string)}

    @property
    def served_with(self):
        return () if self._pictures else ("tensorflow_text",)

    @property
    def keras_file_with(self):
        return ("keras_hub",)

    def model_inputs(self, batch):
        if self._pictures:
            return batch["image"]
        return {name: batch[name] for name in ("token_ids", "segment_ids", "padding_mask") if name in batch}

    # -- what is learnt

    def _logits(self, model, batch, *, training):
        import tensorflow as tf

        from tfscale.data.mixing import augmented

        mix = None
        if self._pictures and batch["image"].dtype == tf.uint8:  # augmented, and what the converter does is left to do
            image, mix = augmented(batch, self._steps())
            converter = self._converter.image_converter
            image = tf.cast(image, tf.float32) * (1.0 if converter.scale is None else converter.scale)
            batch = {**batch, "image": image + (0.0 if converter.offset is None else converter.offset)}
        logits = model(self.model_inputs(batch), training=training)
        return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32), mix

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        logits, mix = self._logits(model, batch, training=training)
        if self.kind == "CausalLM":
            losses, state = token_losses.token_losses(logits, batch["targets"], batch["learnt"], batch)
            return losses, {METRIC_STATE: state}
        losses, metrics = class_losses(logits, batch["label"], mix=mix)
        if not self._pictures:  # texts that fill their row, and are cut where they are longer
            metrics["full_rows"] = tf.cast(tf.reduce_all(tf.cast(batch["padding_mask"], tf.bool), 1), tf.float32)
        return losses, metrics

    @property
    def counted_size(self):
        return token_losses.COUNTED if self.kind == "CausalLM" else 0

    def count(self, model, batch):
        return token_losses.counted_tokens(batch["learnt"], batch)

    @property
    def metric_state_size(self):
        return token_losses.FIGURES if self.kind == "CausalLM" else 0

    def metric_result(self, state):
        return token_losses.figures(state)

    def predict(self, model, batch):
        """Of a classifier "class" and "probabilities"; of a language model "token_ids", the tokens behind each as
        "targets", and their "log_probabilities", 0 where it is filling."""
        import tensorflow as tf

        logits, _ = self._logits(model, batch, training=False)
        if self.kind != "CausalLM":
            return class_answers(logits)
        targets = tf.cast(batch["targets"], tf.int32)
        scores = -tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits) * batch["learnt"]
        return {"token_ids": batch["token_ids"], "targets": targets, "log_probabilities": scores}
