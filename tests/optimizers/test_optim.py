from __future__ import annotations

import numpy as np
import pytest

from tfscale.config.optimizer_keys import OWN_KEYS
from tfscale.config.schema import OptimizerConfig
from tfscale.errors import UsageError


@pytest.fixture
def optim(tf):
    from tfscale.optimizers import build as optim

    return optim


@pytest.fixture
def fused(tf):
    from tfscale.optimizers import fused

    return fused


def trained(tf, optimizer, steps=5, l2=0.0, built=lambda optimizer: None):
    import keras

    variables = [
        keras.Variable(np.linspace(-1, 1, 6).reshape(2, 3), dtype="float32", name="kernel"),
        keras.Variable([0.5], dtype="float32", name="bias"),
    ]
    optimizer.build(variables)
    built(optimizer)

    @tf.function
    def step(i):
        gradients = [tf.sin(tf.cast(i, tf.float32) + tf.convert_to_tensor(v)) for v in variables]
        gradients[0] += l2 * tf.convert_to_tensor(variables[0])
        optimizer.apply(gradients, variables)

    for i in range(steps):
        step(tf.constant(i))
    return [v.numpy() for v in variables]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fused_momentum_is_keras_sgd(tf, fused, nesterov, momentum):
    import keras

    settings = {"learning_rate": 0.1, "momentum": momentum, "nesterov": nesterov}
    ours = trained(tf, fused.SGD(**settings))
    theirs = trained(tf, keras.optimizers.SGD(**settings))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_fused_adam_is_keras_adam(tf, fused, name, amsgrad):
    import keras

    settings = {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "weight_decay": 0.01, "amsgrad": amsgrad}
    ours, theirs = (fused.Adam, keras.optimizers.Adam) if name == "adam" else (fused.AdamW, keras.optimizers.AdamW)
    for a, b in zip(trained(tf, ours(**settings)), trained(tf, theirs(**settings)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_in_float64_the_fused_update_is_keras_to_the_bit(tf, fused, name):
    """A Python number that is rounded to float32 on its way would differ from what a sparse gradient is updated by."""
    import keras

    def trained(kind):
        variable = keras.Variable(np.linspace(-1, 1, 6), dtype="float64")
        optimizer = kind(learning_rate=0.1, **({"momentum": 0.9} if name == "SGD" else {"beta_1": 0.8, "beta_2": 0.9}))
        optimizer.build([variable])
        for i in range(3):
            optimizer.apply([tf.sin(tf.constant(i, tf.float64) + tf.convert_to_tensor(variable))], [variable])
        return variable.numpy()

    np.testing.assert_allclose(trained(getattr(fused, name)), trained(getattr(keras.optimizers, name)), rtol=1e-15)


def test_fused_adam_leaves_sparse_gradients_to_keras(tf, fused):
    import keras

    def table(kind):
        variable, optimizer = keras.Variable(np.ones((4, 2), np.float32)), kind(0.1)
        optimizer.build([variable])
        for row in (1, 2, 1):
            optimizer.apply([tf.IndexedSlices(tf.constant([[1.0, -2.0]]), tf.constant([row]), (4, 2))], [variable])
        return variable.numpy()

    np.testing.assert_array_equal(table(fused.Adam), table(keras.optimizers.Adam))


def test_weight_decay_is_an_l2_loss_that_spares_biases(tf, fused):
    import keras

    ours = trained(tf, fused.SGD(learning_rate=0.1, momentum=0.9, l2=0.01, no_decay=("bias",)))
    theirs = trained(tf, keras.optimizers.SGD(learning_rate=0.1, momentum=0.9), l2=0.01)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(("name", "kernel"), [("SGD", "ResourceApplyKerasMomentum"), ("Adam", "ResourceApplyAdam")])
def test_the_update_is_one_kernel_per_variable(tf, fused, name, kernel):
    import keras

    more = {"momentum": 0.9} if name == "SGD" else {}
    variable, optimizer = keras.Variable([1.0, 2.0]), getattr(fused, name)(learning_rate=0.1, **more)
    optimizer.build([variable])
    graph = tf.function(lambda: optimizer.apply([tf.constant([1.0, 1.0])], [variable])).get_concrete_function().graph
    types = [op.type for op in graph.get_operations()]
    assert types.count(kernel) == 1
    assert types.count("AssignVariableOp") == 1  # the counter of iterations


def rates(optim, steps, **settings):
    config = OptimizerConfig(learning_rate=0.4, **settings)
    schedule = optim.build_optimizer(config, steps_per_epoch=10, total_steps=100)._learning_rate
    return [float(schedule(i)) for i in steps]


def test_warm_up_then_steps(optim):
    settings = {"schedule": "step", "warmup": "1ep", "warmup_from": 0.1, "decay_at": ["30%", "60st"], "decay_by": 0.1}
    got = rates(optim, (0, 4, 9, 10, 29, 30, 59, 60, 99), **settings)
    np.testing.assert_allclose(got, [0.13, 0.25, 0.4, 0.4, 0.4, 0.04, 0.04, 0.004, 0.004], rtol=1e-5)


def test_cosine_and_linear_end_where_they_should(optim):
    np.testing.assert_allclose(rates(optim, (0, 50, 100, 200), schedule="cosine"), [0.4, 0.2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(rates(optim, (0, 50, 100), schedule="linear", final=0.5), [0.4, 0.3, 0.2], rtol=1e-5)
    np.testing.assert_allclose(rates(optim, (10, 55), schedule="cosine", warmup="10%"), [0.4, 0.2], rtol=1e-5)


def test_exponential_falls_or_rises_by_the_same_share_in_every_step(optim):
    np.testing.assert_allclose(
        rates(optim, (0, 50, 100, 200), schedule="exponential"), [0.4, 0.04, 4e-3, 4e-3], rtol=1e-5
    )
    rising = rates(optim, (0, 50, 100), schedule="exponential", final=1e4)
    np.testing.assert_allclose(rising, [0.4, 40, 4000], rtol=1e-5)
    with pytest.raises(UsageError, match="never comes to nothing"):
        rates(optim, (0,), schedule="exponential", final=0.0)


def test_one_cycle_rises_and_falls_by_cosines_as_pytorch_has_it(optim):
    got = rates(optim, (0, 15, 30, 65, 100), schedule="one_cycle")
    np.testing.assert_allclose(got, [0.016, 0.208, 0.4, 0.2, 1.6e-6], atol=2e-6)


def test_warm_up_stable_decay(optim):
    got = rates(optim, (4, 10, 79, 90, 100), schedule="wsd", warmup="1ep", decay_over="20%", final=0.1)
    np.testing.assert_allclose(got, [0.2, 0.4, 0.4, 0.22, 0.04], rtol=1e-5)
    short = rates(optim, (49, 50, 75, 100), schedule="wsd", warmup="50%", decay_over="90%")
    np.testing.assert_allclose(short, [0.4, 0.4, 0.2, 0.0], atol=1e-6)  # it doesn't begin before the warm-up ends


def test_the_rate_follows_the_batch_and_that_is_said(optim, messages):
    config = OptimizerConfig(name="sgd", learning_rate=0.1, reference_batch=256)

    def made(batch):
        steps = {"steps_per_epoch": 10, "total_steps": 100}
        return float(optim.build_optimizer(config, **steps, global_batch=batch).learning_rate)

    assert made(256) == pytest.approx(0.1) and not messages.text
    assert made(1024) == pytest.approx(0.4)
    assert "learning rate 0.4: 0.1 is for a batch of 256, and train.global_batch is 1024" in messages.text


def test_lars_is_the_papers(tf, optim):
    """Written down again in NumPy from algorithm 1 of You et al. (2017)."""
    rate, momentum, decay, trust = 0.5, 0.9, 0.01, 0.02
    config = OptimizerConfig(
        name="lars", learning_rate=rate, weight_decay=decay, trust_coefficient=trust, no_decay=["bias"]
    )
    ours = trained(tf, optim.build_optimizer(config, steps_per_epoch=1, total_steps=5))
    kernel, bias, moved = np.linspace(-1, 1, 6).reshape(2, 3), np.array([0.5]), [0.0, 0.0]
    for i in range(5):
        slopes = np.sin(i + kernel), np.sin(i + bias)
        size, slope = np.linalg.norm(kernel), np.linalg.norm(slopes[0])
        local = trust * size / (slope + decay * size)
        moved[0] = momentum * moved[0] + rate * local * (slopes[0] + decay * kernel)
        moved[1] = momentum * moved[1] + rate * slopes[1]
        kernel, bias = kernel - moved[0], bias - moved[1]
    np.testing.assert_allclose(ours[0], kernel, rtol=1e-5)
    np.testing.assert_allclose(ours[1], bias, rtol=1e-5)


@pytest.mark.parametrize("name", OWN_KEYS)
def test_every_optimizer_trains(tf, optim, name):
    rate = 10.0 if name == "lars" else 0.01  # a rate of 1 moves by a thousandth
    config = OptimizerConfig(name=name, learning_rate=rate, weight_decay=0.001)
    before = [np.linspace(-1, 1, 6).reshape(2, 3), [0.5]]
    after = trained(tf, optim.build_optimizer(config, steps_per_epoch=1, total_steps=6))
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("name", OWN_KEYS)
def test_a_layer_learns_as_it_would_with_its_own_rate(tf, optim, name):
    """The kernel at a quarter of the rate, of weight decay too, and the bias at the whole one."""
    from tfscale.hooks.keras_hooks import scale_rates

    rate = 10.0 if name == "lars" else 0.01

    def made(rate):
        config = OptimizerConfig(name=name, learning_rate=rate, weight_decay=0.1)
        return optim.build_optimizer(config, steps_per_epoch=1, total_steps=6)

    whole, quarter = trained(tf, made(rate)), trained(tf, made(rate / 4))
    kernel, bias = trained(tf, made(rate), built=lambda optimizer: scale_rates(optimizer, [0.25, 1.0]))
    np.testing.assert_allclose(kernel, quarter[0], rtol=2e-6)
    np.testing.assert_array_equal(bias, whole[1])
    assert np.abs(whole[0] - kernel).max() > 1e-4


NAMED = {
    "resnet": (["stem_conv", "stem_bn", "s0b0_a_conv", "s0b0_skip_bn", "s2b1_b_conv", "logits"],
               ["stem_conv", "stem_conv", "s0b0", "s0b0", "s2b1", "logits"]),
    "transformer": (["token_embedding", "position_embedding", "block_0_dense_1", "block_0_norm", "block_11_dense_2", "norm", "logits"],
                    ["token_embedding", "token_embedding", "block_0", "block_0", "block_11", "norm", "norm"]),
    "applications": (["conv1_conv", "conv2_block1_1_conv", "conv2_block1_1_bn", "conv2_block2_0_conv", "predictions"],
                     ["conv1", "conv2_block1", "conv2_block1", "conv2_block2", "predictions"]),
    "convnext": (["stem", "tiny_stage_0_block_0_dw_conv", "tiny_stage_0_block_1_dw_conv"],
                 ["stem", "tiny_stage_0_block_0", "tiny_stage_0_block_1"]),
    "hub": (["backbone/token_embedding", "backbone/transformer_layer_0/self_attention/query",
             "backbone/transformer_layer_0/norm_1", "backbone/transformer_layer_1/dense", "logits"],
            ["backbone/token_embedding", "transformer_layer_0", "transformer_layer_0", "transformer_layer_1", "logits"]),
    "by Keras": (["functional_3/conv2d", "functional_3/conv2d_1", "functional_3/conv2d_transpose_2", "dense"],
                 ["functional_3/conv2d", "conv2d_1", "conv2d_transpose_2", "dense"]),
    "without numbers": (["hidden", "out"], ["hidden", "out"]),
}  # fmt: skip


@pytest.mark.parametrize("names", NAMED.values(), ids=NAMED)
def test_what_is_a_layer(names):
    from tfscale.optimizers.layer_decay import layers_by_depth

    layers, wanted = names
    assert layers_by_depth([f"{layer}/kernel" for layer in layers]) == wanted


def test_layer_decay_in_a_run_that_is_resumed(tf, tmp_path):
    """In two attempts to the same bits as in one."""
    import keras
    from support.tiny_run import Classify, fit_tiny

    from tfscale.errors import UsageError

    class Linear(Classify):
        def build_model(self):
            return keras.Sequential([keras.Input((6,), name="x"), keras.layers.Dense(2, name="out")])

    decayed = {"layer_decay": 0.5}
    _, said, whole = fit_tiny(tmp_path / "whole", optimizer=decayed)
    assert "layer decay 0.5: 2 layers, from 0.5 of the learning rate (hidden) to 1 (out)" in said
    fit_tiny(tmp_path / "parts", optimizer=decayed, train={"until": "13st"})
    result, _, parts = fit_tiny(tmp_path / "parts", optimizer=decayed)
    assert result.step == 30 and weights(whole) == weights(parts)
    with pytest.raises(UsageError, match="the model has one layer with weights"):
        fit_tiny(tmp_path / "one", optimizer=decayed, task=Linear())


def weights(run_dir):
    (file,) = (run_dir / "checkpoints" / "step-000000030").glob("*.data*")
    return file.read_bytes()
