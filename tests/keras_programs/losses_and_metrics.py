"""Own losses and metrics: add_loss in a layer, an activity regularizer, a loss class, a metric with a dictionary"""

import keras
import numpy as np
from keras import layers, ops

keras.utils.set_random_seed(80)


class SparsityPenalty(layers.Layer):
    def __init__(self, rate=1e-2):
        super().__init__()
        self.rate = rate

    def call(self, inputs):
        self.add_loss(self.rate * ops.mean(ops.abs(inputs)))
        return inputs


class WeightedLogLoss(keras.losses.Loss):
    def __init__(self, pos_weight, name="weighted_log_loss"):
        super().__init__(name=name)
        self.pos_weight = pos_weight

    def call(self, y_true, y_pred):
        y_pred = ops.clip(y_pred, 1e-6, 1 - 1e-6)
        losses = self.pos_weight * y_true * ops.log(y_pred) + (1 - y_true) * ops.log(1 - y_pred)
        return -ops.mean(losses, axis=-1)


class Rates(keras.metrics.Metric):
    """True positive and true negative rates at once."""

    def __init__(self, name="rates", **kwargs):
        super().__init__(name=name, **kwargs)
        self.counts = self.add_weight(name="counts", shape=(4,), initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        true, found = ops.cast(y_true, "bool"), y_pred > 0.5
        hits = [true & found, true, ~true & ~found, ~true]
        self.counts.assign_add(ops.stack([ops.sum(ops.cast(hit, self.dtype)) for hit in hits]))

    def result(self):
        c = self.counts
        return {"tpr": ops.divide_no_nan(c[0], c[1]), "tnr": ops.divide_no_nan(c[2], c[3])}


def mean_prediction(y_true, y_pred):
    return ops.mean(y_pred, axis=-1)


inputs = keras.Input((10,))
x = layers.Dense(20, activation="relu", activity_regularizer=keras.regularizers.L2(1e-3))(inputs)
x = SparsityPenalty()(x)
x = layers.Dense(20, activation="relu", kernel_regularizer="l1")(x)
model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))

model.compile(
    optimizer=keras.optimizers.Adam(0.01, clipnorm=1.0),
    loss=WeightedLogLoss(pos_weight=2.0),
    metrics=[Rates(), mean_prediction, keras.metrics.AUC(name="auc")],
)
x = np.random.normal(size=(200, 10)).astype("float32")
y = (x[:, :1] > 0.5).astype("float32")
sample_weight = np.where(np.abs(x[:, 0] - 0.5) < 0.1, 0.5, 1.0)
history = model.fit(
    x[:150],
    y[:150],
    sample_weight=sample_weight[:150],
    batch_size=24,
    epochs=3,
    validation_data=(x[150:], y[150:], sample_weight[150:]),
)
