from __future__ import annotations

import numpy as np
import pytest

from tfscale.models.ddim import Schedule, denoised, sampled


def test_the_rates_follow_a_cosine_between_their_bounds(tf):
    signal, noise = (rate.numpy() for rate in Schedule(0.02, 0.95).rates(tf.linspace(0.0, 1.0, 11)))
    np.testing.assert_allclose(signal**2 + noise**2, 1, rtol=1e-6)
    assert (signal[0], signal[-1]) == pytest.approx((0.95, 0.02), rel=1e-5)
    np.testing.assert_allclose(np.diff(np.arccos(signal)), (np.arccos(0.02) - np.arccos(0.95)) / 10, rtol=1e-4)


def test_noise_becomes_pictures_as_the_exact_model_of_a_known_distribution_says(tf):
    """Of pixels drawn from a normal distribution the best prediction of the noise is known, and so is where noise ends: as
    many deviations from the mean as it began, of which the last prediction is a share."""
    mean, deviation, schedule = 0.3, 0.1, Schedule(0.02, 0.999)

    def model(inputs, training):
        noisy, noise = inputs["image"], tf.sqrt(inputs["noise_variance"])
        signal = tf.sqrt(1 - noise**2)
        return noise * (noisy - signal * mean) / (signal**2 * deviation**2 + noise**2)

    noise = tf.random.stateless_normal([4, 8, 8, 1], [3, 4], dtype=tf.float64)
    images = sampled(model, noise, schedule, steps=400).numpy()

    def spread(time):
        signal, noise = schedule.rates(tf.constant(time, tf.float64))
        return signal, tf.sqrt((signal * deviation) ** 2 + noise**2)

    signal, whole = spread(1.0)
    deviations = (noise - signal * mean) / whole
    signal, whole = spread(1 / 400)
    np.testing.assert_allclose(images, mean + deviation * signal * deviation / whole * deviations, atol=0.003)
    assert np.abs(sampled(model, noise, schedule, steps=4).numpy() - images).max() > 0.02  # few steps are coarse


def test_a_picture_is_cut_off_where_pixels_end(tf):
    rates = (tf.fill([1, 1, 1, 1], 0.1), tf.fill([1, 1, 1, 1], 0.9))
    noise, image = denoised(lambda inputs, training: 0 * inputs["image"], tf.ones([1, 2, 2, 1]), rates, training=False)
    assert (noise.numpy() == 0).all() and (image.numpy() == 1).all()  # and not 10
