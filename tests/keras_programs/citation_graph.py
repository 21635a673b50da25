"""Node classification on a citation graph: graph convolution by matmul, node ids as inputs, ReduceLROnPlateau"""

import keras
import numpy as np
from keras import layers, ops

keras.utils.set_random_seed(40)

num_nodes, num_features, num_classes = 160, 24, 4
rng = np.random.default_rng(40)
subjects = rng.integers(0, num_classes, size=num_nodes)
node_features = rng.binomial(1, 0.15, size=(num_nodes, num_features)).astype("float32")
node_features[np.arange(num_nodes), subjects] = 1.0
same = subjects[:, None] == subjects[None, :]
adjacency = (rng.random((num_nodes, num_nodes)) < np.where(same, 0.08, 0.01)).astype("float32")
adjacency = np.maximum(adjacency, adjacency.T) + np.eye(num_nodes, dtype="float32")
degree = adjacency.sum(axis=1)
adjacency = (adjacency / np.sqrt(degree[:, None] * degree[None, :])).astype("float32")


class GraphConvLayer(layers.Layer):
    def __init__(self, units, adjacency, **kwargs):
        super().__init__(**kwargs)
        self.adjacency = ops.convert_to_tensor(adjacency)
        self.dense = layers.Dense(units, activation="gelu")

    def call(self, node_representations):
        return self.dense(ops.matmul(self.adjacency, node_representations))


class GNNNodeClassifier(keras.Model):
    def __init__(self, node_features, adjacency, num_classes, hidden_units=16, **kwargs):
        super().__init__(**kwargs)
        self.node_features = ops.convert_to_tensor(node_features)
        self.preprocess = keras.Sequential([layers.Dense(hidden_units, activation="gelu"), layers.Dropout(0.2)])
        self.conv1 = GraphConvLayer(hidden_units, adjacency, name="graph_conv1")
        self.conv2 = GraphConvLayer(hidden_units, adjacency, name="graph_conv2")
        self.compute_logits = layers.Dense(units=num_classes, name="logits")

    def call(self, input_node_indices):
        x = self.preprocess(self.node_features)
        x = self.conv1(x) + x
        x = self.conv2(x) + x
        node_embeddings = ops.take(x, input_node_indices, axis=0)
        return self.compute_logits(node_embeddings)


order = rng.permutation(num_nodes)
x_train, x_test = order[:120], order[120:]
y_train, y_test = subjects[x_train], subjects[x_test]

gnn_model = GNNNodeClassifier(node_features, adjacency, num_classes, name="gnn_model")
gnn_model.compile(
    optimizer=keras.optimizers.Adam(0.01),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=[keras.metrics.SparseCategoricalAccuracy(name="acc")],
)
reduce_lr = keras.callbacks.ReduceLROnPlateau(monitor="val_acc", factor=0.5, patience=1, min_delta=0.2, min_lr=1e-4)
history = gnn_model.fit(
    x=x_train, y=y_train, epochs=5, batch_size=32, validation_split=0.15, callbacks=[reduce_lr], verbose=2
)
print("learning rates:", history.history["learning_rate"])
_, test_accuracy = gnn_model.evaluate(x=x_test, y=y_test, verbose=0)
print(f"Test accuracy: {round(test_accuracy * 100, 2)}%")
