"""Two stages: a head on a frozen base, then the base's top layers at a low rate; the base was trained on something else"""

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(3)


def pictures(count):
    kinds = np.random.randint(0, 2, size=count)
    found = np.random.normal(0, 0.5, size=(count, 10, 10, 3)).astype("float32")
    found[kinds == 1, 2:5] += 1.0
    return found, kinds


base = keras.Sequential(
    [
        keras.Input((10, 10, 3)),
        layers.Conv2D(6, 3, activation="relu", name="low"),
        layers.BatchNormalization(name="norm"),
        layers.Conv2D(8, 3, activation="relu", name="high"),
        layers.GlobalAveragePooling2D(),
    ],
    name="base",
)
x_train, y_train = pictures(96)
x_test, y_test = pictures(32)

base.trainable = False
augment = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomTranslation(0.1, 0.1)])
inputs = keras.Input((10, 10, 3))
x = layers.Dropout(0.2)(base(augment(inputs), training=False))
model = keras.Model(inputs, layers.Dense(1)(x))
loss = keras.losses.BinaryCrossentropy(from_logits=True)

model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
head = model.fit(x_train, y_train, batch_size=24, epochs=2, validation_data=(x_test, y_test))

base.trainable = True
for layer in base.layers[:2]:
    layer.trainable = False
model.compile(keras.optimizers.Adam(1e-4), loss, metrics=["accuracy"])
stop = keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=4)
fine = model.fit(
    x_train, y_train, batch_size=24, epochs=6, initial_epoch=head.epoch[-1] + 1, callbacks=[stop],
    validation_data=(x_test, y_test), verbose=2,
)  # fmt: skip
model.save("model.keras")
np.savez("final.npz", *model.get_weights(), model.predict(x_test, verbose=0))
print("final:", model.evaluate(x_test, y_test, verbose=0), head.history, fine.history, fine.epoch, stop.best)
