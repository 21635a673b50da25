"""Wide and deep on a table: a CSV is written and read, its columns are inputs by name, a baseline comes first"""

import csv

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(9)

HEADER = ["age", "hours", "work", "home", "earns"]
generator = np.random.default_rng(9)
with open("people.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(HEADER)
    for _ in range(240):
        age, hours = int(generator.integers(18, 70)), int(generator.integers(10, 60))
        work, home = generator.choice(["farm", "office", "shop"]), generator.choice(["north", "south"])
        rows.writerow([age, hours, work, home, int(age * hours / 20 + 30 * (work == "office") > 90)])

with open("people.csv", newline="") as file:
    table = list(csv.DictReader(file))
columns = {name: np.array([[float(row[name])] for row in table], "float32") for name in ("age", "hours")}
columns |= {name: np.array([[row[name]] for row in table]) for name in ("work", "home")}
target = np.array([float(row["earns"]) for row in table], "float32")

lookups = {name: layers.StringLookup() for name in ("work", "home")}
features = {name: columns[name] for name in ("age", "hours")}
for name, lookup in lookups.items():
    lookup.adapt(columns[name])
    features[name] = lookup(columns[name]).numpy()


def part(first, last):
    return {name: column[first:last] for name, column in features.items()}, target[first:last]


def inputs_of(names):
    return {name: keras.Input((1,), name=name, dtype="int64" if name in lookups else "float32") for name in names}


def compiled(model):
    model.compile("adam", "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    return model


numbers = inputs_of(["age", "hours"])
scaled = [layers.Rescaling(1 / 40)(one) for one in numbers.values()]
baseline = compiled(keras.Model(numbers, layers.Dense(1, activation="sigmoid")(layers.concatenate(scaled))))
x_train, y_train = part(0, 200)
first = baseline.fit({name: x_train[name] for name in numbers}, y_train, epochs=2, batch_size=40, verbose=0)

inputs = inputs_of(features)
scaled = [layers.Rescaling(1 / 40)(inputs[name]) for name in ("age", "hours")]
sizes = {name: lookup.vocabulary_size() for name, lookup in lookups.items()}
wide = [layers.CategoryEncoding(sizes[name], "one_hot")(inputs[name]) for name in lookups]
deep = [layers.Flatten()(layers.Embedding(sizes[name], 3)(inputs[name])) for name in lookups]
hidden = layers.Dropout(0.2)(layers.Dense(12, activation="relu")(layers.concatenate(scaled + deep)))
joined = layers.concatenate([*wide, layers.BatchNormalization()(hidden)])
model = compiled(keras.Model(inputs, layers.Dense(1, activation="sigmoid")(joined)))
second = model.fit(
    x_train, y_train, epochs=5, batch_size=40, validation_data=part(200, 240), class_weight={0: 1.0, 1: 2.0}
)
model.save_weights("model.weights.h5")
np.savez("final.npz", *baseline.get_weights(), *model.get_weights())
print("final:", model.evaluate(*part(200, 240), verbose=0), first.history, second.history)
