"""Reading captchas with CTC: a loss layer that calls add_loss, labels among the inputs, compiled without a loss"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

keras.utils.set_random_seed(42)

characters = list("abcdef")
max_length, width, height, batch_size = 3, 24, 8, 16
char_to_num = layers.StringLookup(vocabulary=characters, mask_token=None)

rng = np.random.default_rng(42)
labels = ["".join(rng.choice(characters, size=max_length)) for _ in range(150)]
patterns = rng.normal(size=(len(characters), width // max_length, height))
images = np.stack([np.concatenate([patterns[characters.index(c)] for c in label]) for label in labels])
images = (images + rng.normal(0, 0.2, size=images.shape)).astype("float32")[..., None]


def encode_single_sample(image, label):
    return {"image": image, "label": char_to_num(tf.strings.unicode_split(label, input_encoding="UTF-8"))}


def dataset(first, last):
    return (
        tf.data.Dataset.from_tensor_slices((images[first:last], np.array(labels[first:last])))
        .map(encode_single_sample, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(buffer_size=tf.data.AUTOTUNE)
    )


train_dataset, validation_dataset = dataset(0, 130), dataset(130, 150)


class CTCLayer(layers.Layer):
    def call(self, y_true, y_pred):
        batch_len = ops.shape(y_true)[0]
        input_length = ops.shape(y_pred)[1] * ops.ones((batch_len,), dtype="int32")
        label_length = ops.shape(y_true)[1] * ops.ones((batch_len,), dtype="int32")
        self.add_loss(ops.mean(ops.nn.ctc_loss(y_true, y_pred, label_length, input_length)))
        return y_pred


input_img = layers.Input(shape=(width, height, 1), name="image", dtype="float32")
label_input = layers.Input(name="label", shape=(max_length,), dtype="int32")
x = layers.Conv2D(8, (3, 3), activation="relu", kernel_initializer="he_normal", padding="same", name="Conv1")(input_img)
x = layers.MaxPooling2D((2, 2), name="pool1")(x)
x = layers.Reshape(target_shape=(width // 2, (height // 2) * 8), name="reshape")(x)
x = layers.Dense(16, activation="relu", name="dense1")(x)
x = layers.Dropout(0.2)(x)
x = layers.Bidirectional(layers.LSTM(12, return_sequences=True))(x)
x = layers.Dense(len(char_to_num.get_vocabulary()) + 1, name="dense2")(x)
output = CTCLayer(name="ctc_loss")(label_input, x)
model = keras.Model(inputs=[input_img, label_input], outputs=output, name="ocr_model_v1")
model.compile(optimizer=keras.optimizers.Adam(0.005))
model.summary()

early_stopping = keras.callbacks.EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=True)
history = model.fit(train_dataset, validation_data=validation_dataset, epochs=4, callbacks=[early_stopping])

prediction_model = keras.Model(model.input[0], model.get_layer(name="dense2").output)
print("predictions:", prediction_model.predict(images[130:], verbose=0).shape)
