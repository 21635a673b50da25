"""Optimizers compared in a loop: Lion, EMA with SwapEMAWeights, AdamW with a warm-up"""

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(100)

x = np.random.normal(size=(192, 16)).astype("float32")
y = np.argmax(x[:, :4] + 0.3 * np.random.normal(size=(192, 4)), axis=1)


def build():
    return keras.Sequential([keras.Input((16,)), layers.Dense(32, activation="relu"), layers.Dense(4)])


schedule = keras.optimizers.schedules.PiecewiseConstantDecay([10, 20], [0.02, 0.01, 0.005])
warmup = keras.optimizers.schedules.CosineDecay(0.0, 30, warmup_target=0.01, warmup_steps=5)
candidates = {
    "lion": keras.optimizers.Lion(1e-3, weight_decay=1e-3),
    "ema": keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, use_ema=True, ema_momentum=0.9),
    "adamw": keras.optimizers.AdamW(warmup, global_clipnorm=1.0),
}
histories = {}
for name, optimizer in candidates.items():
    model = build()
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    callbacks = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if name == "ema" else None
    histories[name] = model.fit(x, y, batch_size=24, epochs=3, validation_split=0.25, callbacks=callbacks, verbose=0)
    if name == "ema":
        optimizer.finalize_variable_values(model.trainable_variables)
    print(name, histories[name].history["val_loss"])
