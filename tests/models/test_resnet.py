from __future__ import annotations

import math

import pytest

from tfscale.models import resnet


@pytest.fixture(autouse=True)
def _float32(tf, policy):
    policy("float32")


def build(depth, image_size=64, channels=3, num_classes=1000, width=None):
    width = width or (64 if depth in resnet.IMAGENET else 16)
    shape = {"width": width, "image_size": image_size, "channels": channels, "num_classes": num_classes}
    return resnet.build(depth, **shape), resnet.footprint(depth, **shape)


def parameters(model) -> int:
    return sum(math.prod(v.shape) for v in model.trainable_variables)


# 18-152: as published with torchvision, whose ResNets are v1.5 too
@pytest.mark.parametrize(
    ("depth", "count"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)]
)
def test_parameter_counts_of_the_imagenet_family(depth, count):
    assert resnet.footprint(depth, width=64, image_size=224, channels=3, num_classes=1000).parameters == count


def test_resnet50_has_the_published_parameters():
    model, foreseen = build(50)
    assert parameters(model) == foreseen.parameters == 25_557_032


@pytest.mark.parametrize(("depth", "size"), [(18, 64), (50, 75), (20, 28), (32, 32), (110, 29)])
def test_footprint_is_the_built_model(tf, depth, size):
    """Parameters and activation bytes exactly; FLOPs are in tests/measures/test_flops.py."""
    import keras

    model, foreseen = build(depth, image_size=size, num_classes=10)
    assert foreseen.parameters == parameters(model)
    kept = [layer.output for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.ReLU)]
    elements = size * size * 3 + sum(math.prod(t.shape[1:]) for t in kept)
    assert foreseen.activation_bytes == 4 * elements


def test_v15_strides_in_the_three_by_three():
    model, _ = build(50)
    strided = [layer.kernel_size for layer in model.layers if "conv" in layer.name and layer.strides == (2, 2)]
    assert sorted(strided) == [(1, 1)] * 3 + [(3, 3)] * 3 + [(7, 7)]  # shortcuts, blocks, stem


def test_last_batch_norm_of_every_block_starts_at_zero():
    model, _ = build(20, 28)
    zeros = [layer.name for layer in model.layers if "bn" in layer.name and not layer.gamma.numpy().any()]
    assert len(zeros) == 9
