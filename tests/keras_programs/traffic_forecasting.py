"""Traffic forecasting: a graph convolution before an LSTM, einsum, overlapping windows, EarlyStopping, TerminateOnNaN"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

keras.utils.set_random_seed(140)

num_routes, input_sequence_length, forecast_horizon, batch_size = 6, 6, 2, 16
rng = np.random.default_rng(140)
distances = np.abs(np.subtract.outer(np.arange(num_routes), np.arange(num_routes)))
adjacency_matrix = np.exp(-(distances**2) / 4.0) * (distances <= 2)
time = np.arange(240)[:, None]
speeds = 50 + 10 * np.sin(time / 10 + np.arange(num_routes)) + rng.normal(0, 1.5, size=(240, num_routes))


def preprocess(data_array, train_size, val_size):
    mean, std = data_array[:train_size].mean(axis=0), data_array[:train_size].std(axis=0)
    scaled = ((data_array - mean) / std).astype("float32")
    return scaled[:train_size], scaled[train_size : train_size + val_size]


def create_tf_dataset(data_array, shuffle):
    inputs = keras.utils.timeseries_dataset_from_array(
        np.expand_dims(data_array[:-forecast_horizon], axis=-1),
        None,
        sequence_length=input_sequence_length,
        shuffle=False,
        batch_size=batch_size,
    )
    target_offset = input_sequence_length + forecast_horizon - 1
    targets = keras.utils.timeseries_dataset_from_array(
        data_array[target_offset:], None, sequence_length=1, shuffle=False, batch_size=batch_size
    )
    dataset = tf.data.Dataset.zip((inputs, targets))
    return dataset.shuffle(100, seed=7).prefetch(16) if shuffle else dataset.prefetch(16)


class GraphConv(layers.Layer):
    def __init__(self, out_feat, adjacency, **kwargs):
        super().__init__(**kwargs)
        self.adjacency = ops.cast(adjacency / adjacency.sum(axis=1, keepdims=True), "float32")
        self.dense = layers.Dense(out_feat, activation="relu")

    def call(self, features):
        aggregated = ops.einsum("nm,btmf->btnf", self.adjacency, features)
        return self.dense(ops.concatenate([features, aggregated], axis=-1))


class LSTMGC(layers.Layer):
    """A convolution over the graph, then an LSTM over time for each of its nodes."""

    def __init__(self, out_feat, lstm_units, horizon, adjacency, **kwargs):
        super().__init__(**kwargs)
        self.graph_conv = GraphConv(out_feat, adjacency)
        self.lstm = layers.LSTM(lstm_units, activation="relu")
        self.dense = layers.Dense(1)

    def call(self, inputs):
        _, steps, nodes, _ = ops.shape(inputs)
        x = ops.transpose(self.graph_conv(inputs), (0, 2, 1, 3))
        x = self.lstm(ops.reshape(x, (-1, steps, x.shape[-1])))
        return ops.transpose(ops.reshape(self.dense(x), (-1, nodes, 1)), (0, 2, 1))


train_array, val_array = preprocess(speeds, 160, 60)
train_dataset, val_dataset = create_tf_dataset(train_array, shuffle=True), create_tf_dataset(val_array, shuffle=False)

inputs = keras.Input((input_sequence_length, num_routes, 1))
outputs = LSTMGC(8, 12, forecast_horizon, adjacency_matrix)(inputs)
model = keras.Model(inputs, outputs)
model.compile(optimizer=keras.optimizers.RMSprop(learning_rate=0.002), loss=keras.losses.MeanSquaredError())
history = model.fit(
    train_dataset,
    validation_data=val_dataset,
    epochs=4,
    callbacks=[keras.callbacks.EarlyStopping(patience=3), keras.callbacks.TerminateOnNaN()],
)
