"""How a diffusion model's pictures become noise and how noise becomes pictures again.

Owns the schedule and the sampler. Song et al., "Denoising Diffusion Implicit Models" (2021), with steps without fresh
noise; the rates follow a cosine, as in Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021),
between two bounds, as the example of keras.io has it. A picture is a tensor of -1 to 1.

    signal, noise_rate = schedule.rates(times)                      # of times from 0 (the picture) to 1 (noise)
    noisy = signal * image + noise_rate * noise
    images = sampled(model, noise, schedule, steps=20)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.autograph import no_autograph

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclass(frozen=True)
class Schedule:
    """Attributes:
    min_signal, max_signal: the share of the picture at time 1 and at time 0; squares of both rates add up to 1.
    """

    min_signal: float = 0.02
    max_signal: float = 0.95

    def rates(self, times: Any) -> tuple[Any, Any]:
        """(signal rates, noise rates) of these times, shaped like them."""
        import tensorflow as tf

        first, last = math.acos(self.max_signal), math.acos(self.min_signal)
        angles = first + times * (last - first)
        return tf.cos(angles), tf.sin(angles)


def denoised(model: keras.Model, noisy: tf.Tensor, rates: tuple[Any, Any], *, training: bool) -> tuple[Any, Any]:
    """(noise, picture) that the model takes these for, each [batch, size, size, channels].

    Args:
        rates: of signal and noise, [batch, 1, 1, 1].
    """
    import tensorflow as tf

    signal, noise_rate = rates
    noise = model({"image": noisy, "noise_variance": noise_rate**2}, training=training)
    return noise, tf.clip_by_value((noisy - noise_rate * noise) / signal, -1, 1)


@no_autograph
def sampled(model: keras.Model, noise: tf.Tensor, schedule: Schedule, *, steps: int) -> tf.Tensor:
    """Pictures [batch, size, size, channels] of -1 to 1 from noise of the same shape, in so many calls of the model.

    After each call the noise is taken to be what is left beside the picture, once that is cut off at -1 and 1.
    """
    import tensorflow as tf

    whole = tf.ones([tf.shape(noise)[0], 1, 1, 1], noise.dtype)

    def rates(left: tf.Tensor) -> tuple[Any, Any]:
        return schedule.rates(whole * tf.cast(left, noise.dtype) / steps)

    def step(i: tf.Tensor, noisy: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        signal, noise_rate = rates(steps - i)
        _, image = denoised(model, noisy, (signal, noise_rate), training=False)
        image = tf.cast(image, noise.dtype)
        beside = (noisy - signal * image) / noise_rate
        signal, noise_rate = rates(steps - i - 1)
        return i + 1, signal * image + noise_rate * beside, image

    start = (tf.constant(0), noise, tf.zeros_like(noise))
    return tf.while_loop(lambda i, *_: i < steps, step, start, maximum_iterations=steps, parallel_iterations=1)[2]
