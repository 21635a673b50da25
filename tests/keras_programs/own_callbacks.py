"""Own callbacks: losses per batch in self.losses, a rate changed at batches, stop_training, on_test_* and on_train_*"""

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(120)


class LossHistory(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))


class WarmUp(keras.callbacks.Callback):
    """A learning rate that grows with every batch."""

    def __init__(self, target, batches):
        super().__init__()
        self.target, self.batches, self.seen = target, batches, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.seen += 1
        self.model.optimizer.learning_rate = self.target * min(1.0, self.seen / self.batches)


class StopAtAccuracy(keras.callbacks.Callback):
    def __init__(self, wished):
        super().__init__()
        self.wished = wished
        self.evaluations = 0
        self.epoch_losses = []

    def on_test_end(self, logs=None):
        self.evaluations += 1

    def on_epoch_end(self, epoch, logs=None):
        self.epoch_losses.append(logs["val_loss"])
        if logs["val_accuracy"] >= self.wished:
            print(f"Epoch {epoch}: accurate enough")
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        print("ended after", len(self.epoch_losses), "epochs and", self.evaluations, "evaluations")


x = np.random.normal(size=(230, 12)).astype("float32")
y = np.argmax(x[:, :3], axis=1)
model = keras.Sequential(
    [keras.Input((12,)), layers.Dense(24, activation="relu"), layers.Dense(3, activation="softmax")]
)
model.compile(optimizer=keras.optimizers.Adam(0.001), loss="sparse_categorical_crossentropy", metrics=["accuracy"])

losses = LossHistory()
history = model.fit(
    x,
    y,
    batch_size=32,
    epochs=8,
    validation_split=0.2,
    callbacks=[losses, WarmUp(0.02, 10), StopAtAccuracy(0.75)],
    verbose=0,
)
print(len(losses.losses), "batches, the last loss", round(losses.losses[-1], 4))
