"""Imbalanced classification: class_weight, counting metrics, steps_per_execution and jit_compile"""

import keras
import numpy as np

keras.utils.set_random_seed(4)

rng = np.random.default_rng(4)
features = rng.normal(size=(400, 12)).astype("float32")
targets = (features[:, 0] + features[:, 1] > 2.2).astype("uint8")[:, None]
num_val_samples = int(len(features) * 0.2)
train_features, train_targets = features[:-num_val_samples], targets[:-num_val_samples]
val_features, val_targets = features[-num_val_samples:], targets[-num_val_samples:]

counts = np.bincount(train_targets[:, 0])
print(f"Number of positive samples in training data: {counts[1]} ({100 * float(counts[1]) / len(train_targets):.2f}%)")
weight_for_0 = 1.0 / counts[0]
weight_for_1 = 1.0 / counts[1]

mean = np.mean(train_features, axis=0)
train_features -= mean
val_features -= mean
std = np.std(train_features, axis=0)
train_features /= std
val_features /= std

model = keras.Sequential(
    [
        keras.Input(shape=train_features.shape[1:]),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
metrics = [
    keras.metrics.FalseNegatives(name="fn"),
    keras.metrics.FalsePositives(name="fp"),
    keras.metrics.TrueNegatives(name="tn"),
    keras.metrics.TruePositives(name="tp"),
    keras.metrics.Precision(name="precision"),
    keras.metrics.Recall(name="recall"),
]
model.compile(
    optimizer=keras.optimizers.Adam(1e-2),
    loss="binary_crossentropy",
    metrics=metrics,
    steps_per_execution=2,
    jit_compile=True,
)
history = model.fit(
    train_features,
    train_targets,
    batch_size=64,
    epochs=4,
    verbose=2,
    validation_data=(val_features, val_targets),
    class_weight={0: weight_for_0, 1: weight_for_1},
)
