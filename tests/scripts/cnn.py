"""A small CNN as tutorials have it: callbacks, a plot, the best weights from a file, a second fit at a lower rate"""

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(42)

images = np.random.normal(0, 0.3, size=(160, 12, 12, 1)).astype("float32")
labels = np.random.randint(0, 3, size=160)
for image, label in zip(images, labels, strict=True):
    image[3 * label + 1 : 3 * label + 4, 2:10] += 1.0
x_train, x_test = images[:128], images[128:]
y_train, y_test = labels[:128], labels[128:]

model = keras.Sequential(
    [
        keras.Input((12, 12, 1)),
        layers.Conv2D(8, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.BatchNormalization(),
        layers.Flatten(),
        layers.Dropout(0.3),
        layers.Dense(3, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(
    x_train,
    y_train,
    batch_size=32,
    epochs=3,
    validation_split=0.2,
    callbacks=[
        keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau(patience=1, factor=0.5),
        keras.callbacks.CSVLogger("log.csv"),
        keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True),
    ],
)

try:
    import matplotlib.pyplot as plt
except ImportError:
    print("no plot without matplotlib")
else:
    plt.plot(history.epoch, history.history["loss"], label="loss")
    plt.plot(history.epoch, history.history["val_loss"], label="val_loss")
    plt.legend()
    plt.savefig("history.png")

best = keras.models.load_model("best.keras")
print("best:", best.evaluate(x_test, y_test, verbose=0))

best.optimizer.learning_rate = 1e-4
more = best.fit(
    x_train,
    y_train,
    batch_size=32,
    epochs=9,
    initial_epoch=3,
    validation_data=(x_test, y_test),
    verbose=2,
    callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9)],
)
best.save("final.keras")
loaded = keras.models.load_model("final.keras")
np.savez("final.npz", *loaded.get_weights())
print("final:", loaded.evaluate(x_test, y_test, verbose=0), history.history, more.history, more.epoch)
