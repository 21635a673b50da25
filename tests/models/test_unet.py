from __future__ import annotations

import math

import pytest
from tfscale.recipes.unet import UNet

from tfscale.composition.hydra_compose import compose
from tfscale.models import unet


def test_the_papers_network_has_its_parameters_and_sizes(tf):
    """31.03 million; 572 pixels are 388 behind it, and 28 at its lowest level (Ronneberger et al., 2015, figure 1)."""
    task = compose(["+recipe=unet_paper", "data.name=any"]).task
    shape = unet.Shape(4, 64, 572, 1, 2, padded=False)
    convs = {conv.name: conv for conv in unet.layout(shape)}
    assert (convs["down4_b"].size_out, convs["down4_b"].channels_out, unet.answered_size(shape)) == (28, 1024, 388)
    assert sum(conv.kernel == 3 for conv in convs.values()) + 4 + 1 == 23  # "23 convolutional layers" with 4 up and 1x1
    assert task.footprint() == unet.footprint(shape)
    assert task.footprint().parameters == 31_030_658


@pytest.mark.parametrize(
    "shape",
    [
        unet.Shape(4, 2, 48, 3, 5),
        unet.Shape(2, 4, 84, 1, 2, padded=False),
        unet.Shape(3, 2, 140, 4, 3, padded=False),
    ],
)
def test_footprint_is_the_built_model(tf, policy, shape):
    from tfscale.measures.flops import footprint_of, profiled_flops

    policy("float32")
    task = UNet(shape.levels, shape.width, shape.padded, 0.0, 0.0, shape.image_size, shape.channels, shape.num_classes)
    model, foreseen, answered = task.build_model(), task.footprint(), unet.answered_size(shape)
    assert model.output_shape == (None, answered, answered, shape.num_classes)
    assert foreseen.parameters == sum(math.prod(v.shape) for v in model.trainable_variables)
    batch = {
        "image": tf.zeros([2, shape.image_size, shape.image_size, shape.channels], tf.uint8),
        "mask": tf.zeros([2, answered, answered, 1], tf.uint8),
        "size": tf.fill([2, 2], 9),
        "weight": tf.ones([2]),
    }
    assert profiled_flops(task, model, batch) == pytest.approx(foreseen.forward_flops, rel=0.01)
    counted = footprint_of(lambda one: task.loss(model, one, training=True)[0], model, batch)
    logits = 4 * answered**2 * shape.num_classes  # kept in a row for each pixel, which isn't counted as an example's
    assert counted.activation_bytes + logits == pytest.approx(foreseen.activation_bytes, rel=0.1)
