"""A variational autoencoder with a train_step of its own, trained quickly and then on; data without y"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

keras.utils.set_random_seed(7)


class Sampling(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(7)

    def call(self, inputs):
        mean, log_var = inputs
        return mean + ops.exp(0.5 * log_var) * keras.random.normal(ops.shape(mean), seed=self.seed_generator)


inputs = keras.Input((8, 8, 1))
x = layers.Dense(32, activation="relu")(layers.Flatten()(inputs))
mean, log_var = layers.Dense(2)(x), layers.Dense(2)(x)
encoder = keras.Model(inputs, [mean, log_var, Sampling()([mean, log_var])])

codes = keras.Input((2,))
x = layers.Dense(64, activation="sigmoid")(layers.Dense(32, activation="relu")(codes))
decoder = keras.Model(codes, layers.Reshape((8, 8, 1))(x))


class VAE(keras.Model):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.kl_tracker = keras.metrics.Mean(name="kl_loss")

    @property
    def metrics(self):
        return [self.loss_tracker, self.kl_tracker]

    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, log_var, z = self.encoder(data)
            made = self.decoder(z)
            kl = ops.mean(ops.sum(-0.5 * (1 + log_var - ops.square(mean) - ops.exp(log_var)), axis=1))
            loss = ops.mean(ops.sum(ops.square(ops.reshape(data - made, (-1, 64))), axis=1)) + kl
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.loss_tracker.update_state(loss)
        self.kl_tracker.update_state(kl)
        return {"loss": self.loss_tracker.result(), "kl_loss": self.kl_tracker.result()}


pictures = np.zeros((128, 8, 8, 1), "float32")
for picture, place in zip(pictures, np.random.randint(1, 5, size=128), strict=True):
    picture[place : place + 2, 1:6] = 1.0

vae = VAE(encoder, decoder)
vae.compile(keras.optimizers.Adam(1e-2))
first = vae.fit(pictures, epochs=2, batch_size=32)

pictures = np.roll(pictures, np.random.randint(1, 3), axis=1)
vae.compile(keras.optimizers.Adam(1e-3))
second = vae.fit(pictures, epochs=5, batch_size=32, verbose=2)

grid = np.array([[a, b] for a in (-1.0, 0.0, 1.0) for b in (-1.0, 0.0, 1.0)])
sheet = decoder.predict(grid, verbose=0)
encoder.save_weights("encoder.weights.h5")
np.savez("final.npz", sheet, *encoder.get_weights(), *decoder.get_weights())
print("final:", float(sheet.mean()), first.history, second.history)
