"""A bidirectional LSTM on reviews: padded sequences, CSVLogger, EarlyStopping, validation_freq"""

import csv

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(12)

max_features = 80
maxlen = 15

rng = np.random.default_rng(12)
sequences = [rng.integers(1, max_features, size=rng.integers(3, 20)).tolist() for _ in range(160)]
labels = np.array([float(s[-1] % 2 == 0) for s in sequences])
x = keras.utils.pad_sequences(sequences, maxlen=maxlen)
x_train, y_train, x_val, y_val = x[:128], labels[:128], x[128:], labels[128:]

inputs = keras.Input(shape=(None,), dtype="int32")
x = layers.Embedding(max_features, 16, mask_zero=True)(inputs)
x = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x)
x = layers.Bidirectional(layers.LSTM(8))(x)
outputs = layers.Dense(1, activation="sigmoid")(x)
model = keras.Model(inputs, outputs)
model.summary()

model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
callbacks = [
    keras.callbacks.CSVLogger("log.csv"),
    keras.callbacks.EarlyStopping(monitor="loss", patience=2),
]
history = model.fit(
    x_train,
    y_train,
    batch_size=32,
    epochs=4,
    validation_data=(x_val, y_val),
    validation_freq=2,
    callbacks=callbacks,
)
with open("log.csv") as file:
    rows = list(csv.DictReader(file))
print(len(rows), "epochs logged:", [row["loss"][:6] for row in rows])
