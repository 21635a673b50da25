"""Anomaly detection in a time series: a Conv1D autoencoder, EarlyStopping with restore_best_weights, predict"""

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(16)

TIME_STEPS = 16
values = np.sin(np.arange(220) / 5) + np.random.normal(0, 0.05, size=220)
training_value = (values - values.mean()) / values.std()


def create_sequences(values, time_steps=TIME_STEPS):
    return np.stack([values[i : (i + time_steps)] for i in range(len(values) - time_steps + 1)])[..., None]


x_train = create_sequences(training_value)
print("Training input shape: ", x_train.shape)

model = keras.Sequential(
    [
        layers.Input(shape=(x_train.shape[1], x_train.shape[2])),
        layers.Conv1D(filters=12, kernel_size=7, padding="same", strides=2, activation="relu"),
        layers.Dropout(rate=0.2),
        layers.Conv1D(filters=6, kernel_size=7, padding="same", strides=2, activation="relu"),
        layers.Conv1DTranspose(filters=6, kernel_size=7, padding="same", strides=2, activation="relu"),
        layers.Dropout(rate=0.2),
        layers.Conv1DTranspose(filters=12, kernel_size=7, padding="same", strides=2, activation="relu"),
        layers.Conv1DTranspose(filters=1, kernel_size=7, padding="same"),
    ]
)
model.compile(optimizer=keras.optimizers.Adam(learning_rate=0.003), loss="mse")

history = model.fit(
    x_train,
    x_train,
    epochs=8,
    batch_size=64,
    validation_split=0.1,
    callbacks=[keras.callbacks.EarlyStopping(monitor="val_loss", patience=1, mode="min", restore_best_weights=True)],
)

train_mae_loss = np.mean(np.abs(model.predict(x_train) - x_train), axis=1)
threshold = np.max(train_mae_loss)
test_value = training_value.copy()
test_value[100:120] += 4
x_test = create_sequences(test_value)
test_mae_loss = np.mean(np.abs(model.predict(x_test) - x_test), axis=1).reshape(-1)
print("Number of anomaly samples: ", np.sum(test_mae_loss > threshold))
