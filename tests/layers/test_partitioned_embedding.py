"""The partitioned table against Keras's whole one: values, gradients, updates, files."""

from __future__ import annotations

import numpy as np
import pytest

ROWS, DIM = 11, 4


@pytest.fixture
def pair(tf):
    """(partitioned, keras.layers.Embedding) with the same table."""
    import keras

    from tfscale.layers.partitioned_embedding import PartitionedEmbedding

    def build(partitions=3, **arguments):
        ours = PartitionedEmbedding(ROWS, DIM, partitions=partitions, **arguments)
        stock = keras.layers.Embedding(ROWS, DIM, **arguments)
        ours.build()
        stock.build()
        ours.set_table(stock.embeddings.numpy())
        return ours, stock

    return build


def whole(tf, gradients, partitions):
    """The gradients of the parts as one dense table."""
    table = np.zeros((ROWS, DIM), np.float32)
    for part, gradient in enumerate(gradients):
        table[part::partitions] = tf.convert_to_tensor(gradient).numpy()
    return table


@pytest.mark.parametrize("partitions", [1, 2, 3, 4, ROWS])
def test_rows_are_dealt_out_by_turns(pair, partitions):
    ours, stock = pair(partitions)
    assert [t.shape[0] for t in ours.tables] == [len(range(p, ROWS, partitions)) for p in range(partitions)]
    assert max(t.shape[0] for t in ours.tables) == -(-ROWS // partitions)
    np.testing.assert_array_equal(ours.table(), stock.embeddings.numpy())
    np.testing.assert_array_equal(ours(np.arange(ROWS)), stock(np.arange(ROWS)))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "float32"])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (2, 3), (2, 0, 3), (2, 3, 4)])
def test_ids_of_any_rank_and_type(tf, pair, shape, dtype):
    ours, stock = pair()
    ids = tf.constant(np.random.RandomState(0).randint(0, ROWS, shape), dtype)
    np.testing.assert_array_equal(ours(ids), stock(ids))
    assert ours(ids).dtype == stock(ids).dtype


def test_a_batch_of_unknown_size_in_a_model(tf, pair):
    import keras

    ours, stock = pair()
    models = [keras.Sequential([keras.Input((6,), dtype="int32"), layer]) for layer in (ours, stock)]
    assert models[0].output_shape == models[1].output_shape == (None, 6, DIM)
    ids = np.random.RandomState(1).randint(0, ROWS, (7, 6))
    np.testing.assert_array_equal(models[0].predict(ids, verbose=0), models[1].predict(ids, verbose=0))


@pytest.mark.parametrize("policy_name", ["float32", "mixed_bfloat16", "float64"])
def test_mixed_precision_keeps_the_table_and_casts_the_vectors(pair, policy_name):
    ours, stock = pair(dtype=policy_name)
    ids = np.arange(5)
    assert ours(ids).dtype == stock(ids).dtype
    assert ours.tables[0].dtype == stock.embeddings.dtype
    np.testing.assert_array_equal(ours(ids).numpy(), stock(ids).numpy())


def gradients_of(tf, layer, variables, ids):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(layer(ids), tf.float32) ** 3)
    return tape.gradient(loss, [v.value for v in variables], unconnected_gradients=tf.UnconnectedGradients.ZERO)


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_sparse_and_those_of_keras(tf, pair, compiled):
    ours, stock = pair()
    ids = tf.constant([[1, 1, 4], [10, 1, 3]])

    def both(ids):
        return gradients_of(tf, ours, ours.tables, ids), gradients_of(tf, stock, [stock.embeddings], ids)

    sparse, dense = (tf.function(both) if compiled else both)(ids)
    assert all(isinstance(g, tf.IndexedSlices) for g in sparse)
    assert sum(g.indices.shape[0] for g in sparse) == 4  # 1, 3, 4 and 10: once each
    np.testing.assert_allclose(whole(tf, sparse, 3), tf.convert_to_tensor(dense[0]), rtol=1e-6)


@pytest.mark.parametrize("name", ["SGD", "momentum", "Adam", "tfscale"])
def test_updates_are_those_of_keras(tf, pair, name):
    import keras

    from tfscale.optimizers.fused import SGD

    made = {
        "SGD": lambda: keras.optimizers.SGD(0.5),
        "momentum": lambda: keras.optimizers.SGD(0.5, momentum=0.9),
        "Adam": lambda: keras.optimizers.Adam(0.1),
        "tfscale": lambda: SGD(learning_rate=0.5, momentum=0.9, nesterov=True),
    }
    ours, stock = pair()
    for layer, variables in ((ours, ours.tables), (stock, [stock.embeddings])):
        optimizer = made[name]()
        optimizer.build(variables)
        for ids in ([1, 1, 4], [4, 10, 3], [0, 1, 2]):  # rows rest in one step and move in the next
            gradients = gradients_of(tf, layer, variables, tf.constant(ids))
            if layer is stock:  # of a sparse gradient with an id twice, Keras's Adam squares each part, not their sum
                gradients = [tf.convert_to_tensor(g) for g in gradients]
            optimizer.apply(gradients, variables)
    np.testing.assert_allclose(ours.table(), stock.embeddings.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("ids", [[ROWS], [0, -1], [3, 1000]])
def test_ids_outside_the_vocabulary_are_refused(tf, pair, ids):
    ours, _ = pair()
    with pytest.raises(tf.errors.InvalidArgumentError):
        ours(tf.constant(ids))


@pytest.mark.parametrize("seed", [None, 5])
def test_partitions_are_drawn_apart(tf, seed):
    import keras

    from tfscale.layers.partitioned_embedding import PartitionedEmbedding

    layer = PartitionedEmbedding(40, 8, partitions=4, embeddings_initializer=keras.initializers.RandomNormal(seed=seed))
    layer.build()
    assert len({t.numpy().tobytes() for t in layer.tables}) == 4
    assert 0.04 < layer.table().std() < 0.06


def test_impossible_sizes_are_refused(tf):
    from tfscale.layers.partitioned_embedding import PartitionedEmbedding

    for sizes in ({"vocabulary": 3, "partitions": 4}, {"vocabulary": 0}, {"partitions": 0}, {"dim": 0}):
        with pytest.raises(ValueError, match="partitions"):
            PartitionedEmbedding(**{"vocabulary": 5, "dim": 2, **sizes})


def test_the_mask_reaches_later_layers(tf, pair):
    ours, stock = pair(mask_zero=True)
    ids = np.array([[1, 0, 2]])
    np.testing.assert_array_equal(ours.compute_mask(ids), stock.compute_mask(ids))


def test_configuration_and_file(tf, pair, tmp_path):
    import keras

    ours, _ = pair(mask_zero=True, embeddings_initializer="ones")
    again = type(ours).from_config(ours.get_config())
    assert again.get_config() == ours.get_config()
    model = keras.Sequential([keras.Input((3,), dtype="int64"), ours, keras.layers.GlobalAveragePooling1D()])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.layers[0].table(), ours.table())
    np.testing.assert_array_equal(loaded(np.array([[1, 0, 9]])), model(np.array([[1, 0, 9]])))
