"""Mixed precision: the policy mixed_float16 with its LossScaleOptimizer, a float32 head, a cosine schedule"""

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(90)
keras.mixed_precision.set_global_policy("mixed_float16")

inputs = keras.Input(shape=(64,), name="digits")
x = layers.Dense(64, activation="relu", name="dense_1")(inputs)
x = layers.Dense(64, activation="relu", name="dense_2")(x)
print("compute and variables:", x.dtype, model_dtype := keras.mixed_precision.global_policy().variable_dtype)
x = layers.Dense(10, name="dense_logits")(x)
outputs = layers.Activation("softmax", dtype="float32", name="predictions")(x)
model = keras.Model(inputs=inputs, outputs=outputs)

steps = 4 * 7
model.compile(
    loss="sparse_categorical_crossentropy",
    optimizer=keras.optimizers.RMSprop(keras.optimizers.schedules.CosineDecay(2e-3, decay_steps=steps)),
    metrics=["accuracy"],
)

y = np.random.randint(0, 10, size=280)
x = (np.random.normal(size=(280, 64)) + np.sin(np.outer(y + 1, np.arange(64)))).astype("float32")
history = model.fit(x[:224], y[:224], batch_size=32, epochs=4, validation_split=0.2)
test_scores = model.evaluate(x[224:], y[224:], verbose=2)
print("Test loss:", test_scores[0])
print("Test accuracy:", test_scores[1])
