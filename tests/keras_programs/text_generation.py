"""Character-level text generation: a generator with steps_per_epoch and validation_steps, LambdaCallback"""

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(130)

text = "the quick brown fox jumps over the lazy dog and the lazy dog sleeps on while the quick fox runs away. " * 4
chars = sorted(set(text))
char_indices = {c: i for i, c in enumerate(chars)}
encoded = np.array([char_indices[c] for c in text])
maxlen, batch_size = 12, 16


def batches(start, end):
    """Windows one after the other, for ever."""
    while True:
        starts = range(start, end - maxlen - 1)
        for i in range(0, len(starts) - batch_size, batch_size):
            x = np.zeros((batch_size, maxlen, len(chars)), dtype="float32")
            y = np.zeros((batch_size, len(chars)), dtype="float32")
            for row, first in enumerate(starts[i : i + batch_size]):
                x[row, np.arange(maxlen), encoded[first : first + maxlen]] = 1
                y[row, encoded[first + maxlen]] = 1
            yield x, y


def sample(preds, temperature=0.5):
    preds = np.log(np.asarray(preds).astype("float64")) / temperature
    preds = np.exp(preds) / np.sum(np.exp(preds))
    return np.argmax(np.random.multinomial(1, preds, 1))


def generate(epoch, logs):
    window, generated = encoded[:maxlen].copy(), ""
    for _ in range(10):
        x_pred = keras.utils.to_categorical(window, len(chars))[None]
        next_index = sample(model.predict(x_pred, verbose=0)[0])
        generated += chars[next_index]
        window = np.append(window[1:], next_index)
    print(f"epoch {epoch}, loss {logs['loss']:.3f}: {text[:maxlen]}|{generated}")


model = keras.Sequential(
    [
        keras.Input(shape=(maxlen, len(chars))),
        layers.LSTM(24),
        layers.Dense(len(chars), activation="softmax"),
    ]
)
model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.RMSprop(learning_rate=0.01))

split = int(len(text) * 0.8)
history = model.fit(
    batches(0, split),
    steps_per_epoch=12,
    epochs=3,
    validation_data=batches(split, len(text)),
    validation_steps=3,
    callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=generate)],
    verbose=0,
)
