"""Saliency: the gradient by the picture, of models of which it is known, and what is painted."""

from __future__ import annotations

import numpy as np
import pytest

from tfscale.report.saliency_maps import NoPicture, SaliencyMaps, painted
from tfscale.task import Task


class Asked(Task):
    """Takes the picture as it is, and gives probabilities."""

    fixed_rows = None

    def model_inputs(self, batch):
        return batch["image"]

    def predict(self, model, batch):
        import tensorflow as tf

        return {"probabilities": tf.nn.softmax(model(batch["image"], training=False))}


@pytest.fixture(scope="module")
def picture():
    return np.random.RandomState(0).randint(0, 255, [5, 4, 3]).astype(np.uint8)


def test_of_a_linear_model_it_is_the_weights(tf, picture):
    import keras

    model = keras.Sequential([keras.Input([5, 4, 3]), keras.layers.Flatten(), keras.layers.Dense(3)])
    maps = SaliencyMaps(Asked(), model, classes=3)
    weights = np.asarray(model.layers[-1].kernel).reshape(5, 4, 3, 3)
    for answer in (0, 2):
        seen, slope = maps.of({"image": picture}, answer)
        assert (seen == picture).all()
        np.testing.assert_allclose(slope, np.abs(weights[..., answer]).max(-1), rtol=1e-5)
    model = keras.Sequential([keras.Input([5, 4, 3]), keras.layers.Flatten(), keras.layers.Dense(1)])
    weights = np.abs(np.asarray(model.layers[-1].kernel)).reshape(5, 4, 3).max(-1)
    slope = SaliencyMaps(Asked(), model, classes=2).of({"image": picture}, 0)[1]
    np.testing.assert_allclose(slope, weights, rtol=1e-5)
    with pytest.raises(NoPicture, match="no single picture"):
        maps.of({"image": picture[..., 0]}, 0)


def test_of_a_square_it_is_the_mean_of_noisy_copies(tf, picture):
    """The gradient of x² is 2 x, whose mean over copies of x with little noise is near to it; of a model with several
    outputs it is that of the probability."""
    import keras

    inputs = keras.Input([5, 4, 3])
    squares = keras.layers.Flatten()(keras.ops.square(inputs / 255.0))
    both = keras.layers.Dense(2, kernel_initializer="ones")(squares)
    seen, slope = SaliencyMaps(Asked(), keras.Model(inputs, both), classes=2).of({"image": picture}, 1)
    exact = (2 * picture.astype(float) / 255**2).max(-1)
    np.testing.assert_allclose(slope, exact, atol=3 * 2 * 0.1 / 255 / np.sqrt(8) * 1.2)
    alone = Asked()
    alone.fixed_rows = 1  # then there is no noise
    np.testing.assert_allclose(
        SaliencyMaps(alone, keras.Model(inputs, both), 2).of({"image": picture}, 1)[1], exact, rtol=1e-5
    )
    flat = SaliencyMaps(alone, keras.Model(inputs, both), classes=3)  # its outputs are no classes
    assert flat.of({"image": picture}, 1)[1].max() < 1e-6  # both probabilities are always a half
    _, none = seen, keras.Model(inputs, keras.layers.Dense(2)(keras.ops.stop_gradient(squares)))
    with pytest.raises(NoPicture, match="no gradient"):
        SaliencyMaps(alone, none, 2).of({"image": picture}, 1)


def test_the_largest_slopes_are_red(picture):
    slope = np.zeros([5, 4])
    slope[2, 1] = 3.0
    shown = painted(picture.astype(np.float32), slope)
    red = shown[..., 0].astype(int) - shown[..., 1]
    assert shown.dtype == np.uint8 and red[2, 1] > 150 and np.delete(red.ravel(), 2 * 4 + 1).max() == 0
    assert painted(np.zeros([3, 3, 1], np.float32), np.zeros([3, 3])).shape == (3, 3, 3)
