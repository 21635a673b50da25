from __future__ import annotations

import math

import pytest
from tfscale.recipes.diffusion import Diffusion

from tfscale.models import diffusion


@pytest.mark.parametrize(
    "shape",
    [
        diffusion.Shape(28, 1, (16, 32, 64), 1),
        diffusion.Shape(16, 3, (6, 20), 2),
        diffusion.Shape(8, 2, (12,), 3),
    ],
)
def test_footprint_is_the_built_model(tf, policy, shape):
    from tfscale.measures.flops import footprint_of, profiled_flops

    policy("float32")
    size = shape.image_size
    task = Diffusion(shape.widths, shape.block_depth, 7, image_size=size, channels=shape.channels)
    model, foreseen = task.build_model(), task.footprint()
    assert model.output_shape == (None, size, size, shape.channels)
    assert foreseen.parameters == sum(math.prod(v.shape) for v in model.trainable_variables)
    batch = {
        "image": tf.zeros([2, size, size, shape.channels], tf.uint8),
        "noise": tf.zeros([2, size, size, shape.channels]),
        "time": tf.zeros([2]),
    }
    counted = footprint_of(lambda one: task.loss(model, one, training=True)[0], model, batch)
    assert counted.forward_flops == pytest.approx(foreseen.forward_flops, rel=0.01)
    assert counted.activation_bytes == pytest.approx(foreseen.activation_bytes, rel=0.1)
    assert profiled_flops(task, model, batch) == pytest.approx(7 * foreseen.forward_flops, rel=0.01)  # of 7 steps


def test_the_saved_model_is_made_of_what_keras_has(tf, policy, tmp_path):
    import keras

    policy("mixed_bfloat16")
    model = diffusion.build(diffusion.Shape(8, 1, (8, 16), 1))
    assert model.output.dtype == "float32"  # and all that depends on the noise level is computed in it
    exact = [v for v in model.variables if v.path.startswith(("noise/", "noise_level/"))]
    assert {v.dtype for v in exact} == {"float32"}
    model.save(tmp_path / "it.keras")
    inputs = {"image": tf.ones([2, 8, 8, 1]), "noise_variance": tf.fill([2, 1, 1, 1], 0.5)}
    again = keras.saving.load_model(tmp_path / "it.keras")
    assert (again(inputs).numpy() == model(inputs).numpy()).all()
