"""Every hook still finds in TensorFlow and Keras what it counts on; one that doesn't is named, with their versions."""

from __future__ import annotations

import functools
import inspect
import io
import zipfile
from collections.abc import Callable
from importlib import metadata
from typing import Any

import h5py
import numpy as np
import pytest
from support.tiny_run import strategy_for

from tfscale.hooks import keras_hooks, tensorflow_hooks
from tfscale.hooks.keras_hooks import (
    accumulator_of,
    answer_in_step,
    arguments_of,
    asked_metrics,
    attention_dropout,
    attention_scale,
    compiled_loss,
    function_of,
    give_mask,
    given_rate,
    is_functional,
    is_operation,
    layers_in,
    leave_gradients_as_they_are,
    lora_in_float64,
    loss_of_batch,
    losses_replaced,
    mask_of,
    moments_of,
    order_of_arrays,
    output_shape_of,
    own_statistics,
    place_in,
    scale_rates,
    seed_generators,
    single_losses,
    store_in,
    sublayers,
    uncompiled,
)
from tfscale.hooks.tensorflow_hooks import (
    behind_autograph,
    forget_global_seed,
    function_in,
    gathers,
    global_seed,
    is_deterministic,
    leave_iterators_untuned,
    logical_devices_of_a_worker,
    set_determinism,
    untuned,
)

TESTED: set[str] = set()


