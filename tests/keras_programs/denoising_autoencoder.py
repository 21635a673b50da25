"""A convolutional autoencoder: the inputs as targets, two fits of one model, validation_data of arrays"""

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(11)


def noise(array, noise_factor=0.4):
    noisy_array = array + noise_factor * np.random.normal(loc=0.0, scale=1.0, size=array.shape)
    return np.clip(noisy_array, 0.0, 1.0).astype("float32")


pictures = np.zeros((260, 12, 12, 1), dtype="float32")
for i, (row, column) in enumerate(np.random.randint(0, 8, size=(260, 2))):
    pictures[i, row : row + 4, :] = 0.6
    pictures[i, :, column : column + 4] = 1.0
train_data, test_data = pictures[:193], pictures[193:]
noisy_train_data, noisy_test_data = noise(train_data), noise(test_data)

input = layers.Input(shape=(12, 12, 1))
x = layers.Conv2D(8, (3, 3), activation="relu", padding="same")(input)
x = layers.MaxPooling2D((2, 2), padding="same")(x)
x = layers.Conv2D(8, (3, 3), activation="relu", padding="same")(x)
x = layers.MaxPooling2D((2, 2), padding="same")(x)
x = layers.Conv2DTranspose(8, (3, 3), strides=2, activation="relu", padding="same")(x)
x = layers.Conv2DTranspose(8, (3, 3), strides=2, activation="relu", padding="same")(x)
x = layers.Conv2D(1, (3, 3), activation="sigmoid", padding="same")(x)

autoencoder = keras.Model(input, x)
autoencoder.compile(optimizer="adam", loss="binary_crossentropy")

history1 = autoencoder.fit(
    x=train_data,
    y=train_data,
    epochs=2,
    batch_size=64,
    shuffle=True,
    validation_data=(test_data, test_data),
)
predictions = autoencoder.predict(test_data)
print("error before:", float(np.abs(predictions - test_data).mean()))

# Now retrain it with noisy data as the input and clean data as the target
history2 = autoencoder.fit(
    x=noisy_train_data,
    y=train_data,
    epochs=3,
    batch_size=64,
    shuffle=True,
    validation_data=(noisy_test_data, test_data),
    validation_batch_size=16,
)
predictions = autoencoder.predict(noisy_test_data)
print("error after:", float(np.abs(predictions - test_data).mean()))
