"""Pictures out of noise by a diffusion model (DDIM): +recipe=diffusion, digits on two cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from tfscale.data.source import READING
from tfscale.data.transforms import Cutmix, Mixup, find, transforms
from tfscale.errors import UsageError, refuse_below
from tfscale.models import diffusion
from tfscale.models.picture_layers import check_halvings
from tfscale.task import Footprint, Task

if TYPE_CHECKING:
    from tfscale.models import ddim

_GRID = 8  # pictures along each side of samples.png


@dataclass
class Diffusion(Task):
    """Learns which noise is in a picture, and makes pictures of noise in `sampling_steps` calls of the model;
    image_size and channels come from the data where null. Labels are not used.

    The loss is the mean squared error of the noise at a time drawn for each example. Both are drawn from its seed. So
    an evaluation has the same noise each time, and replicas, parts and a resume train as one device does. Keras
    models with a `train_step` of their own, such as keras.io's, run through `tfscale.fit`. "image_loss" is the mean
    squared error of the picture without noise, of -1 to 1.
    A picture is a function of a seed: that of [0, i] is the i-th of samples.png, of `tfscale predict` and of an export
    that is asked for it. `augment`: see tfscale.data.transforms; those that mix pictures are refused.
    """

    widths: Any = (16, 32, 64)  # channels of each level, the finest first; each level but the last halves the size
    block_depth: int = 1  # residual blocks of each level, down and up
    sampling_steps: int = 20  # calls of the model that make a picture of noise
    min_signal: float = 0.02  # share of the picture where there is most noise
    max_signal: float = 0.95  # share of the picture where there is least
    image_size: Optional[int] = None  # pixels of a side; null: the data's
    channels: Optional[int] = None  # channels of a picture; null: the data's
    augment: Any = "none"  # a list of transforms (docs/data.md), or none; those that mix pictures are refused
    reading: Optional[int] = None  # how pictures are decoded, see Source.reading; the data say it

    def __post_init__(self) -> None:
        steps = transforms(self.augment)
        if find(steps, Mixup) or find(steps, Cutmix):
            raise UsageError("mixed pictures would be learnt", where="task.augment", fix="leave mixup and cutmix away")
        refuse_below(self, "task", block_depth=1, sampling_steps=1, image_size=1, channels=1)
        if isinstance(self.widths, int) or not self.widths or min(self.widths) < 1:
            raise UsageError("a model has levels, each with channels", where="task.widths", fix="task.widths=[16,32]")
        if not 0 < self.min_signal < self.max_signal < 1:
            what = f"the signal's share goes from {self.max_signal:g} to {self.min_signal:g}"
            fix = "let it fall, between 1 and 0, such as task.max_signal=0.95 task.min_signal=0.02"
            raise UsageError(what, where="task.max_signal, task.min_signal", fix=fix)
        if self.image_size is not None:
            check_halvings(self.image_size, len(self.widths) - 1, else_fix=", or fewer task.widths")

    def _shape(self) -> diffusion.Shape:
        if self.image_size is None or self.channels is None:
            raise UsageError(
                "the data don't tell the size and the channels of their pictures",
                where="task.image_size",
                fix="give both, such as task.image_size=64 task.channels=3",
            )
        return diffusion.Shape(self.image_size, self.channels, tuple(self.widths), self.block_depth)

    def check_data(self, spec):
        self._shape()

    def labels(self):
        return ()

    def identity(self):
        return {name: value for name, value in super().identity().items() if name != "reading"}  # the data's

    def footprint(self) -> Footprint | None:
        return None if None in (self.image_size, self.channels) else diffusion.footprint(self._shape())

    def build_model(self):
        return diffusion.build(self._shape())

    def preprocess(self, example, *, training):
        """Noise and a time, and the picture where there is one: not where pictures are served."""
        import tensorflow as tf

        from tfscale.data import augment

        shape, seed = self._shape(), example["seed"]
        size = (shape.image_size, shape.image_size, shape.channels)
        drawn = {"noise": tf.random.stateless_normal(size, seed), "time": tf.random.stateless_uniform([], seed + 1)}
        if "image" not in example:
            return drawn
        looks = augment.Looks(training, shape.image_size, shape.channels, self.reading or READING)
        other = tf.random.experimental.stateless_fold_in(seed, 1)  # else a picture would be mirrored by its time
        return {**augment.prepare(example["image"], other, transforms(self.augment), looks), **drawn}

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        from tfscale.data.mixing import augmented
        from tfscale.models import ddim

        image, _ = augmented(batch, transforms(self.augment))
        dtype = model.inputs[0].dtype
        image = tf.cast(image, dtype) / 127.5 - 1
        noise, times = (tf.cast(batch[name], dtype) for name in ("noise", "time"))
        rates = self._schedule.rates(times[:, None, None, None])
        noisy = rates[0] * image + rates[1] * noise
        said_noise, said_image = ddim.denoised(model, noisy, rates, training=training)
        errors = (tf.reduce_mean(tf.square(error), [1, 2, 3]) for error in (said_noise - noise, said_image - image))
        loss, image_loss = errors
        return loss, {"image_loss": image_loss}

    @property
    def _schedule(self) -> ddim.Schedule:
        from tfscale.models import ddim  # imports TensorFlow

        return ddim.Schedule(self.min_signal, self.max_signal)

    def predict(self, model, batch):
        import tensorflow as tf

        from tfscale.models import ddim

        noise = tf.cast(batch["noise"], model.inputs[0].dtype)
        pixels = (ddim.sampled(model, noise, self._schedule, steps=self.sampling_steps) + 1) * 127.5
        return {"image": tf.cast(tf.round(pixels), tf.uint8)}

    def model_inputs(self, batch):
        import tensorflow as tf

        rates = self._schedule.rates(tf.ones_like(batch["time"])[:, None, None, None])
        return {"image": batch["noise"], "noise_variance": rates[1] ** 2}

    def serving_inputs(self):
        import tensorflow as tf

        return {"seed": tf.TensorSpec([2], tf.int64)}

    def leaves(self, model):
        """samples.png: 8 x 8 pictures."""
        import tensorflow as tf

        seeds = tf.constant([[0, i] for i in range(_GRID**2)], tf.int64)
        drawn = [self.preprocess({"seed": seed}, training=False) for seed in seeds]
        noise = tf.stack([one["noise"] for one in drawn])
        images = tf.function(lambda noise: self.predict(model, {"noise": noise})["image"], autograph=False)(noise)
        rows = tf.reshape(images, [_GRID, _GRID, *images.shape[1:]])
        size = self.image_size * _GRID
        grid = tf.reshape(tf.transpose(rows, [0, 2, 1, 3, 4]), [size, size, self.channels])
        return {"samples.png": tf.io.encode_png(grid).numpy()}
