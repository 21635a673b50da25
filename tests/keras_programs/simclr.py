"""Contrastive pretraining as in SimCLR: zipped data sets, two optimizers, train_step and test_step, then fine-tuning"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

keras.utils.set_random_seed(13)

image_size, width, temperature = 12, 16, 0.1
labels = np.random.randint(0, 3, size=200)
images = np.random.uniform(0, 0.5, size=(200, image_size, image_size, 3)).astype("float32")
for picture, label in zip(images, labels, strict=True):
    picture[3:9, 3:9, label] += 0.5

unlabeled = tf.data.Dataset.from_tensor_slices((images[:120], labels[:120])).shuffle(120, seed=1).batch(24)
labeled = tf.data.Dataset.from_tensor_slices((images[120:160], labels[120:160])).shuffle(40, seed=2).batch(8)
test_dataset = tf.data.Dataset.from_tensor_slices((images[160:], labels[160:])).batch(16)
train_dataset = tf.data.Dataset.zip((unlabeled, labeled)).prefetch(tf.data.AUTOTUNE)


def get_augmenter(min_area, brightness):
    zoom_factor = 1.0 - min_area**0.5
    return keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomTranslation(zoom_factor / 2, zoom_factor / 2),
            layers.RandomBrightness(brightness, value_range=(0, 1)),
        ]
    )


def get_encoder():
    return keras.Sequential(
        [
            layers.Conv2D(8, kernel_size=3, strides=2, activation="relu"),
            layers.Conv2D(8, kernel_size=3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(width, activation="relu"),
        ],
        name="encoder",
    )


class ContrastiveModel(keras.Model):
    def __init__(self):
        super().__init__()
        self.contrastive_augmenter = get_augmenter(0.25, 0.3)
        self.classification_augmenter = get_augmenter(0.75, 0.1)
        self.encoder = get_encoder()
        self.projection_head = keras.Sequential(
            [keras.Input(shape=(width,)), layers.Dense(width, activation="relu"), layers.Dense(width)]
        )
        self.linear_probe = keras.Sequential([layers.Input(shape=(width,)), layers.Dense(3)], name="linear_probe")

    def compile(self, contrastive_optimizer, probe_optimizer, **kwargs):
        super().compile(**kwargs)
        self.contrastive_optimizer = contrastive_optimizer
        self.probe_optimizer = probe_optimizer
        self.probe_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.contrastive_loss_tracker = keras.metrics.Mean(name="c_loss")
        self.contrastive_accuracy = keras.metrics.SparseCategoricalAccuracy(name="c_acc")
        self.probe_loss_tracker = keras.metrics.Mean(name="p_loss")
        self.probe_accuracy = keras.metrics.SparseCategoricalAccuracy(name="p_acc")

    @property
    def metrics(self):
        return [self.contrastive_loss_tracker, self.contrastive_accuracy, self.probe_loss_tracker, self.probe_accuracy]

    def contrastive_loss(self, projections_1, projections_2):
        projections_1 = ops.normalize(projections_1, axis=1)
        projections_2 = ops.normalize(projections_2, axis=1)
        similarities = ops.matmul(projections_1, ops.transpose(projections_2)) / temperature
        contrastive_labels = ops.arange(ops.shape(projections_1)[0])
        self.contrastive_accuracy.update_state(contrastive_labels, similarities)
        self.contrastive_accuracy.update_state(contrastive_labels, ops.transpose(similarities))
        loss_1_2 = keras.losses.sparse_categorical_crossentropy(contrastive_labels, similarities, from_logits=True)
        loss_2_1 = keras.losses.sparse_categorical_crossentropy(
            contrastive_labels, ops.transpose(similarities), from_logits=True
        )
        return ops.mean(loss_1_2 + loss_2_1) / 2

    def train_step(self, data):
        (unlabeled_images, _), (labeled_images, labels) = data
        images = ops.concatenate((unlabeled_images, labeled_images), axis=0)
        augmented_images_1 = self.contrastive_augmenter(images, training=True)
        augmented_images_2 = self.contrastive_augmenter(images, training=True)
        with tf.GradientTape() as tape:
            projections_1 = self.projection_head(self.encoder(augmented_images_1, training=True), training=True)
            projections_2 = self.projection_head(self.encoder(augmented_images_2, training=True), training=True)
            contrastive_loss = self.contrastive_loss(projections_1, projections_2)
        weights = self.encoder.trainable_weights + self.projection_head.trainable_weights
        self.contrastive_optimizer.apply_gradients(zip(tape.gradient(contrastive_loss, weights), weights, strict=True))
        self.contrastive_loss_tracker.update_state(contrastive_loss)

        preprocessed_images = self.classification_augmenter(labeled_images, training=True)
        with tf.GradientTape() as tape:
            class_logits = self.linear_probe(self.encoder(preprocessed_images, training=False), training=True)
            probe_loss = self.probe_loss(labels, class_logits)
        weights = self.linear_probe.trainable_weights
        self.probe_optimizer.apply_gradients(zip(tape.gradient(probe_loss, weights), weights, strict=True))
        self.probe_loss_tracker.update_state(probe_loss)
        self.probe_accuracy.update_state(labels, class_logits)
        return {m.name: m.result() for m in self.metrics}

    def test_step(self, data):
        labeled_images, labels = data
        class_logits = self.linear_probe(self.encoder(labeled_images, training=False), training=False)
        self.probe_loss_tracker.update_state(self.probe_loss(labels, class_logits))
        self.probe_accuracy.update_state(labels, class_logits)
        return {m.name: m.result() for m in self.metrics[2:]}


pretraining_model = ContrastiveModel()
pretraining_model.compile(contrastive_optimizer=keras.optimizers.Adam(), probe_optimizer=keras.optimizers.Adam())
pretraining_history = pretraining_model.fit(train_dataset, epochs=3, validation_data=test_dataset)

finetuning_model = keras.Sequential(
    [get_augmenter(0.75, 0.1), pretraining_model.encoder, layers.Dense(3)], name="finetuning_model"
)
finetuning_model.compile(
    optimizer=keras.optimizers.Adam(),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=[keras.metrics.SparseCategoricalAccuracy(name="acc")],
)
finetuning_history = finetuning_model.fit(labeled, epochs=3, validation_data=test_dataset)
