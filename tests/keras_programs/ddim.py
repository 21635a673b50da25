"""Denoising diffusion: train_step and test_step, an EMA copy of the network, Normalization adapted, drop_remainder"""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

keras.utils.set_random_seed(6)

image_size, batch_size, ema = 8, 32, 0.9
pictures = np.random.uniform(0, 0.3, size=(170, image_size, image_size, 3)).astype("float32")
pictures[:, 2:6, :, 0] += 0.6
train_dataset = (
    tf.data.Dataset.from_tensor_slices(pictures[:130])
    .cache()
    .shuffle(130, seed=6)
    .batch(batch_size, drop_remainder=True)
)
val_dataset = tf.data.Dataset.from_tensor_slices(pictures[130:]).batch(batch_size, drop_remainder=True)


@keras.saving.register_keras_serializable()
def sinusoidal_embedding(x):
    frequencies = ops.exp(ops.linspace(0.0, math.log(100.0), 4))
    angular_speeds = ops.cast(2.0 * math.pi * frequencies, "float32")
    return ops.concatenate([ops.sin(angular_speeds * x), ops.cos(angular_speeds * x)], axis=3)


def get_network(image_size):
    noisy_images = keras.Input(shape=(image_size, image_size, 3))
    noise_variances = keras.Input(shape=(1, 1, 1))
    e = layers.Lambda(sinusoidal_embedding, output_shape=(1, 1, 8))(noise_variances)
    e = layers.UpSampling2D(size=image_size, interpolation="nearest")(e)
    x = layers.Concatenate()([layers.Conv2D(8, kernel_size=1)(noisy_images), e])
    x = layers.Conv2D(16, kernel_size=3, padding="same", activation="swish")(x)
    x = layers.Conv2D(16, kernel_size=3, padding="same", activation="swish")(x)
    x = layers.Conv2D(3, kernel_size=1, kernel_initializer="zeros")(x)
    return keras.Model([noisy_images, noise_variances], x, name="residual_unet")


class DiffusionModel(keras.Model):
    def __init__(self, image_size):
        super().__init__()
        self.normalizer = layers.Normalization()
        self.network = get_network(image_size)
        self.ema_network = keras.models.clone_model(self.network)
        self.seed_generator = keras.random.SeedGenerator(5)

    def compile(self, **kwargs):
        super().compile(**kwargs)
        self.noise_loss_tracker = keras.metrics.Mean(name="n_loss")
        self.image_loss_tracker = keras.metrics.Mean(name="i_loss")

    @property
    def metrics(self):
        return [self.noise_loss_tracker, self.image_loss_tracker]

    def diffusion_schedule(self, diffusion_times):
        start_angle, end_angle = math.acos(0.95), math.acos(0.02)
        diffusion_angles = start_angle + diffusion_times * (end_angle - start_angle)
        return ops.sin(diffusion_angles), ops.cos(diffusion_angles)

    def denoise(self, noisy_images, noise_rates, signal_rates, training):
        network = self.network if training else self.ema_network
        pred_noises = network([noisy_images, noise_rates**2], training=training)
        return pred_noises, (noisy_images - noise_rates * pred_noises) / signal_rates

    def call(self, images):
        rates = ops.full((ops.shape(images)[0], 1, 1, 1), 0.5)
        return self.denoise(images, rates, rates, training=False)[1]

    def noised(self, images):
        images = self.normalizer(images, training=True)
        noises = keras.random.normal(shape=ops.shape(images), seed=self.seed_generator)
        diffusion_times = keras.random.uniform(shape=(ops.shape(images)[0], 1, 1, 1), seed=self.seed_generator)
        noise_rates, signal_rates = self.diffusion_schedule(diffusion_times)
        return images, noises, signal_rates * images + noise_rates * noises, noise_rates, signal_rates

    def train_step(self, images):
        images, noises, noisy_images, noise_rates, signal_rates = self.noised(images)
        with tf.GradientTape() as tape:
            pred_noises, pred_images = self.denoise(noisy_images, noise_rates, signal_rates, training=True)
            noise_loss = self.loss(noises, pred_noises)
            image_loss = self.loss(images, pred_images)
        gradients = tape.gradient(noise_loss, self.network.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.network.trainable_weights, strict=True))
        self.noise_loss_tracker.update_state(noise_loss)
        self.image_loss_tracker.update_state(image_loss)
        for weight, ema_weight in zip(self.network.weights, self.ema_network.weights, strict=True):
            ema_weight.assign(ema * ema_weight + (1 - ema) * weight)
        return {m.name: m.result() for m in self.metrics}

    def test_step(self, images):
        images, noises, noisy_images, noise_rates, signal_rates = self.noised(images)
        pred_noises, pred_images = self.denoise(noisy_images, noise_rates, signal_rates, training=False)
        self.noise_loss_tracker.update_state(self.loss(noises, pred_noises))
        self.image_loss_tracker.update_state(self.loss(images, pred_images))
        return {m.name: m.result() for m in self.metrics}


model = DiffusionModel(image_size)
model.compile(
    optimizer=keras.optimizers.AdamW(learning_rate=1e-3, weight_decay=1e-4), loss=keras.losses.mean_absolute_error
)
checkpoint_callback = keras.callbacks.ModelCheckpoint(
    filepath="diffusion_model.weights.h5", save_weights_only=True, monitor="val_n_loss", mode="min", save_best_only=True
)
model.normalizer.adapt(train_dataset)
model(pictures[:1])  # makes the variables, so that they can be saved
history = model.fit(train_dataset, epochs=3, validation_data=val_dataset, callbacks=[checkpoint_callback])
