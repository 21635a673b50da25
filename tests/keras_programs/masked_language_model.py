"""Masked language modelling: an own train_step over (features, labels, weights), trackers in `metrics`"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

keras.utils.set_random_seed(30)

MAX_LEN, VOCAB, EMBED_DIM, MASK = 12, 40, 16, 39
rng = np.random.default_rng(30)
encoded = rng.integers(1, VOCAB - 1, size=(200, 1)) + np.arange(MAX_LEN) * rng.integers(1, 3, size=(200, 1))
encoded = (encoded % (VOCAB - 2)) + 1


def get_masked_input_and_labels(encoded_texts):
    inp_mask = rng.random(encoded_texts.shape) < 0.2
    masked = np.where(inp_mask, MASK, encoded_texts)
    return masked, encoded_texts.copy(), inp_mask.astype("float32")


x_masked, y_masked, sample_weights = get_masked_input_and_labels(encoded)
mlm_ds = tf.data.Dataset.from_tensor_slices((x_masked, y_masked, sample_weights)).shuffle(1000, seed=1).batch(32)


class MaskedLanguageModel(keras.Model):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_fn = keras.losses.SparseCategoricalCrossentropy(reduction=None)
        self.loss_tracker = keras.metrics.Mean(name="loss")

    def train_step(self, inputs):
        features, labels, sample_weight = inputs
        with tf.GradientTape() as tape:
            predictions = self(features, training=True)
            loss = self.loss_fn(labels, predictions, sample_weight=sample_weight)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        self.loss_tracker.update_state(loss, sample_weight=sample_weight)
        return {"loss": self.loss_tracker.result()}

    @property
    def metrics(self):
        return [self.loss_tracker]


def create_masked_language_bert_model():
    inputs = layers.Input((MAX_LEN,), dtype="int64")
    word_embeddings = layers.Embedding(VOCAB, EMBED_DIM, name="word_embedding")(inputs)
    positions = keras.ops.expand_dims(np.sin(np.arange(MAX_LEN)[:, None] / 3 ** np.arange(EMBED_DIM)), 0)
    embeddings = word_embeddings + keras.ops.cast(positions, "float32")
    attention = layers.MultiHeadAttention(num_heads=2, key_dim=8)(embeddings, embeddings, embeddings)
    x = layers.LayerNormalization(epsilon=1e-6)(embeddings + attention)
    x = layers.LayerNormalization(epsilon=1e-6)(x + layers.Dense(EMBED_DIM, activation="relu")(x))
    outputs = layers.Dense(VOCAB, name="mlm_cls", activation="softmax")(x)
    mlm_model = MaskedLanguageModel(inputs, outputs, name="masked_bert_model")
    mlm_model.compile(optimizer=keras.optimizers.Adam(learning_rate=0.005))
    return mlm_model


bert_masked_model = create_masked_language_bert_model()
bert_masked_model.summary()
history = bert_masked_model.fit(mlm_ds, epochs=4)
bert_masked_model.save("bert_mlm.keras")
