"""Structured data with FeatureSpace: dictionaries of columns, preprocessing in tf.data, an inference model"""

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras.utils import FeatureSpace

keras.utils.set_random_seed(1)

rng = np.random.default_rng(1)
dataframe = pd.DataFrame(
    {
        "age": rng.integers(30, 75, size=240),
        "sex": rng.integers(0, 2, size=240),
        "cp": rng.integers(0, 5, size=240),
        "chol": rng.normal(240, 40, size=240),
        "oldpeak": rng.exponential(1.0, size=240),
        "thal": rng.choice(["fixed", "normal", "reversible"], size=240),
    }
)
dataframe["target"] = ((dataframe.age > 55) & (dataframe.thal != "normal") | (dataframe.oldpeak > 2)).astype(int)

val_dataframe = dataframe.sample(frac=0.2, random_state=1337)
train_dataframe = dataframe.drop(val_dataframe.index)


def dataframe_to_dataset(dataframe):
    dataframe = dataframe.copy()
    labels = dataframe.pop("target")
    columns = {name: column.to_numpy() for name, column in dataframe.items()}
    columns["thal"] = columns["thal"].astype(str)
    ds = tf.data.Dataset.from_tensor_slices((columns, labels.to_numpy()))
    return ds.shuffle(buffer_size=len(dataframe), seed=2)


train_ds = dataframe_to_dataset(train_dataframe).batch(32)
val_ds = dataframe_to_dataset(val_dataframe).batch(32)

feature_space = FeatureSpace(
    features={
        "sex": FeatureSpace.integer_categorical(num_oov_indices=0),
        "cp": FeatureSpace.integer_categorical(num_oov_indices=0),
        "thal": FeatureSpace.string_categorical(num_oov_indices=0),
        "age": FeatureSpace.float_discretized(num_bins=10),
        "chol": FeatureSpace.float_normalized(),
        "oldpeak": FeatureSpace.float_normalized(),
    },
    crosses=[FeatureSpace.cross(feature_names=("sex", "age"), crossing_dim=16)],
    output_mode="concat",
)
feature_space.adapt(train_ds.map(lambda x, _: x))

preprocessed_train_ds = train_ds.map(lambda x, y: (feature_space(x), y)).prefetch(tf.data.AUTOTUNE)
preprocessed_val_ds = val_ds.map(lambda x, y: (feature_space(x), y)).prefetch(tf.data.AUTOTUNE)

dict_inputs = feature_space.get_inputs()
encoded_features = feature_space.get_encoded_features()
x = keras.layers.Dense(16, activation="relu")(encoded_features)
x = keras.layers.Dropout(0.5)(x)
predictions = keras.layers.Dense(1, activation="sigmoid")(x)

training_model = keras.Model(inputs=encoded_features, outputs=predictions)
training_model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
inference_model = keras.Model(inputs=dict_inputs, outputs=predictions)

history = training_model.fit(preprocessed_train_ds, epochs=5, validation_data=preprocessed_val_ds, verbose=2)

sample = {"age": 60, "chol": 233.0, "cp": 1, "oldpeak": 2.3, "sex": 1, "thal": "fixed"}
input_dict = {name: tf.convert_to_tensor([value]) for name, value in sample.items()}
print(f"This particular patient had a {100 * inference_model.predict(input_dict, verbose=0)[0][0]:.2f}% probability")
