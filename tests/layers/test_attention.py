"""The fused attention against Keras's own: results, gradients, what is left to Keras, and files."""

from __future__ import annotations

import numpy as np
import pytest

BATCH, LENGTH, WIDTH = 3, 5, 12


@pytest.fixture
def pair(tf):
    import keras

    from tfscale.layers.attention import FusedAttention

    def build(dtype="float32", **arguments):
        layers = [
            kind(3, 4, dtype=dtype, seed=7, bias_initializer="glorot_uniform", **arguments)
            for kind in (FusedAttention, keras.layers.MultiHeadAttention)
        ]
        for layer in layers:
            layer.build((None, LENGTH, WIDTH), (None, LENGTH, WIDTH))
        layers[0].set_weights(layers[1].get_weights())
        return layers

    return build


def step(tf, layer, x, **call):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, x, **call)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
    return [y, *tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])]


def assert_equal(tf, ours, stock, tolerance):
    """Within the tolerance times the largest number of the result, and of all gradients: a key's bias changes no share,
    so that its own is rounding alone."""
    largest = [float(tf.reduce_max(tf.abs(tf.cast(b, tf.float64)))) for b in stock]
    scales = [largest[0]] + [max(largest[1:])] * len(largest[1:])
    for a, b, scale in zip(ours, stock, scales, strict=True):
        np.testing.assert_allclose(tf.cast(a, tf.float64), tf.cast(b, tf.float64), atol=tolerance * scale, rtol=0)


def inputs(tf, dtype="float32"):
    return tf.cast(tf.random.stateless_normal([BATCH, LENGTH, WIDTH], [1, 2]), "bfloat16" if "bf" in dtype else dtype)


def mask(kind):
    some = np.random.RandomState(0).uniform(size=(BATCH, LENGTH, LENGTH)) < 0.6
    some |= np.eye(LENGTH, dtype=bool)  # everything sees itself
    return {"none": None, "each": some, "heads": np.stack([some, some[::-1], some], 1), "one": some[0]}[kind]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-6), ("mixed_bfloat16", 3e-2), ("float64", 1e-12)])
@pytest.mark.parametrize(
    ("seen", "call", "arguments"),
    [
        ("none", {}, {}),
        ("none", {"use_causal_mask": True}, {"use_bias": False, "value_dim": 6}),
        ("each", {}, {"use_bias": False}),
        ("heads", {"use_causal_mask": True}, {}),
        ("one", {"training": True}, {"dropout": 0.3}),
    ],
)
def test_equals_keras(tf, pair, dtype, tolerance, seen, call, arguments):
    x = inputs(tf, dtype)
    ours, stock = (step(tf, layer, x, attention_mask=mask(seen), **call) for layer in pair(dtype, **arguments))
    assert ours[0].dtype == stock[0].dtype
    assert_equal(tf, ours, stock, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-6), ("mixed_bfloat16", 3e-2)])
@pytest.mark.parametrize("seen", ["none", "causal", "some", "some and causal"])
def test_equals_keras_where_training_is_by_kernels_of_xla(tf, dtype, tolerance, seen):
    import keras

    from tfscale.engine.fused_kernels import fused_kernels
    from tfscale.layers.attention import FusedAttention

    keras.utils.set_random_seed(0)  # of biases: sums in bfloat16 over other ones may differ by more
    length, width, call = 64, 96, {"training": True, "use_causal_mask": "causal" in seen}
    layers = [
        kind(3, 32, dtype=dtype, seed=7, bias_initializer="glorot_uniform")
        for kind in (FusedAttention, keras.layers.MultiHeadAttention)
    ]
    for layer in layers:
        layer.build((None, length, width), (None, length, width))
    layers[0].set_weights(layers[1].get_weights())
    x = tf.cast(tf.random.stateless_normal([2, length, width], [1, 2]), layers[0].compute_dtype)
    if "some" in seen:
        allowed = np.random.RandomState(0).uniform(size=(2, length, length)) < 0.3
        allowed[:, 5] = False  # a query that sees nothing
        call["attention_mask"] = allowed
    traced = [tf.function(lambda x, layer=layer: step(tf, layer, x, **call)) for layer in layers]
    with fused_kernels(True):
        graph = traced[0].get_concrete_function(x).graph
    called = {str(op.get_attr("f").name) for op in graph.get_operations() if op.type.endswith("PartitionedCall")}
    assert any("scaled" in name for name in called) and any("shared_back" in name for name in called), called
    plain = tf.function(lambda x: layers[0](x, x, training=True)).get_concrete_function(x).graph
    assert not [op for op in plain.get_operations() if op.type.endswith("PartitionedCall")]
    ours, stock = (function(x) for function in traced)
    assert_equal(tf, ours, stock, tolerance)


