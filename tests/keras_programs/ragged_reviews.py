"""Reviews of different lengths: ragged batches of tf.data, padded by a layer, gradient accumulation"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

keras.utils.set_random_seed(17)

rng = np.random.default_rng(17)
reviews = [rng.integers(1, 50, size=rng.integers(2, 18)).tolist() for _ in range(130)]
stars = np.array([min(4, sum(token < 10 for token in review)) for review in reviews])

ds = tf.data.Dataset.from_tensor_slices((tf.ragged.constant(reviews), stars))
train_ds = ds.take(100).shuffle(100, seed=3).batch(16)
val_ds = ds.skip(100).batch(16)


class Pad(layers.Layer):
    """Ragged rows become a dense batch, zeros at the end."""

    def call(self, inputs):
        return inputs.to_tensor() if isinstance(inputs, tf.RaggedTensor) else inputs


model = keras.Sequential(
    [
        keras.Input(shape=(None,), dtype="int32", ragged=True),
        Pad(),
        layers.Embedding(50, 12, mask_zero=True),
        layers.GRU(12),
        layers.Dense(5),
    ]
)
model.compile(
    optimizer=keras.optimizers.Nadam(0.01, gradient_accumulation_steps=2),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(train_ds, validation_data=val_ds, epochs=3, verbose=2)
print("loss, accuracy:", model.evaluate(val_ds, verbose=0))
