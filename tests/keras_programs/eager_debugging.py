"""Debugging with run_eagerly: a train_step in low-level steps that prints and uses NumPy, layers written in Python"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

keras.utils.set_random_seed(110)


class Antirectifier(layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1] * 2, 8), initializer="he_normal", name="kernel")

    def call(self, inputs):
        inputs = inputs - tf.reduce_mean(inputs, axis=-1, keepdims=True)
        pos, neg = tf.nn.relu(inputs), tf.nn.relu(-inputs)
        return tf.matmul(tf.concat([pos, neg], axis=-1), self.kernel)


class MyModel(keras.Model):
    def train_step(self, data):
        inputs, targets = data
        with tf.GradientTape() as tape:
            y_pred = self(inputs, training=True)
            loss = self.compute_loss(y=targets, y_pred=y_pred)
        gradients = tape.gradient(loss, self.trainable_weights)
        norms = [float(np.linalg.norm(g.numpy())) for g in gradients]
        print("step", int(self.optimizer.iterations.numpy()), "largest gradient", round(max(norms), 3))
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(targets, y_pred)
        return {m.name: m.result() for m in self.metrics}


inputs = keras.Input((6,))
outputs = layers.Dense(3)(Antirectifier()(layers.Dense(8)(inputs)))
model = MyModel(inputs, outputs)
model.compile(
    optimizer=keras.optimizers.Ftrl(0.05),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
    run_eagerly=True,
)
x = np.random.normal(size=(70, 6)).astype("float32")
y = np.argmax(x[:, :3], axis=1)
history = model.fit(x, y, epochs=2, batch_size=16, verbose=2)
