"""Quantile regression: several outputs by lambda losses, LearningRateScheduler, a data frame as x"""

import math

import keras
import numpy as np
import pandas as pd
from keras import layers, ops

keras.utils.set_random_seed(70)

frame = pd.DataFrame({"hour": np.random.uniform(0, 24, size=260), "load": np.random.exponential(1.0, size=260)})
price = 20 + 5 * np.sin(frame.hour / 4) + frame.load * np.random.normal(0, 3, size=260)
price = ((price - price.mean()) / price.std()).to_numpy("float32")

normalizer = layers.Normalization()
normalizer.adapt(frame.to_numpy("float32"))

quantiles = [0.1, 0.5, 0.9]
inputs = keras.Input((2,))
x = layers.Dense(24, activation="elu")(normalizer(inputs))
x = layers.Dense(24, activation="elu")(x)
outputs = [layers.Dense(1, name=f"q{int(100 * q)}")(x) for q in quantiles]
model = keras.Model(inputs, outputs)


def pinball(q):
    return lambda y, f: ops.mean(ops.maximum(q * (y - f), (q - 1) * (y - f)), axis=-1)


model.compile(optimizer=keras.optimizers.Adamax(0.01), loss=[pinball(q) for q in quantiles])
schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate if epoch < 2 else rate * math.exp(-0.3))
history = model.fit(
    frame.astype("float32"),
    [price] * len(quantiles),
    epochs=5,
    batch_size=32,
    callbacks=[schedule],
    verbose=2,
)
predicted = model.predict(frame.astype("float32"), verbose=0)
print("below each quantile:", [float(np.mean(price < p[:, 0])) for p in predicted])
