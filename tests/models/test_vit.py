"""Vision transformers and ConvNeXts: what is declared of them, what is drawn, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tfscale.recipes.convnext import ConvNeXt
from tfscale.recipes.vit import ViT

from tfscale.errors import UsageError

DIGITS = {"image_size": 28, "channels": 1, "num_classes": 10}
TINY = [
    ViT(variant="digits", width=16, depth=2, heads=2, drop_path=0.2, **DIGITS),
    ViT(variant="digits", depth=1, pool="mean", patch=7, **DIGITS),
    ConvNeXt(variant="digits", depths=[1, 2], widths=[8, 16], drop_path=0.2, **DIGITS),
    ConvNeXt(variant="digits", layer_scale=0.0, **{**DIGITS, "image_size": 30}),
]


@pytest.mark.parametrize("task", TINY, ids=lambda t: f"{type(t).__name__}-{t.variant}-{t.patch}")
def test_the_declared_cost_is_that_of_the_model(tf, policy, task):
    from tfscale.measures.flops import footprint_of

    policy("float32")
    model, size = task.build_model(), task.image_size
    examples = {"image": tf.zeros([2, size, size, 1], tf.uint8), "label": tf.zeros([2], tf.int64)}
    counted = footprint_of(lambda batch: task.loss(model, batch, training=True)[0], model, examples)
    declared = task.footprint()
    assert declared.parameters == counted.parameters == sum(math.prod(v.shape) for v in model.trainable_variables)
    assert declared.forward_flops == counted.forward_flops
    assert declared.activation_bytes == pytest.approx(counted.activation_bytes, rel=0.08)


def test_stochastic_depth_leaves_out_whole_examples_and_grows_the_rest(tf, policy):
    from tfscale.models.picture_layers import dropped_out

    policy("float32")
    import keras

    x = keras.Input((3, 4))
    model = keras.Model(x, dropped_out(x, 0.25, "some"))
    ones = np.ones((4000, 3, 4), "float32")
    found = model(ones, training=True).numpy().reshape(4000, 12)
    assert (found == found[:, :1]).all() and set(np.unique(found)) == {0.0, np.float32(1 / 0.75)}
    assert (found[:, 0] == 0).mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(model(ones, training=False), ones)
    assert dropped_out(x, 0.0, "none") is x


def test_the_share_of_what_is_left_out_rises_with_depth(tf, policy):
    policy("float32")
    for task, first, last in (
        (ViT(variant="digits", depth=3, drop_path=0.2, **DIGITS), "block_1_attention", "block_2_dense"),
        (ConvNeXt(variant="digits", depths=[1, 2], widths=[8, 8], drop_path=0.2, **DIGITS), "stage_1_block_0", "stage_1_block_1"),
    ):  # fmt: skip
        model = task.build_model()
        assert [model.get_layer(f"{name}_dropped").rate for name in (first, last)] == pytest.approx([0.1, 0.2])


def test_weights_are_drawn_as_asked(tf, policy):
    policy("float32")
    for made, where in ((ViT, "block_0_dense_1"), (ConvNeXt, "stage_2_block_1_dense_1")):
        for deviation, wanted in ((0.02, 0.02), (None, math.sqrt(2 / (96 + 384)))):
            width = {"width": 96} if made is ViT else {}
            model = made(variant="digits", deviation=deviation, **width, **DIGITS).build_model()
            assert np.std(model.get_layer(where).kernel) == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("task", TINY[::2], ids=lambda t: type(t).__name__)
def test_no_decay_of_vectors_tokens_positions_and_scales(tf, policy, task):
    from tfscale.composition.hydra_compose import compose
    from tfscale.optimizers.build import build_optimizer

    policy("float32")
    config = compose([f"+recipe={'vit' if isinstance(task, ViT) else 'convnext'}"])
    optimizer = build_optimizer(config.optimizer, steps_per_epoch=1, total_steps=1)
    variables = task.build_model().trainable_variables
    optimizer.build(variables)
    decayed = {v.path.split("/", 1)[1] for v in variables if optimizer._use_weight_decay(v)}
    assert {path.split("/")[-1] for path in decayed} == {"kernel"}
    left = [v.path for v in variables if not optimizer._use_weight_decay(v)]
    scales = [path for path in left if "embeddings" in path]
    assert len(scales) == (2 if isinstance(task, ViT) else 3)


def test_an_export_holds_both_files(tf, policy, tmp_path):
    """Checked by a process without tfscale; trained in bfloat16, as its layers of ours are, and with stochastic depth."""
    from tfscale.export.export_folder import read_about
    from tfscale.export.verified import export_model, rehearse
    from tfscale.state.train_state import TrainState

    policy("mixed_bfloat16")
    picture = tf.io.encode_png(np.random.RandomState(0).randint(0, 256, (28, 28, 1), np.uint8)).numpy()
    for task in TINY[::2]:
        state = TrainState(task.build_model(), optimizer=None)
        samples = {"image": [picture, picture]}
        assert rehearse(task, state.model, samples) == ""
        about = read_about(export_model(task, state, tmp_path / type(task).__name__, samples=samples))
        assert about["left_out"] == {} and max(about["differences"].values()) < 1e-5


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ViT(variant="s"), "there is no ViT 's'"),
        (lambda: ViT(pool="max"), "nothing is pooled by 'max'"),
        (lambda: ViT(drop_path=1.0), "share of the examples"),
        (lambda: ViT(heads=5), "5 heads can't share a width of 384"),
        (lambda: ViT(depth=0), "depth is 0"),
        (lambda: ViT(image_size=60), "patches of 16 pixels don't cover pictures of 60"),
        (lambda: ConvNeXt(variant="M"), "there is no ConvNeXt 'M'"),
        (lambda: ConvNeXt(depths=[1, 1]), "2 depths and 4 widths"),
        (lambda: ConvNeXt(depths=[], widths=[]), "0 depths and 0 widths"),
        (lambda: ConvNeXt(widths=[1, 0, 1, 1]), "widths is .1, 0, 1, 1."),
        (lambda: ConvNeXt(patch=0), "patch is 0"),
        (lambda: ConvNeXt(layer_scale=-1.0), "below 0"),
        (lambda: ViT(deviation=0.0), "a deviation of 0 draws nothing"),
        (lambda: ConvNeXt(drop_path=-0.1), "share of the examples"),
        (lambda: ConvNeXt(augment="imagnet"), "unknown augmentation"),
    ],
)
def test_what_makes_no_model_is_refused(make, said):
    with pytest.raises(UsageError, match=said):
        make()
