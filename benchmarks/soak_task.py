"""The task of the soak: a dense network, which starts fast and computes much in a step. Light to import."""

from __future__ import annotations

from dataclasses import dataclass
from time import sleep

from tfscale.task import Task


@dataclass
class Perceptron(Task):
    """Layers of `width` on flat pictures; each step rests for `pause` seconds."""

    image_size: int = 28
    channels: int = 1
    num_classes: int = 10
    width: int = 1024
    layers: int = 3
    pause: float = 0.0

    def build_model(self):
        import keras
        from keras import layers

        inputs = keras.Input((self.image_size, self.image_size, self.channels), name="image")
        x = layers.Flatten()(layers.Rescaling(1 / 255)(inputs))
        for number in range(self.layers):
            x = layers.Dense(self.width, "relu", name=f"dense_{number}")(x)
            x = layers.Dropout(0.2, name=f"dropout_{number}")(x)
        return keras.Model(inputs, layers.Dense(self.num_classes, name="logits")(x))

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        image = batch["image"]
        if training and self.pause:
            with tf.control_dependencies([tf.py_function(lambda: sleep(self.pause), [], [])]):
                image = tf.identity(image)
        logits = model(image, training=training)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)
        return loss, {"accuracy": tf.cast(tf.equal(tf.argmax(logits, -1), batch["label"]), tf.float32)}