def of(*hooks: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The test of these hooks: what goes wrong in it names them."""
    names = " and ".join(f"{hook.__module__}.{hook.__name__}" for hook in hooks)
    TESTED.update(hook.__name__ for hook in hooks)

    def named(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*args, **kwargs):
            try:
                test(*args, **kwargs)
            except Exception as error:
                installed = ", ".join(f"{name} {metadata.version(name)}" for name in ("tensorflow", "keras"))
                raise AssertionError(
                    f"{names}: what it counts on is gone or otherwise in {installed}: {type(error).__name__}: {error}"
                ) from error

        return run

    return named


@pytest.fixture(scope="module")
def keras(tf):
    import keras

    return keras


@pytest.fixture
def compiled(keras):
    """A model with a penalty, two outputs with a loss each, and metrics."""
    inputs = keras.Input((3,))
    first = keras.layers.Dense(1, kernel_regularizer="l2", name="first")(inputs)
    second = keras.layers.Dense(1, name="second")(inputs)
    model = keras.Model(inputs, [first, second])
    model.compile("sgd", loss=["mse", "mae"], metrics=[["mae"], ["mse"]], weighted_metrics=[["mse"], None])
    return model


def test_every_hook_has_a_test():
    found = {
        name
        for module in (keras_hooks, tensorflow_hooks)
        for name, thing in inspect.getmembers(module, inspect.isfunction)
        if thing.__module__ == module.__name__ and not name.startswith("_")
    }
    assert found <= TESTED


# -- layers


@of(layers_in, sublayers)
def test_layers_in(keras):
    shared = keras.layers.Dense(2)
    inner = keras.Sequential([shared, keras.layers.Bidirectional(keras.layers.LSTM(2))])
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.Dense(2), inner])
    both = inner.layers[1]
    found = layers_in(model)
    assert {id(layer) for layer in found} >= {id(one) for one in (model, inner, shared, both, both.forward_layer)}
    assert len({id(layer) for layer in found}) == len(found)
    assert model not in layers_in(model, include_self=False)
    assert layers_in(shared, include_self=False) == []
    assert [one for one in sublayers(model) if one in (inner, shared)] == [inner]
    assert sublayers(both) == [both.forward_layer, both.backward_layer]


@of(store_in)
def test_store_in(keras, tf):
    dense, norm = keras.layers.Dense(2, dtype="mixed_bfloat16"), keras.layers.BatchNormalization(dtype="mixed_bfloat16")
    given = tf.constant([[0.3, 7.0]])
    norm(dense(given))
    before, held = dense(given), dense.kernel.value
    assert store_in(dense.kernel, "bfloat16") and not store_in(norm.moving_variance, "bfloat16")
    assert (dense.kernel.value.dtype, norm.moving_variance.value.dtype) == (tf.bfloat16, tf.float32)
    np.testing.assert_array_equal(tf.cast(held, tf.bfloat16), dense.kernel.value)
    np.testing.assert_array_equal(before, dense(given))
    function = tf.function(dense, autograph=False).get_concrete_function(tf.TensorSpec([None, 2]))
    assert {one.dtype for one in function.captured_inputs} == {tf.resource}
    assert dense.kernel.value.handle in function.captured_inputs


@of(lora_in_float64)
def test_lora_in_float64(keras):
    before, found = keras.Layer.add_weight, {}
    with lora_in_float64(keras.Layer):
        for dtype in ("float64", "mixed_bfloat16"):
            layer = keras.layers.EinsumDense("ab,bc->ac", 3, dtype=dtype)
            layer.build((2, 4))
            layer.enable_lora(2)
            found[dtype] = {layer.lora_kernel_a.dtype, layer.lora_kernel_b.dtype}
    assert found == {"float64": {"float64"}, "mixed_bfloat16": {"float32"}} and keras.Layer.add_weight is before


@of(own_statistics)
def test_own_statistics(keras):
    norm = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((2,)), norm])
    assert [v.name for v in own_statistics(norm)] == ["moving_mean", "moving_variance"]
    assert own_statistics(model) == []


@of(seed_generators)
def test_seed_generators(keras):
    dropout, dense = keras.layers.Dropout(0.5), keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((2,)), dropout, dense])
    (stream,) = seed_generators(dropout)
    before = np.asarray(stream.state)
    model(np.ones((1, 2), np.float32), training=True)
    assert (np.asarray(stream.state) != before).any()
    assert seed_generators(dense) == seed_generators(model) == []


@of(attention_dropout)
def test_attention_dropout(keras):
    layer = keras.layers.MultiHeadAttention(2, 4, dropout=0.25)
    layer.build((None, 3, 8), (None, 3, 8))
    assert attention_dropout(layer).rate == 0.25 and seed_generators(attention_dropout(layer))


@of(attention_scale)
def test_attention_scale(keras):
    assert attention_scale(keras.layers.MultiHeadAttention(2, 4)) == 0.5


@of(output_shape_of)
def test_output_shape_of(keras):
    assert output_shape_of(keras.layers.Lambda(lambda x: x, output_shape=(3,))) == (3,)
    assert output_shape_of(keras.layers.Lambda(lambda x: x)) is None


@of(is_functional)
def test_is_functional(keras, compiled):
    class Own(keras.Model):
        pass

    inputs = keras.Input((2,))
    assert is_functional(compiled)
    assert not is_functional(Own(inputs, inputs))
    assert not is_functional(keras.Sequential())


@of(is_operation)
def test_is_operation(keras):
    assert is_operation(keras.ops.sin) and is_operation(keras.ops.softplus)
    assert not is_operation(keras.activations.relu) and not is_operation(np.sin.__class__)
    described = keras.layers.Dense(1, activation=keras.ops.sin).get_config()
    with pytest.raises((ValueError, TypeError)):  # it would find others by their names
        keras.layers.Dense.from_config(described)
    with keras.saving.custom_object_scope({"sin": keras.ops.sin}):
        assert keras.layers.Dense.from_config(described).activation is keras.ops.sin


# -- masks


@of(mask_of, give_mask)
def test_masks(keras, tf):
    vectors = keras.layers.Embedding(4, 2, mask_zero=True)(tf.constant([[1, 0]]))
    assert np.asarray(mask_of(vectors)).tolist() == [[True, False]]
    assert mask_of(tf.zeros([2])) is None
    labels, answers = tf.zeros([2, 1]), tf.constant([[1.0], [3.0]])
    give_mask(answers, tf.constant([True, False]))
    assert float(keras.losses.MeanSquaredError()(labels, answers)) == 1.0


# -- what a model is compiled with


@of(compiled_loss)
def test_compiled_loss(keras, compiled):
    y = [np.full((2, 1), 2.0, np.float32)] * 2
    answers = [np.zeros((2, 1), np.float32)] * 2
    assert float(compiled_loss(compiled)(y, answers, None)) == 4 + 2  # without the penalty
    uncompiled = keras.Sequential([keras.layers.Dense(1)])
    assert compiled_loss(uncompiled) is None
    uncompiled.compile("sgd")
    assert compiled_loss(uncompiled) is None


@of(single_losses, losses_replaced)
def test_single_losses(compiled):
    loss = compiled_loss(compiled)
    y, answers, weights = ([np.full((2, 1), n, np.float32)] * 2 for n in (2.0, 0.0, 3.0))
    before = float(loss(y, answers))
    entries = single_losses(loss)
    assert [entry.loss.name for entry in entries] == ["mse", "mae"]
    seen = []

    def instead(y_true, y_pred, sample_weight=None):
        seen.append([float(np.max(part)) for part in (y_true, y_pred, sample_weight)])
        return 10.0

    with losses_replaced(loss, [entries[0]._replace(loss=instead), entries[1]]):
        assert float(loss(y, answers, weights)) == 10 + 3 * 2
    assert seen == [[2, 0, 3]]
    assert float(loss(y, answers)) == before


@of(loss_of_batch)
def test_loss_of_batch(keras):
    class Old(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return 7.0

    class New(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return 1.0 if training else 0.0

    assert loss_of_batch(Old(), 1, 2, 3, None, training=False) == 7
    assert [loss_of_batch(New(), 1, 2, 3, None, training=on) for on in (True, False)] == [1, 0]


@of(answer_in_step)
def test_answer_in_step(keras):
    class Untold(keras.Sequential):
        def call(self, inputs):
            return super().call(inputs)

    x = np.ones((2, 3), np.float32)
    told, untold = (kind([keras.layers.Dropout(0.9, seed=1)]) for kind in (keras.Sequential, Untold))
    assert (answer_in_step(told, x, training=True) != x).numpy().any()
    assert (answer_in_step(untold, x, training=True) == x).numpy().all()


@of(asked_metrics)
def test_asked_metrics(keras, compiled):
    assert asked_metrics(compiled) == ([["mae"], ["mse"]], [["mse"], None])
    assert asked_metrics(keras.Sequential()) == asked_metrics(None) == (None, None)


@of(arguments_of)
def test_arguments_of(keras):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    assert arguments_of(loss)["from_logits"] is True and arguments_of(loss)["ignore_class"] == -1
    assert arguments_of("mse") == {}


@of(function_of)
def test_function_of(keras):
    def mine(y_true, y_pred):
        return y_pred

    assert function_of(keras.metrics.MeanMetricWrapper(mine)) is mine
    assert function_of("mse") == "mse"


@of(uncompiled)
def test_uncompiled(keras, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(), "mse")
    optimizer, file = model.optimizer, tmp_path / "it.keras"
    optimizer.build(model.trainable_variables)
    with uncompiled(model):
        assert model.optimizer is None and not model.compiled
        model.save(file)
    there = keras.saving.load_model(file)
    assert not hasattr(there, "optimizer") and not there.compiled
    with zipfile.ZipFile(file) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
        assert not weights.get("optimizer/vars")
    assert model.optimizer is optimizer and model.compiled
    model.save(file)
    assert len(keras.saving.load_model(file).optimizer.variables) == len(optimizer.variables)


# -- optimizers


@of(given_rate)
def test_given_rate(keras):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.1)
    optimizer = keras.optimizers.SGD(schedule)
    assert given_rate(optimizer) is schedule
    optimizer.learning_rate = doubled = lambda: 0.25
    assert given_rate(optimizer) is doubled and float(optimizer.learning_rate) == 0.25
    assert isinstance(given_rate(keras.optimizers.SGD(0.5)), keras.Variable)
    assert given_rate(None) is None


@pytest.fixture(scope="module")
def strategy(tf):
    return strategy_for(2)


def applied(tf, strategy, optimizer, variables):
    """Lets every replica apply a gradient of one."""

    @tf.function(autograph=False)
    def step():
        strategy.run(lambda: optimizer.apply([tf.ones_like(v.value) for v in variables], variables))

    step()


@of(place_in)
def test_place_in(keras, tf, strategy):
    seen = []

    class Seeing(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            place, known = place_in(self, variable)
            seen.append((place, known.name, variable.name.split(":")[0]))
            super().update_step(gradient, variable, learning_rate)

    with strategy.scope():
        variables = [keras.Variable(0.0, name=name) for name in ("kernel", "bias")]
        optimizer = Seeing(1.0)
        optimizer.build(variables)
    applied(tf, strategy, optimizer, variables)
    assert {one[:2] for one in seen} == {(0, "kernel"), (1, "bias")}
    assert any(name != known for _, known, name in seen)  # why it is asked


@of(moments_of)
def test_moments_of(keras):
    variables = [keras.Variable([0.0, 0.0], name=name) for name in ("kernel", "bias")]
    optimizer = keras.optimizers.Adam(beta_1=0.5, beta_2=0.75)
    optimizer.build(variables)
    optimizer.apply([np.array([1.0, 2.0], np.float32), np.array([4.0, 8.0], np.float32)], variables)
    first, second = moments_of(optimizer, 1)
    assert first.numpy().tolist() == [2.0, 4.0] and second.numpy().tolist() == [4.0, 16.0]


@of(accumulator_of)
def test_accumulator_of(keras):
    variables = [keras.Variable([0.0, 0.0], name=name) for name in ("kernel", "bias")]
    optimizer = keras.optimizers.Adagrad(initial_accumulator_value=1.0)
    optimizer.build(variables)
    optimizer.apply([np.array([1.0, 2.0], np.float32), np.array([4.0, 8.0], np.float32)], variables)
    assert accumulator_of(optimizer, 1).numpy().tolist() == [17.0, 65.0]


@of(leave_gradients_as_they_are)
def test_leave_gradients_as_they_are(keras, tf, strategy):
    def change(prepare):
        with strategy.scope():
            variable, optimizer = keras.Variable(0.0), keras.optimizers.SGD(1.0)
            optimizer.build([variable])
        prepare(optimizer)
        applied(tf, strategy, optimizer, [variable])
        return float(variable.value.numpy())

    assert change(lambda optimizer: None) == -2
    assert change(leave_gradients_as_they_are) == -1


@of(scale_rates)
def test_scale_rates(keras, tf, strategy):
    """On every replica alike, and of what weight decay takes, too."""

    def moved(prepare, weight_decay):
        with strategy.scope():
            variables = [keras.Variable(8.0, name=name) for name in ("kernel", "bias")]
            optimizer = keras.optimizers.SGD(0.5, weight_decay=weight_decay)
            optimizer.build(variables)
        prepare(optimizer)
        leave_gradients_as_they_are(optimizer)
        applied(tf, strategy, optimizer, variables)
        return [[float(copy.numpy()) for copy in strategy.experimental_local_results(v.value)] for v in variables]

    assert moved(lambda optimizer: None, None) == [[7.5, 7.5], [7.5, 7.5]]
    assert moved(lambda optimizer: scale_rates(optimizer, [0.5, 1.0]), None) == [[7.75, 7.75], [7.5, 7.5]]
    assert moved(lambda optimizer: scale_rates(optimizer, [0.5, 1.0]), 0.25) == [[7.25, 7.25], [6.5, 6.5]]


# -- TensorFlow


class Asking:
    def sign(self, x):
        if x > 0:  # noqa: SIM108  AutoGraph is asked for a branch
            sign = 1
        else:
            sign = -1
        return sign


@of(behind_autograph)
def test_behind_autograph(tf):
    def traced(method):
        return tf.function(lambda x: method(x), autograph=False)

    ours = traced(behind_autograph(Asking().sign))
    assert [int(ours(tf.constant(n))) for n in (3, -3)] == [1, -1]
    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        traced(Asking().sign)(tf.constant(3))


@of(set_determinism, is_deterministic)
def test_set_determinism(tf):
    from tensorflow.python.framework import config

    for on in (True, True, False, False):
        set_determinism(on)
        assert config.is_op_determinism_enabled() is is_deterministic() is on


@of(global_seed, forget_global_seed)
def test_global_seed(tf):
    tf.random.set_seed(17)
    assert global_seed() == 17
    forget_global_seed(17)
    assert global_seed() is None
    tf.random.set_seed(18)
    assert global_seed() == 18
    forget_global_seed(-1)
    tf.random.set_seed(None)
    assert global_seed() is None


@of(order_of_arrays)
def test_order_of_arrays(keras, tf):
    """The order in which Keras's fit reads arrays, in every epoch."""
    seen = []
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.layers.Lambda(lambda x: (seen.append(x.numpy().ravel().tolist()), x)[1])])
    model.compile(loss="mse", run_eagerly=True)
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        model.fit(np.arange(10.0)[:, None], np.zeros(10), batch_size=4, epochs=2, verbose=0)
    keras.utils.set_random_seed(3)
    order = order_of_arrays(10, 4, True).tolist()
    assert [one for batch in seen for one in batch] == order * 2 and sorted(order) == list(range(10))
    tf.random.set_seed(None)
    assert order_of_arrays(10, 4, True) is None