def test_shares_have_second_gradients(tf):
    from tfscale.layers.fused_operations import shares_of

    scores = tf.random.stateless_normal([2, 3, 8, 8], [3, 4])
    seen = tf.linalg.band_part(tf.ones([8, 8], tf.bool), -1, 0)

    def plain(scores):
        return tf.nn.softmax(tf.where(seen, 0.5 * scores, 0.7 * tf.float32.min))

    found = []
    for shares in (lambda scores: shares_of(scores, 0.5, seen), plain):

        @tf.function
        def second(scores, shares=shares):
            with tf.GradientTape() as outer:
                outer.watch(scores)
                with tf.GradientTape() as inner:
                    inner.watch(scores)
                    loss = tf.reduce_sum(shares(scores) ** 3)
                loss = tf.reduce_sum(inner.gradient(loss, scores) ** 2)
            return outer.gradient(loss, scores)

        found.append(second(scores))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_it_makes_one_product_of_three_and_no_einsum(tf, pair):
    fused, _ = pair()
    graph = tf.function(lambda x: fused(x, x)).get_concrete_function(inputs(tf)).graph
    types = [op.type for op in graph.get_operations()]
    assert types.count("MatMul") == 2 and types.count("BatchMatMulV2") == 2 and "Einsum" not in types


@pytest.mark.parametrize("case", ["other keys", "scores", "keras mask", "gate", "unknown length"])
def test_what_else_keras_can_gives_the_same(tf, pair, case):
    import keras

    x, other, call = inputs(tf), inputs(tf)[:, :3] + 1, {}
    layers = pair(**({"use_gate": True} if case == "gate" else {}))
    if case == "other keys":
        call = {"value": other}
    elif case == "scores":
        call = {"value": x, "return_attention_scores": True}
    answers = []
    for layer in layers:
        if case == "keras mask":
            seen = keras.layers.Masking()(tf.concat([x[:, :3], tf.zeros([BATCH, 2, WIDTH])], 1))
            answers.append(layer(seen, seen))
        elif case == "unknown length":
            spec = tf.TensorSpec([None, None, WIDTH])
            answers.append(tf.function(lambda x: layer(x, x), input_signature=[spec])(x))  # noqa: B023
        else:
            answers.append(layer(x, **(call or {"value": x})))
    for a, b in zip(*(tf.nest.flatten(answer) for answer in answers), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_stock_keras_opens_a_file_of_it(tf, cli, tmp_path):
    import keras

    from tfscale.export.keras_file import full_precision_copy, save
    from tfscale.layers.attention import FusedAttention

    tokens = keras.Input((LENGTH, WIDTH))
    model = keras.Model(tokens, FusedAttention(2, 6, dtype="mixed_bfloat16", dropout=0.1)(tokens, tokens))
    save(full_precision_copy(model), tmp_path / "model.keras")
    x = inputs(tf).numpy()
    np.save(tmp_path / "x.npy", x)
    read = "import keras, numpy as np, sys; m = keras.models.load_model('model.keras'); "
    told = "np.save('y.npy', m(np.load('x.npy'))); print(type(m.layers[-1]).__name__, 'tfscale' in sys.modules)"
    ended = cli(program=("-c", read + told))
    assert ended.out.split() == ["MultiHeadAttention", "False"], ended.err
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), full_precision_copy(model)(x), atol=1e-6)
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(x), model(x))
