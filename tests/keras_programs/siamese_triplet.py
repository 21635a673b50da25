"""A Siamese network with triplet loss: a distance layer, train_step and test_step, triplets from tf.data"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

keras.utils.set_random_seed(19)

target_shape = (10, 10)
rng = np.random.default_rng(19)
kinds = rng.normal(size=(6, *target_shape, 3))


def picture(kind):
    return (kinds[kind] + rng.normal(0, 0.7, size=(*target_shape, 3))).astype("float32")


anchor_kinds = rng.integers(0, 6, size=160)
anchors = np.stack([picture(kind) for kind in anchor_kinds])
positives = np.stack([picture(kind) for kind in anchor_kinds])
negatives = np.stack([picture((kind + rng.integers(1, 6)) % 6) for kind in anchor_kinds])

dataset = tf.data.Dataset.from_tensor_slices((anchors, positives, negatives)).shuffle(
    160, seed=4, reshuffle_each_iteration=False
)
train_dataset = dataset.take(128).batch(32, drop_remainder=False).prefetch(tf.data.AUTOTUNE)
val_dataset = dataset.skip(128).batch(32, drop_remainder=False).prefetch(tf.data.AUTOTUNE)

embedding = keras.Sequential(
    [
        keras.Input(shape=(*target_shape, 3)),
        layers.Conv2D(8, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(24, activation="relu"),
        layers.Dense(12),
    ],
    name="Embedding",
)


class DistanceLayer(layers.Layer):
    def call(self, anchor, positive, negative):
        ap_distance = ops.sum(ops.square(anchor - positive), -1)
        an_distance = ops.sum(ops.square(anchor - negative), -1)
        return (ap_distance, an_distance)


anchor_input = layers.Input(name="anchor", shape=(*target_shape, 3))
positive_input = layers.Input(name="positive", shape=(*target_shape, 3))
negative_input = layers.Input(name="negative", shape=(*target_shape, 3))
distances = DistanceLayer()(embedding(anchor_input), embedding(positive_input), embedding(negative_input))
siamese_network = keras.Model(inputs=[anchor_input, positive_input, negative_input], outputs=distances)


class SiameseModel(keras.Model):
    def __init__(self, siamese_network, margin=0.5):
        super().__init__()
        self.siamese_network = siamese_network
        self.margin = margin
        self.loss_tracker = keras.metrics.Mean(name="loss")

    def call(self, inputs):
        return self.siamese_network(inputs)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self._compute_loss(data)
        gradients = tape.gradient(loss, self.siamese_network.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.siamese_network.trainable_weights, strict=True))
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    def test_step(self, data):
        loss = self._compute_loss(data)
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    def _compute_loss(self, data):
        ap_distance, an_distance = self.siamese_network(data)
        loss = ap_distance - an_distance
        return ops.maximum(loss + self.margin, 0.0)

    @property
    def metrics(self):
        return [self.loss_tracker]


siamese_model = SiameseModel(siamese_network)
siamese_model.compile(optimizer=keras.optimizers.Adam(0.001))
history = siamese_model.fit(train_dataset, epochs=4, validation_data=val_dataset)

cosine_similarity = keras.metrics.CosineSimilarity()
sample = next(iter(val_dataset))
anchor_embedding, positive_embedding = embedding(sample[0]), embedding(sample[1])
print("Positive similarity:", cosine_similarity(anchor_embedding, positive_embedding).numpy())