@of(untuned)
def test_untuned(tf):
    assert untuned(tf.data.Dataset.range(3)).options().autotune.enabled is False


@of(leave_iterators_untuned)
def test_leave_iterators_untuned(tf, strategy, monkeypatch):
    from tensorflow.python.data.ops import multi_device_iterator_ops as made_by

    made, original = [], inspect.unwrap(made_by._create_device_dataset)
    # as at the start of a process; `patched` has no __wrapped__
    monkeypatch.setattr(made_by, "_create_device_dataset", lambda *a, **k: original(*a, **k))
    leave_iterators_untuned()
    ours = made_by._create_device_dataset
    leave_iterators_untuned()
    assert made_by._create_device_dataset is ours
    monkeypatch.setattr(made_by, "_create_device_dataset", lambda *a, **k: made.append(ours(*a, **k)) or made[-1])
    data = strategy.experimental_distribute_dataset(tf.data.Dataset.range(8).batch(4))
    assert strategy.experimental_local_results(next(iter(data)))[1].numpy().tolist() == [2, 3]
    assert [one.options().autotune.enabled for one in made] == [False, False]


@of(logical_devices_of_a_worker)
def test_logical_devices_of_a_worker(tf):
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(tf.train.ClusterSpec({}))
    with logical_devices_of_a_worker(2):
        several = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    assert several.num_replicas_in_sync == 2
    assert len({t.device for t in several.experimental_local_results(several.run(lambda: tf.identity(1.0)))}) == 2
    assert tf.distribute.MultiWorkerMirroredStrategy(resolver).num_replicas_in_sync == 1


