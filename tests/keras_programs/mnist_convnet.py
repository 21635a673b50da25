"""A small convnet for digits: arrays, validation_split, Dropout"""

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(42)

num_classes = 10
input_shape = (14, 14, 1)

# Noisy pictures of a bar whose place is the class
rng = np.random.default_rng(0)
y = rng.integers(0, num_classes, size=320)
x = rng.normal(0.0, 30.0, size=(320, *input_shape)) + 60
for picture, label in zip(x, y, strict=True):
    picture[label : label + 3, 2:12] += 120
x = np.clip(x, 0, 255).astype("uint8")

x_train, x_test = x[:260].astype("float32") / 255, x[260:].astype("float32") / 255
y_train = keras.utils.to_categorical(y[:260], num_classes)
y_test = keras.utils.to_categorical(y[260:], num_classes)
print("x_train shape:", x_train.shape)
print(x_train.shape[0], "train samples")

model = keras.Sequential(
    [
        keras.Input(shape=input_shape),
        layers.Conv2D(8, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Conv2D(16, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(num_classes, activation="softmax"),
    ]
)
model.summary()
model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])

history = model.fit(x_train, y_train, batch_size=32, epochs=3, validation_split=0.1)

score = model.evaluate(x_test, y_test, verbose=0)
print("Test loss:", score[0])
print("Test accuracy:", score[1])
