"""What models of pictures share: sizes that are halved, normalised pixels, how weights are drawn, stochastic depth."""

from __future__ import annotations

from tfscale.errors import UsageError
from tfscale.models.dtypes import at_least_float32


def check_halvings(image_size: int, times: int, *, else_fix: str = "") -> None:
    """Raises UsageError where a side of so many pixels can't be halved so often; `else_fix` is another way out."""
    if image_size % (step := 2**times):
        raise UsageError(
            f"{image_size} pixels can't be halved {times} times",
            where="task.image_size",
            fix=f"use {-(-image_size // step) * step}, a multiple of {step}{else_fix}",
        )


def normalised(pixels):
    """The input [batch, height, width, channels] of 0-255 with a mean of about 0 and a deviation of about 1."""
    from keras import layers

    return layers.Rescaling(*_normalisation(pixels.shape[-1]), dtype=at_least_float32(), name="normalise")(pixels)


def drawn_by(deviation: float | None):
    """How weights are drawn: normally (the papers' code cuts off at 2, a hundred deviations), or by Glorot's rule.

    To be called anew for every layer: one of Keras's initializers gives the same numbers at every call.
    """
    from keras import initializers

    return initializers.GlorotUniform() if deviation is None else initializers.RandomNormal(stddev=deviation)


def dropped_out(x, rate: float, name: str):
    """Stochastic depth: in training `rate` of the examples become 0 as a whole, and the rest is divided by 1 - rate.
    Keras's Dropout does it, with one draw for each example; without a rate there is no layer."""
    from keras import layers

    noise = (None, *[1] * (len(x.shape) - 1))
    return layers.Dropout(rate, noise_shape=noise, name=name)(x) if rate else x


def _normalisation(channels: int) -> tuple[list[float] | float, list[float] | float]:
    """(scale, offset) of the first layer; ImageNet's statistics for colour, a plain range for the rest."""
    if channels != 3:
        return 1 / 64, -1.0
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return [1 / (255 * d) for d in deviation], [-m / d for m, d in zip(mean, deviation, strict=True)]
