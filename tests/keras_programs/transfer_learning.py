"""Two-stage fine-tuning: a frozen base with BatchNorm, then unfrozen, compiled anew and trained on from initial_epoch"""

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(50)


def pictures(count, kinds):
    y = np.random.randint(0, kinds, size=count)
    x = np.random.normal(0, 40, size=(count, 16, 16, 3)) + 100
    for picture, label in zip(x, y, strict=True):
        picture[:, 2 * label : 2 * label + 4] += 80
    return x.clip(0, 255).astype("float32"), y


# The base, trained on a related problem and saved
base = keras.Sequential(
    [
        keras.Input(shape=(16, 16, 3)),
        layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(),
    ],
    name="base",
)
pretrained = keras.Sequential([layers.Rescaling(1 / 127.5, offset=-1), base, layers.Dense(6)])
pretrained.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
pretraining_history = pretrained.fit(*pictures(200, 6), epochs=2, batch_size=40, verbose=2)
base.save("base.keras")

x, y = pictures(150, 2)
x_train, y_train, x_val, y_val = x[:120], y[:120], x[120:], y[120:]

base_model = keras.models.load_model("base.keras")
base_model.trainable = False
inputs = keras.Input(shape=(16, 16, 3))
x = layers.RandomFlip("vertical")(inputs)
x = layers.Rescaling(scale=1 / 127.5, offset=-1)(x)
x = base_model(x, training=False)
x = layers.Dropout(0.2)(x)
model = keras.Model(inputs, layers.Dense(1)(x))
model.summary(show_trainable=True)

model.compile(
    optimizer=keras.optimizers.Adam(1e-2),
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.BinaryAccuracy()],
)
epochs = 2
print("Fitting the top layer of the model")
history = model.fit(x_train, y_train, epochs=epochs, validation_data=(x_val, y_val))

base_model.trainable = True
model.compile(
    optimizer=keras.optimizers.Adam(1e-5),
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.BinaryAccuracy()],
)
print("Fitting the end-to-end model")
history_fine = model.fit(
    x_train, y_train, epochs=epochs + 2, initial_epoch=len(history.epoch), validation_data=(x_val, y_val)
)
acc = history.history["binary_accuracy"] + history_fine.history["binary_accuracy"]
print("accuracy:", acc)
