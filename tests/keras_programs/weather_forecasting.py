"""Weather forecasting: timeseries_dataset_from_array, LSTM, EarlyStopping and ModelCheckpoint of weights"""

import keras
import numpy as np

keras.utils.set_random_seed(15)

split_fraction, step, past, future = 0.7, 2, 24, 6
learning_rate, batch_size, epochs = 0.01, 32, 6

rng = np.random.default_rng(15)
hours = np.arange(420)
features = np.stack([np.sin(hours / 12), np.cos(hours / 12), np.sin(hours / 40)], axis=1) + rng.normal(0, 0.1, (420, 3))
train_split = int(split_fraction * len(features))


def normalize(data, train_split):
    data_mean = data[:train_split].mean(axis=0)
    data_std = data[:train_split].std(axis=0)
    return (data - data_mean) / data_std


features = normalize(features, train_split).astype("float32")
train_data, val_data = features[:train_split], features[train_split:]

start = past + future
sequence_length = int(past / step)
dataset_train = keras.preprocessing.timeseries_dataset_from_array(
    train_data,
    features[start : start + train_split, 1:2],
    sequence_length=sequence_length,
    sampling_rate=step,
    batch_size=batch_size,
)
x_end = len(val_data) - past - future
dataset_val = keras.preprocessing.timeseries_dataset_from_array(
    val_data[:x_end],
    features[train_split + start :, 1:2],
    sequence_length=sequence_length,
    sampling_rate=step,
    batch_size=batch_size,
)
for batch in dataset_train.take(1):
    inputs, targets = batch

inputs = keras.layers.Input(shape=(inputs.shape[1], inputs.shape[2]))
lstm_out = keras.layers.LSTM(12)(inputs)
outputs = keras.layers.Dense(1)(lstm_out)
model = keras.Model(inputs=inputs, outputs=outputs)
model.compile(optimizer=keras.optimizers.Adam(learning_rate=learning_rate), loss="mse")
model.summary()

path_checkpoint = "model_checkpoint.weights.h5"
es_callback = keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=0.02, patience=1, restore_best_weights=True)
modelckpt_callback = keras.callbacks.ModelCheckpoint(
    monitor="val_loss", filepath=path_checkpoint, verbose=1, save_weights_only=True, save_best_only=True
)
history = model.fit(
    dataset_train,
    epochs=epochs,
    validation_data=dataset_val,
    callbacks=[es_callback, modelckpt_callback],
)
print("epochs:", len(history.history["loss"]), "of", epochs)
