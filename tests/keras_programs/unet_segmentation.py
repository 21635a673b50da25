"""Segmentation with a U-Net: a PyDataset, ModelCheckpoint of the best, then load_model"""

import math

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(7)

img_size = (16, 16)
num_classes = 3
batch_size = 8


class Pets(keras.utils.PyDataset):
    """Pictures and their masks, made on the fly."""

    def __init__(self, indices, **kwargs):
        super().__init__(**kwargs)
        self.indices = indices

    def __len__(self):
        return math.ceil(len(self.indices) / batch_size)

    def __getitem__(self, idx):
        chosen = self.indices[idx * batch_size : (idx + 1) * batch_size]
        pictures, masks = [], []
        for i in chosen:
            rng = np.random.default_rng(int(i))
            mask = np.zeros((*img_size, 1), dtype="uint8")
            top, left = rng.integers(1, 6, size=2)
            mask[top : top + 9, left : left + 9] = 1
            mask[top + 2 : top + 7, left + 2 : left + 7] = 2
            pictures.append((mask * 0.4 + rng.normal(0, 0.2, size=(*img_size, 3))).astype("float32"))
            masks.append(mask)
        return np.stack(pictures), np.stack(masks)


def get_model(img_size, num_classes):
    inputs = keras.Input(shape=(*img_size, 3))
    skips = []
    x = inputs
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        skips.append(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(24, 3, padding="same", activation="relu")(x)
    for filters, skip in zip((16, 8), reversed(skips), strict=True):
        x = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", activation="relu")(x)
        x = layers.Concatenate()([x, skip])
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    outputs = layers.Conv2D(num_classes, 3, activation="softmax", padding="same")(x)
    return keras.Model(inputs, outputs)


model = get_model(img_size, num_classes)
order = np.random.permutation(100)
train_gen, val_gen = Pets(order[:80]), Pets(order[80:])

model.compile(optimizer=keras.optimizers.RMSprop(1e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
callbacks = [keras.callbacks.ModelCheckpoint("oxford_segmentation.keras", save_best_only=True)]
history = model.fit(train_gen, epochs=4, validation_data=val_gen, callbacks=callbacks, verbose=2)

best = keras.models.load_model("oxford_segmentation.keras")
val_preds = best.predict(val_gen, verbose=0)
print(
    "share of each class:",
    np.bincount(np.argmax(val_preds, axis=-1).ravel(), minlength=num_classes) / val_preds[..., 0].size,
)
