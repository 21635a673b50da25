"""Several inputs and outputs: a dictionary of losses with loss_weights, metrics per output, sample_weight per output"""

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(33)

num_tags, num_words, num_departments = 6, 50, 4
title_input = keras.Input(shape=(8,), name="title", dtype="int32")
body_input = keras.Input(shape=(12,), name="body", dtype="int32")
tags_input = keras.Input(shape=(num_tags,), name="tags")

title_features = layers.GRU(12)(layers.Embedding(num_words, 8)(title_input))
body_features = layers.GRU(8)(layers.Embedding(num_words, 8)(body_input))
x = layers.concatenate([title_features, body_features, tags_input])
priority_pred = layers.Dense(1, name="priority")(x)
department_pred = layers.Dense(num_departments, name="department")(x)

model = keras.Model(
    inputs=[title_input, body_input, tags_input],
    outputs={"priority": priority_pred, "department": department_pred},
)
model.compile(
    optimizer=keras.optimizers.RMSprop(1e-3),
    loss={
        "priority": keras.losses.BinaryCrossentropy(from_logits=True),
        "department": keras.losses.CategoricalCrossentropy(from_logits=True),
    },
    loss_weights={"priority": 1.0, "department": 0.2},
    metrics={"department": ["accuracy"]},
    weighted_metrics={"priority": [keras.metrics.BinaryAccuracy(threshold=0.0, name="hit")]},
)

size = 300
title_data = np.random.randint(num_words, size=(size, 8))
body_data = np.random.randint(num_words, size=(size, 12))
tags_data = np.random.randint(2, size=(size, num_tags)).astype("float32")
priority_targets = (tags_data[:, :1] + tags_data[:, 1:2] > 1).astype("float32")
dept_targets = keras.utils.to_categorical(title_data[:, 0] % num_departments, num_departments)

history = model.fit(
    {"title": title_data, "body": body_data, "tags": tags_data},
    {"priority": priority_targets, "department": dept_targets},
    sample_weight={
        "priority": np.where(priority_targets[:, 0] > 0, 2.0, 1.0),
        "department": np.ones(size),
    },
    epochs=3,
    batch_size=32,
    validation_split=0.2,
)
print({name: value.shape for name, value in model.predict([title_data, body_data, tags_data], verbose=0).items()})
