"""Wide and deep on a CSV: StringLookup and Normalization adapted, several named inputs, a data frame's columns"""

import tempfile

import keras
import numpy as np
import pandas as pd
from keras import layers

keras.utils.set_random_seed(9)

rng = np.random.default_rng(9)
frame = pd.DataFrame(
    {
        "elevation": rng.normal(2800, 300, size=320).round(1),
        "slope": rng.integers(0, 45, size=320),
        "area": rng.choice(["rawah", "neota", "comanche", "poudre"], size=320),
        "soil": rng.choice([f"soil_{i}" for i in range(8)], size=320),
    }
)
frame["cover"] = (frame.elevation > 2850).astype(int) + (frame["area"] == "rawah").astype(int)
with tempfile.NamedTemporaryFile("w", suffix=".csv", delete=False) as file:
    frame.to_csv(file, index=False)

data = pd.read_csv(file.name)
train_data, test_data = data[:256], data[256:]
NUMERIC, CATEGORICAL = ["elevation", "slope"], ["area", "soil"]


def columns(frame):
    features = {name: frame[name].to_numpy("float32")[:, None] for name in NUMERIC}
    for name in CATEGORICAL:
        features[name] = lookups[name](frame[name].to_numpy(str)[:, None]).numpy()
    return features, frame["cover"].to_numpy()


lookups = {name: layers.StringLookup(vocabulary=sorted(train_data[name].unique())) for name in CATEGORICAL}
normalizers = {name: layers.Normalization(axis=None) for name in NUMERIC}
for name, normalizer in normalizers.items():
    normalizer.adapt(train_data[name].to_numpy("float32"))


def encode(inputs, use_embedding):
    encoded = [normalizers[name](inputs[name]) for name in NUMERIC]
    for name in CATEGORICAL:
        size = lookups[name].vocabulary_size()
        if use_embedding:
            encoded.append(layers.Flatten()(layers.Embedding(size, 4)(inputs[name])))
        else:
            encoded.append(layers.CategoryEncoding(num_tokens=size, output_mode="multi_hot")(inputs[name]))
    return layers.concatenate(encoded)


inputs = {name: layers.Input((1,), name=name) for name in NUMERIC}
inputs |= {name: layers.Input((1,), name=name, dtype="int64") for name in CATEGORICAL}
wide = layers.BatchNormalization()(encode(inputs, use_embedding=False))
deep = encode(inputs, use_embedding=True)
for units in (16, 16):
    deep = layers.Dropout(0.1)(layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(deep))))
merged = layers.concatenate([wide, deep])
model = keras.Model(inputs=inputs, outputs=layers.Dense(3, activation="softmax")(merged))

model.compile(
    optimizer=keras.optimizers.Adam(learning_rate=0.001),
    loss=keras.losses.SparseCategoricalCrossentropy(),
    metrics=[keras.metrics.SparseCategoricalAccuracy()],
)
x_train, y_train = columns(train_data)
history = model.fit(x_train, y_train, batch_size=50, epochs=4)
_, accuracy = model.evaluate(*columns(test_data), verbose=0)
print(f"Test accuracy: {round(accuracy * 100, 2)}%")
