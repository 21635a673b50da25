"""The hooks of Keras's fit still find what they count on; see test_hooks.py."""

from __future__ import annotations

import gc
import inspect
import queue
import threading
import weakref

import numpy as np
import pytest
from hooks.test_hooks import TESTED, of

from tfscale.hooks import keras_fit_hooks
from tfscale.hooks.keras_fit_hooks import (
    _copied,
    _cut_by_batches,
    _outlive,
    _without_nothing,
    arrays_shuffled_by,
    batch_function,
    batch_size_of,
    build_ahead,
    build_eagerly,
    class_weights_as_sample_weights,
    dataset_of,
    epoch_iterator,
    is_trainer,
    metrics_or_logs,
    of_one_replica,
    ran_out,
    split_off_validation,
    steps_of_epoch,
    steps_of_its_own,
    takes_arrays,
    traces_batches,
    weighted_by_class,
    without_absent,
    without_optionals,
)

X, Y = np.arange(20, dtype=np.float32).reshape(10, 2), np.arange(10) % 2


def test_every_hook_is_tested():
    found = {name for name, value in vars(keras_fit_hooks).items() if inspect.isfunction(value) and value.__module__ == keras_fit_hooks.__name__}  # fmt: skip
    assert found <= TESTED


@pytest.fixture
def epochs(tf):
    return epoch_iterator(tf.distribute.get_strategy(), x=X, y=Y, batch_size=4, shuffle=True)


@pytest.fixture
def model(tf):
    import keras

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


@of(epoch_iterator, dataset_of, steps_of_epoch)
def test_an_epoch(tf, epochs):
    assert [tuple(one.shape) for one in dataset_of(epochs).element_spec] == [(None, 2), (None,)]
    for _ in range(2):
        seen = [next(iterator)[1].shape[0] for _, _, iterator in steps_of_epoch(epochs)]
        assert seen == [4, 4, 2]


@of(ran_out)
def test_an_epoch_that_ends_early_begins_anew(tf):
    def generator():
        yield from ((X[i : i + 4], Y[i : i + 4]) for i in (0, 4))

    data = tf.data.Dataset.from_generator(generator, output_signature=(tf.TensorSpec([4, 2]), tf.TensorSpec([4])))
    found = epoch_iterator(tf.distribute.get_strategy(), x=data, steps_per_epoch=5)
    for _ in range(2):
        read = 0
        for _, _, iterator in steps_of_epoch(found):
            if iterator.get_next_as_optional().has_value():
                read += 1
            else:
                ran_out(found)
                break
        assert read == 2


@of(arrays_shuffled_by)
def test_the_order_of_arrays(tf):
    with arrays_shuffled_by(lambda indices: tf.reverse(indices, [0])):
        found = epoch_iterator(tf.distribute.get_strategy(), x=X, y=Y, batch_size=10, shuffle=True)
    assert next(iter(dataset_of(found)))[0].numpy().tolist() == X[::-1].tolist()
    assert tf.random.shuffle.__name__ == "random_shuffle"


@of(batch_size_of)
def test_the_size_of_a_batch(tf):
    whole = tf.data.Dataset.from_tensor_slices(X)
    assert batch_size_of(whole.shuffle(10).batch(4).prefetch(2)) == 4
    assert batch_size_of(whole.batch(5, drop_remainder=True).map(lambda x: x)) == 5
    assert (
        batch_size_of(tf.data.Dataset.from_generator(lambda: iter([X]), output_signature=tf.TensorSpec(None))) is None
    )


@of(split_off_validation, takes_arrays, class_weights_as_sample_weights, weighted_by_class)
def test_arrays(tf):
    (x, _, none), (test_x, test_y, _) = split_off_validation((X, Y, None), 0.2)
    assert (len(x), none, test_x.tolist(), test_y.tolist()) == (8, None, X[8:].tolist(), Y[8:].tolist())
    assert takes_arrays((X, tf.constant(Y), None)) and not takes_arrays((tf.data.Dataset.range(3), None))
    assert class_weights_as_sample_weights(Y, {0: 1.0, 1: 3.0}).tolist() == (1.0 + 2.0 * Y).tolist()
    weighted = weighted_by_class(tf.data.Dataset.from_tensors((X, Y)), {1: 3.0})
    assert next(iter(weighted))[2].numpy().tolist() == (1.0 + 2.0 * Y).tolist()


@of(batch_function, without_optionals, metrics_or_logs)
def test_a_step(tf, model):
    run = without_optionals(model, batch_function(model, model.train_step, tf.distribute.get_strategy(), xla=False))
    logs = run((X, Y, tf.experimental.Optional.empty(tf.TensorSpec([]))))
    assert set(logs) == {"loss", "mae"}
    assert metrics_or_logs(model, logs)["mae"].numpy() == logs["mae"].numpy()
    assert metrics_or_logs(model, {"other": 1.0}) == {"other": 1.0}


@of(build_eagerly)
def test_a_model_that_is_built_without_a_step(tf, model):
    build_eagerly(model, (tf.TensorSpec([None, 2]), tf.TensorSpec([None])))
    assert model.built and model.optimizer.built and len(model.metrics) == 2
    assert model.optimizer.iterations.numpy() == 0