@of(function_in)
def test_function_in(tf):
    product = tf.function(lambda x: x @ x)

    @tf.function(autograph=False)
    def looped(x):
        return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, product(x)), (0, x))

    graph: Any = looped.get_concrete_function(tf.TensorSpec([2, 2])).graph
    (loop,) = (op for op in graph.get_operations() if op.type in ("While", "StatelessWhile"))
    body = function_in(graph, loop.get_attr("body").name).graph
    (call,) = (op for op in body.get_operations() if "PartitionedCall" in op.type)
    assert "MatMul" in {op.type for op in function_in(body, call.get_attr("f").name).graph.get_operations()}
    assert function_in(graph, "nothing") is None


@of(gathers)
def test_rows_that_replicas_send_each_other(tf):
    from tfscale.runtime.global_state import _mirrored

    strategy = _mirrored(tuple(device.name for device in tf.config.list_logical_devices("CPU")[:2]))

    with strategy.scope():
        weights = tf.Variable(tf.ones([5, 2]))

    def traced(look):
        def step():
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(look())
            summed = tf.distribute.get_replica_context().all_reduce("sum", tape.gradient(loss, weights))
            return summed.values if isinstance(summed, tf.IndexedSlices) else summed

        return tf.function(lambda: strategy.run(step)).get_concrete_function()

    assert gathers(traced(lambda: tf.gather(weights, [0, 1, 2])))
    assert not gathers(traced(lambda: weights * 2))
