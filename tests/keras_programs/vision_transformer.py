"""A vision transformer: own layers, AdamW with weight decay, top-5 accuracy, save_weights_only"""

import keras
import numpy as np
from keras import layers, ops

keras.utils.set_random_seed(3)

num_classes, image_size, patch_size = 8, 16, 4
num_patches = (image_size // patch_size) ** 2
projection_dim, num_heads, transformer_layers = 16, 2, 2

rng = np.random.default_rng(3)
y_train = rng.integers(0, num_classes, size=(256, 1))
x_train = rng.normal(size=(256, image_size, image_size, 3)).astype("float32")
x_train += np.sin(np.arange(image_size) * (y_train + 1) / 3)[:, None, :, None].astype("float32")
x_test, y_test = x_train[200:], y_train[200:]
x_train, y_train = x_train[:200], y_train[:200]

data_augmentation = keras.Sequential(
    [layers.Normalization(), layers.RandomFlip("horizontal")], name="data_augmentation"
)
data_augmentation.layers[0].adapt(x_train)


class Patches(layers.Layer):
    def __init__(self, patch_size):
        super().__init__()
        self.patch_size = patch_size

    def call(self, images):
        batch_size, height, width, channels = ops.shape(images)
        patches = ops.image.extract_patches(images, size=self.patch_size)
        count = (height // self.patch_size) * (width // self.patch_size)
        return ops.reshape(patches, (batch_size, count, self.patch_size * self.patch_size * channels))

    def get_config(self):
        return {**super().get_config(), "patch_size": self.patch_size}


class PatchEncoder(layers.Layer):
    def __init__(self, num_patches, projection_dim):
        super().__init__()
        self.num_patches = num_patches
        self.projection = layers.Dense(units=projection_dim)
        self.position_embedding = layers.Embedding(input_dim=num_patches, output_dim=projection_dim)

    def call(self, patch):
        positions = ops.expand_dims(ops.arange(start=0, stop=self.num_patches, step=1), axis=0)
        return self.projection(patch) + self.position_embedding(positions)


def create_vit_classifier():
    inputs = keras.Input(shape=(image_size, image_size, 3))
    encoded = PatchEncoder(num_patches, projection_dim)(Patches(patch_size)(data_augmentation(inputs)))
    for _ in range(transformer_layers):
        x1 = layers.LayerNormalization(epsilon=1e-6)(encoded)
        attention = layers.MultiHeadAttention(num_heads=num_heads, key_dim=projection_dim, dropout=0.1)(x1, x1)
        x2 = layers.Add()([attention, encoded])
        x3 = layers.LayerNormalization(epsilon=1e-6)(x2)
        x3 = layers.Dropout(0.1)(layers.Dense(2 * projection_dim, activation=keras.activations.gelu)(x3))
        encoded = layers.Add()([layers.Dense(projection_dim)(x3), x2])
    representation = layers.Flatten()(layers.LayerNormalization(epsilon=1e-6)(encoded))
    return keras.Model(inputs=inputs, outputs=layers.Dense(num_classes)(layers.Dropout(0.5)(representation)))


def run_experiment(model):
    model.compile(
        optimizer=keras.optimizers.AdamW(learning_rate=0.001, weight_decay=0.0001),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseTopKCategoricalAccuracy(5, name="top-5-accuracy"),
        ],
    )
    checkpoint_filepath = "checkpoint.weights.h5"
    checkpoint_callback = keras.callbacks.ModelCheckpoint(
        checkpoint_filepath, monitor="val_accuracy", save_best_only=True, save_weights_only=True
    )
    history = model.fit(
        x=x_train, y=y_train, batch_size=64, epochs=3, validation_split=0.1, callbacks=[checkpoint_callback]
    )
    model.load_weights(checkpoint_filepath)
    _, accuracy, top_5_accuracy = model.evaluate(x_test, y_test)
    print(f"Test accuracy: {accuracy * 100:.2f}%, top 5: {top_5_accuracy * 100:.2f}%")
    return history


vit_classifier = create_vit_classifier()
history = run_experiment(vit_classifier)
