"""Parameters and forward FLOPs of the models of papers: declared, and of the model built without its weights."""

from __future__ import annotations

import math

import pytest
from tfscale.recipes.convnext import ConvNeXt
from tfscale.recipes.resnet import ResNet
from tfscale.recipes.vit import ViT

# (parameters, thousand million multiply-adds of one picture of 224 pixels, to the digits that are published).
# Ours are FLOPs, 2 for a multiply-add, of matrix products and convolutions.
PUBLISHED = {
    # torchvision's table of weights (pytorch.org/vision/stable/models.html): ResNets v1.5; He et al. (2015) have 1.8, and
    # 3.8 and 7.6 for v1
    "ResNet-18": (ResNet(depth=18), 11_689_512, 1.8),
    "ResNet-50": (ResNet(depth=50), 25_557_032, 4.1),
    "ResNet-101": (ResNet(depth=101), 44_549_160, 7.8),
    # Touvron et al. (2020), table 1: 5, 22 and 86 million, exactly those of its weights; multiply-adds as timm counts them
    "ViT-Ti": (ViT(variant="Ti"), 5_717_416, 1.3),
    "ViT-S": (ViT(variant="S"), 22_050_664, 4.6),
    "ViT-B": (ViT(variant="B"), 86_567_656, 17.6),
    # Liu et al. (2022), table 1: 28.6 million, 4.5; exactly as its weights
    "ConvNeXt-T": (ConvNeXt(variant="T"), 28_589_128, 4.5),
    "ConvNeXt-B": (ConvNeXt(variant="B"), 88_591_464, 15.4),
}
IMAGENET = {"image_size": 224, "channels": 3, "num_classes": 1000}
_FAST = ("ViT-Ti", "ResNet-18")


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_declared_is_what_is_published(name):
    task, parameters, multiply_adds = PUBLISHED[name]
    found = task.for_data(IMAGENET).footprint()
    assert found.parameters == parameters
    assert round(found.forward_flops / 2e9, 1) == multiply_adds


@pytest.mark.parametrize("name", [n if n in _FAST else pytest.param(n, marks=pytest.mark.slow) for n in PUBLISHED])
def test_the_model_has_what_is_declared(tf, policy, name):
    """In a graph of TensorFlow's, whose variables have shapes and no memory until someone initialises them."""
    from tfscale.measures.flops import profiled_flops

    policy("float32")
    task = PUBLISHED[name][0].for_data(IMAGENET)
    with tf.Graph().as_default():
        model = task.build_model()
        fields = {"image": tf.zeros([1, 224, 224, 3], tf.uint8), "label": tf.zeros([1], tf.int64)}
        flops = profiled_flops(task, model, fields)
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == task.footprint().parameters
    assert flops == pytest.approx(task.footprint().forward_flops, rel=1e-3)
