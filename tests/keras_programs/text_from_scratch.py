"""Text classification from scratch: TextVectorization adapted, tf.data with a remainder, an end-to-end model"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

keras.utils.set_random_seed(5)

good, bad = ["great", "lovely", "moving", "fine"], ["awful", "dull", "boring", "weak"]
filler = ["the", "film", "was", "and", "its", "plot", "<br />", "with", "actors", "music"]
rng = np.random.default_rng(5)
texts, labels = [], []
for _ in range(210):
    label = int(rng.integers(2))
    words = list(rng.choice(filler, size=rng.integers(4, 12))) + list(rng.choice(good if label else bad, size=2))
    rng.shuffle(words)
    texts.append(" ".join(words).capitalize() + "!")
    labels.append(label)

raw_ds = tf.data.Dataset.from_tensor_slices((texts, np.array(labels, dtype="float32")))
raw_train_ds, raw_val_ds, raw_test_ds = (
    raw_ds.take(150).batch(32),
    raw_ds.skip(150).take(30).batch(32),
    raw_ds.skip(180).batch(32),
)


def custom_standardization(input_data):
    lowercase = tf.strings.lower(input_data)
    stripped_html = tf.strings.regex_replace(lowercase, "<br />", " ")
    return tf.strings.regex_replace(stripped_html, "[!.,]", "")


max_features, embedding_dim, sequence_length = 200, 16, 14
vectorize_layer = keras.layers.TextVectorization(
    standardize=custom_standardization,
    max_tokens=max_features,
    output_mode="int",
    output_sequence_length=sequence_length,
)
vectorize_layer.adapt(raw_train_ds.map(lambda x, y: x))


def vectorize_text(text, label):
    return vectorize_layer(tf.expand_dims(text, -1)), label


train_ds = raw_train_ds.map(vectorize_text).cache().prefetch(buffer_size=10)
val_ds = raw_val_ds.map(vectorize_text).cache().prefetch(buffer_size=10)
test_ds = raw_test_ds.map(vectorize_text).cache().prefetch(buffer_size=10)

inputs = keras.Input(shape=(None,), dtype="int64")
x = layers.Embedding(max_features, embedding_dim)(inputs)
x = layers.Conv1D(16, 5, padding="valid", activation="relu", strides=2)(x)
x = layers.GlobalMaxPooling1D()(x)
x = layers.Dense(16, activation="relu")(x)
predictions = layers.Dense(1, activation="sigmoid", name="predictions")(x)
model = keras.Model(inputs, predictions)
model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])

history = model.fit(train_ds, validation_data=val_ds, epochs=4)
model.evaluate(test_ds)

# A model that takes raw strings
string_input = keras.Input(shape=(1,), dtype="string")
end_to_end_model = keras.Model(string_input, model(vectorize_layer(string_input)))
end_to_end_model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
end_to_end_model.evaluate(raw_test_ds.map(lambda x, y: (tf.expand_dims(x, -1), y)))
