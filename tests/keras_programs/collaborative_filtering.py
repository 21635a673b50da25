"""Collaborative filtering: embeddings of users and movies with repeated ids, a subclassed model, L2 regularizers"""

import keras
import numpy as np
import pandas as pd
from keras import layers, ops

keras.utils.set_random_seed(26)

rng = np.random.default_rng(26)
df = pd.DataFrame({"user": rng.integers(1, 30, size=400), "movie": rng.integers(100, 140, size=400)})
df["rating"] = (rng.normal(3, 1, size=400) + (df.user % 3) * 0.5).clip(0.5, 5).round(1)

user2user_encoded = {x: i for i, x in enumerate(df["user"].unique().tolist())}
movie2movie_encoded = {x: i for i, x in enumerate(df["movie"].unique().tolist())}
df["user"] = df["user"].map(user2user_encoded)
df["movie"] = df["movie"].map(movie2movie_encoded)
min_rating, max_rating = min(df["rating"]), max(df["rating"])

df = df.sample(frac=1, random_state=42)
x = df[["user", "movie"]].values
y = df["rating"].apply(lambda x: (x - min_rating) / (max_rating - min_rating)).values
train_indices = int(0.9 * df.shape[0])
x_train, x_val, y_train, y_val = x[:train_indices], x[train_indices:], y[:train_indices], y[train_indices:]

EMBEDDING_SIZE = 8


class RecommenderNet(keras.Model):
    def __init__(self, num_users, num_movies, embedding_size, **kwargs):
        super().__init__(**kwargs)

        def embedding(count, size):
            regularizer = keras.regularizers.l2(1e-6)
            return layers.Embedding(count, size, embeddings_initializer="he_normal", embeddings_regularizer=regularizer)

        self.user_embedding = embedding(num_users, embedding_size)
        self.user_bias = layers.Embedding(num_users, 1)
        self.movie_embedding = embedding(num_movies, embedding_size)
        self.movie_bias = layers.Embedding(num_movies, 1)

    def call(self, inputs):
        user_vector = self.user_embedding(inputs[:, 0])
        user_bias = self.user_bias(inputs[:, 0])
        movie_vector = self.movie_embedding(inputs[:, 1])
        movie_bias = self.movie_bias(inputs[:, 1])
        dot_user_movie = ops.sum(user_vector * movie_vector, axis=1, keepdims=True)
        return ops.nn.sigmoid(dot_user_movie + user_bias + movie_bias)


model = RecommenderNet(len(user2user_encoded), len(movie2movie_encoded), EMBEDDING_SIZE)
model.compile(loss=keras.losses.BinaryCrossentropy(), optimizer=keras.optimizers.Adam(learning_rate=0.01))
history = model.fit(x=x_train, y=y_train, batch_size=64, epochs=4, verbose=1, validation_data=(x_val, y_val))

movies = np.array([[0, movie] for movie in movie2movie_encoded.values()])
ratings = model.predict(movies).flatten()
print("Top recommendations:", ratings.argsort()[-3:][::-1])
