"""Image classification from scratch: a folder of PNGs, augmentation, BatchNorm, a checkpoint per epoch"""

import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from PIL import Image

keras.utils.set_random_seed(1337)

folder = tempfile.mkdtemp()
rng = np.random.default_rng(1)
for kind, channel in (("cat", 0), ("dog", 2)):
    os.makedirs(os.path.join(folder, kind))
    for i in range(50):
        pixels = rng.integers(0, 160, size=(24, 24, 3))
        pixels[6:18, 6:18, channel] += 90
        Image.fromarray(pixels.astype("uint8")).save(os.path.join(folder, kind, f"{i:03}.png"))

image_size = (20, 20)
train_ds, val_ds = keras.utils.image_dataset_from_directory(
    folder,
    validation_split=0.2,
    subset="both",
    seed=1337,
    image_size=image_size,
    batch_size=16,
)

augmentation = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomZoom(0.1)])

train_ds = train_ds.prefetch(tf.data.AUTOTUNE)
val_ds = val_ds.prefetch(tf.data.AUTOTUNE)


def make_model(input_shape, num_classes):
    inputs = keras.Input(shape=input_shape)
    x = augmentation(inputs)
    x = layers.Rescaling(1.0 / 255)(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    residual = x
    for size in (12, 16):
        x = layers.SeparableConv2D(size, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.Activation("relu")(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        residual = layers.Conv2D(size, 1, strides=2, padding="same")(residual)
        x = layers.add([x, residual])
        residual = x
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.25)(x)
    return keras.Model(inputs, layers.Dense(1 if num_classes == 2 else num_classes)(x))


model = make_model(input_shape=(*image_size, 3), num_classes=2)

callbacks = [keras.callbacks.ModelCheckpoint("save_at_{epoch}.keras")]
model.compile(
    optimizer=keras.optimizers.Adam(3e-4),
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.BinaryAccuracy(name="acc")],
)
history = model.fit(train_ds, epochs=3, callbacks=callbacks, validation_data=val_ds)

reloaded = keras.models.load_model("save_at_3.keras")
for images, _ in val_ds.take(1):
    score = float(keras.ops.sigmoid(reloaded(images[:1], training=False))[0][0])
    print(f"This image is {100 * (1 - score):.2f}% cat and {100 * score:.2f}% dog.")
