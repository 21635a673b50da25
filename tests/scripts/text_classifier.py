"""A text classifier from raw strings: TextVectorization is adapted, tf.data shuffles, and a model of strings is saved"""

import random

import keras
import numpy as np
import tensorflow as tf
from keras import layers

keras.utils.set_random_seed(1337)

GOOD, BAD = ["great", "lovely", "moving", "bright", "fine"], ["dull", "awful", "boring", "flat", "weak"]
PLAIN = ["the", "film", "was", "a", "story", "and", "actors", "were", "plot"]


def review(label):
    words = random.choices(PLAIN, k=8) + random.choices(GOOD if label else BAD, k=2)
    random.shuffle(words)
    return " ".join(words)


labels = [random.randint(0, 1) for _ in range(200)]
texts = [review(label) for label in labels]
whole = tf.data.Dataset.from_tensor_slices((texts, labels))
train = whole.take(160).shuffle(160).batch(20)
test = whole.skip(160).batch(20)

vectorize = layers.TextVectorization(max_tokens=50, output_sequence_length=10)
vectorize.adapt(train.map(lambda text, label: text))
train_ids = train.map(lambda text, label: (vectorize(text), label))
test_ids = test.map(lambda text, label: (vectorize(text), label))

inputs = keras.Input((None,), dtype="int64")
x = layers.Embedding(50, 8)(inputs)
x = layers.Dropout(0.4)(x)
x = layers.Conv1D(16, 3, activation="relu", padding="same")(x)
x = layers.GlobalMaxPooling1D()(x)
model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))

model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
first = model.fit(train_ids, validation_data=test_ids, epochs=2)

model.compile(keras.optimizers.RMSprop(1e-2), "binary_crossentropy", metrics=["accuracy"])
second = model.fit(train_ids, validation_data=test_ids, epochs=4, verbose=2)

strings = keras.Input((1,), dtype="string")
end_to_end = keras.Model(strings, model(vectorize(strings)))
end_to_end.save("strings.keras")
sayings = keras.models.load_model("strings.keras").predict(tf.constant([[texts[0]], [texts[1]]]), verbose=0)
np.savez("final.npz", *model.get_weights())
print("final:", model.evaluate(test_ids, verbose=0), sayings.tolist(), first.history, second.history)
