"""K-fold cross-validation: a model and a fit per fold, clear_session between them, EarlyStopping"""

import keras
import numpy as np
from keras import layers
from sklearn.model_selection import KFold

keras.utils.set_random_seed(60)

x = np.random.normal(size=(150, 8)).astype("float32")
y = (x @ np.random.normal(size=8) + np.random.normal(0, 0.2, size=150)).astype("float32")


def build_model():
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, activation="tanh"), layers.Dense(16, activation="tanh"), layers.Dense(1)]
    )
    model.compile(optimizer=keras.optimizers.SGD(0.02, momentum=0.9), loss="mse", metrics=["mae"])
    return model


scores, histories = [], []
for fold, (train, test) in enumerate(KFold(n_splits=3, shuffle=True, random_state=0).split(x)):
    keras.backend.clear_session()
    model = build_model()
    history = model.fit(
        x[train],
        y[train],
        batch_size=16,
        epochs=4,
        validation_data=(x[test], y[test]),
        callbacks=[keras.callbacks.EarlyStopping(patience=1, min_delta=0.05)],
        verbose=0,
    )
    histories.append(history.history)
    scores.append(model.evaluate(x[test], y[test], verbose=0)[1])
    print(f"fold {fold}: {len(history.epoch)} epochs, mae {scores[-1]:.3f}")
print(f"mean mae {np.mean(scores):.3f} +- {np.std(scores):.3f}")