@of(build_ahead)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_whose_variables_are_there_is_traced_once_and_computes_the_same(tf, scaled):
    import keras

    def trained(*, ahead):
        keras.utils.clear_session(), keras.utils.set_random_seed(0)
        inputs = keras.Input([2])
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        optimizer = keras.optimizers.Adam(0.1)
        model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer, "mse", metrics=["mae"])
        step = batch_function(model, model.train_step, tf.distribute.get_strategy(), xla=False)
        if ahead:
            build_ahead(model, (tf.TensorSpec([None, 2]), tf.TensorSpec([None])))
        figures = [{name: value.numpy() for name, value in step((X, Y)).items()} for _ in range(3)]
        parts = [*model.variables, *model.optimizer.variables, *(v for one in model.metrics for v in one.variables)]
        return step.experimental_get_tracing_count(), (figures, [(v.path, v.numpy().tolist()) for v in parts])

    (once, ours), (twice, kerass) = trained(ahead=True), trained(ahead=False)
    assert (once, twice) == (1, 2)
    assert ours == kerass


@of(build_ahead)
def test_a_model_that_is_not_whole_is_left_as_it_is(tf, model):
    import keras

    build_ahead(model, (tf.TensorSpec([None, 2]), tf.TensorSpec([None])))
    assert not model.optimizer.built
    inputs = keras.Input([2])
    several = keras.Model(inputs, [keras.layers.Dense(1)(inputs), keras.layers.Dense(2)(inputs)])
    several.compile("sgd", "mse")
    build_ahead(several, (tf.TensorSpec([None, 2]), (tf.TensorSpec([None]), tf.TensorSpec([None, 2]))))
    assert not several.optimizer.built


@of(of_one_replica)
def test_the_batch_of_one_replica(tf):
    from tfscale.runtime.global_state import _mirrored

    spec = (tf.TensorSpec([None, 2]), {"y": tf.TensorSpec([None], tf.int32)})
    assert of_one_replica(spec) == spec
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    devices = tuple(device.name for device in tf.config.list_logical_devices("CPU")[:2])
    several = _mirrored(devices).experimental_distribute_dataset(data).element_spec
    assert [one.shape.as_list() for one in of_one_replica(several)] == [[None, *X.shape[1:]], [None, *Y.shape[1:]]]


@of(is_trainer, steps_of_its_own)
def test_what_trains(tf, model):
    import keras

    class Own(keras.Model):
        def test_step(self, data):
            return {}

    assert is_trainer(model) and not is_trainer(keras.layers.Dense(2)) and not is_trainer(len)
    assert (steps_of_its_own(model), steps_of_its_own(Own())) == ([], ["test_step"])


@of(traces_batches)
def test_a_profile(tf, tmp_path):
    import keras

    assert not traces_batches(keras.callbacks.TensorBoard(tmp_path))
    assert traces_batches(keras.callbacks.TensorBoard(tmp_path, profile_batch=2))


@of(_copied)
def test_batches_in_memory_of_their_own(tf):
    """As TensorFlow takes an array's memory without copying it; of text there is nothing to compute in."""
    array = np.arange(1024, dtype=np.float32)
    given = tf.data.Dataset.from_tensors({"x": array, "text": np.array(["a"])})
    (copied,) = _copied(given)
    tf.raw_ops.InplaceAdd(x=copied["x"], i=[0], v=[[5.0]] if copied["x"].shape.rank > 1 else [5.0])
    assert array[0] == 0 and copied["text"].numpy().tolist() == [b"a"]
    assert _copied(given).element_spec == given.element_spec


@of(_cut_by_batches)
def test_every_worker_reads_all_unless_it_is_told_otherwise(tf):
    policies, given = tf.data.experimental.AutoShardPolicy, tf.data.Dataset.range(4)
    assert _cut_by_batches(given).options().experimental_distribute.auto_shard_policy == policies.DATA
    off = tf.data.Options()
    off.experimental_distribute.auto_shard_policy = policies.OFF
    found = _cut_by_batches(given.with_options(off))
    assert found.options().experimental_distribute.auto_shard_policy == policies.OFF


@of(_without_nothing, without_absent)
def test_a_none_behind_a_batch_is_left_out(tf):
    def batches():
        yield X[:4], Y[:4], None

    spec = dataset_of(epoch_iterator(tf.distribute.get_strategy(), x=batches(), steps_per_epoch=1)).element_spec
    assert [part is None for part in without_absent(spec)] == [False, False, True]
    nothing = tf.experimental.Optional.empty(tf.TensorSpec([]))
    there, behind = tf.data.Dataset.from_tensors(X), tf.data.Dataset.from_tensors(nothing)
    assert len(_without_nothing(tf.data.Dataset.zip((there, behind))).element_spec) == 1
    assert _without_nothing(there) is there
    with pytest.raises(ValueError, match="only at the end"):
        _without_nothing(tf.data.Dataset.zip((behind, there)))


@of(_outlive)
def test_no_epoch_waits_for_the_tuning_of_the_one_before_it(tf):
    """tf.data's tuning of an iterator holds up who gives it up: arrays aren't tuned, and a thread gives up others."""
    given = {"batch_size": 5, "shuffle": False, "steps_per_epoch": None, "class_weight": None}
    untuned = epoch_iterator(tf.distribute.get_strategy(), x=X, y=Y, **given)
    assert dataset_of(untuned).options().autotune.enabled is False
    ended = queue.Queue()

    def used(name, first):
        weakref.finalize(first, lambda: ended.put((name, threading.current_thread() is threading.main_thread())))
        return next(first)

    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).map(lambda x, y: (x, y), num_parallel_calls=2).batch(5)
    epochs = epoch_iterator(tf.distribute.get_strategy(), x=dataset, **{**given, "batch_size": None})
    assert dataset_of(epochs).options().autotune.enabled is None
    used("first", next(steps_of_epoch(epochs))[2])
    used("last", next(steps_of_epoch(epochs))[2])
    assert ended.get(timeout=10) == ("first", False)
    del epochs
    gc.collect()
    assert ended.get(timeout=10) == ("last", False)
