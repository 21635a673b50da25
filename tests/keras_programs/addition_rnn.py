"""Sequence to sequence addition: one fit per iteration in a loop, strings as one-hot booleans"""

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(21)

DIGITS, REVERSE = 2, True
MAXLEN = DIGITS + 1 + DIGITS
chars = sorted("0123456789+ ")
char_indices = {c: i for i, c in enumerate(chars)}


def encode(text, rows):
    x = np.zeros((rows, len(chars)), dtype=bool)
    for i, c in enumerate(text):
        x[i, char_indices[c]] = True
    return x


questions, expected, seen = [], [], set()
while len(questions) < 300:
    a, b = (int(n) for n in np.random.randint(0, 10**DIGITS, size=2))
    key = tuple(sorted((a, b)))
    if key in seen:
        continue
    seen.add(key)
    query = f"{a}+{b}".ljust(MAXLEN)
    questions.append(query[::-1] if REVERSE else query)
    expected.append(str(a + b).ljust(DIGITS + 1))

x = np.array([encode(q, MAXLEN) for q in questions])
y = np.array([encode(e, DIGITS + 1) for e in expected])
split_at = len(x) - len(x) // 10
(x_train, x_val), (y_train, y_val) = (x[:split_at], x[split_at:]), (y[:split_at], y[split_at:])

model = keras.Sequential()
model.add(layers.Input((MAXLEN, len(chars))))
model.add(layers.LSTM(24))
model.add(layers.RepeatVector(DIGITS + 1))
model.add(layers.LSTM(24, return_sequences=True))
model.add(layers.Dense(len(chars), activation="softmax"))
model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])

losses = []
for epoch in range(1, 4):
    print()
    print("Iteration", epoch)
    history = model.fit(x_train, y_train, batch_size=32, epochs=1, validation_data=(x_val, y_val))
    losses += history.history["loss"]
    ind = np.random.randint(0, len(x_val))
    preds = np.argmax(model.predict(x_val[ind : ind + 1], verbose=0), axis=-1)
    guess = "".join(chars[i] for i in preds[0])
    print("Q", questions[split_at + ind][::-1], "T", expected[split_at + ind], "guess", guess)
