"""A decoder of transformer.py token by token: the keys and values of what it has read are kept (a KV cache).

Owns the pass with a cache, which gives what the model itself gives. Refuses to know tokenizers, and how a token is
chosen.

    decoder = CachedDecoder(model, shape)
    logits, cache = decoder.read(tokens, lengths)           # [batch, window] and [batch]: what is behind them
    logits, cache = decoder.step(token, lengths, cache)     # [batch] each: one token more of every row
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.models.transformer import Shape

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    Cache = list[tuple[tf.Tensor, tf.Tensor]]  # of each block keys and values, [batch, window, heads, width of a head]


@dataclass(frozen=True)
class CachedDecoder:
    """The layers of a model that `transformer.build(shape, causal=True)` made; both methods are to be compiled once,
    since their shapes never change."""

    model: keras.Model
    shape: Shape

    @property
    def window(self) -> int:
        """How many tokens it sees at most. The last place of a row has no token to predict in training, so that its
        position is never learnt."""
        return self.shape.length - 1

    def read(self, tokens: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, Cache]:
        """The whole window at once.

        Args:
            tokens: int32 [batch, window], filled up behind.
            lengths: int32 [batch], of each row, at least 1.

        Returns:
            (logits of what is behind each row, float32 [batch, vocabulary]; the cache).
        """
        import tensorflow as tf

        places = tf.range(self.window)
        seen = tf.logical_and(
            places[tf.newaxis, :, tf.newaxis] >= places, places < lengths[:, tf.newaxis, tf.newaxis]
        )  # [batch, from, to]

        def kept(cache: None, new: Any) -> Any:
            return new

        positions = tf.broadcast_to(places, tf.shape(tokens))
        x, cache = self._through(tokens, positions, seen, [(None, None)] * self.shape.layers, kept)
        return self._logits(tf.gather(x, lengths - 1, batch_dims=1)), cache

    def step(self, token: tf.Tensor, lengths: tf.Tensor, cache: Cache) -> tuple[tf.Tensor, Cache]:
        """One token more.

        Args:
            token: int32 [batch].
            lengths: int32 [batch], of each row with this token, at most the window.

        Returns:
            as `read`.
        """
        import tensorflow as tf

        places = tf.range(self.window)
        here = tf.equal(places, lengths[:, tf.newaxis] - 1)[:, :, tf.newaxis, tf.newaxis]
        seen = (places < lengths[:, tf.newaxis])[:, tf.newaxis]

        def kept(cache: Any, new: Any) -> Any:
            return tf.where(here, new, cache)

        x, cache = self._through(token[:, tf.newaxis], lengths[:, tf.newaxis] - 1, seen, cache, kept)
        return self._logits(x[:, 0]), cache

    def _through(self, tokens: Any, positions: Any, seen: Any, cache: Any, kept: Any) -> tuple[Any, Any]:
        """All blocks, as `transformer.build` puts them together."""
        from keras import ops

        layer = self.model.get_layer
        x = layer("token_embedding")(tokens) + layer("position_embedding")(positions)
        made = []
        for number in range(self.shape.layers):
            name = f"block_{number}"
            attention, y = layer(f"{name}_attention"), layer(f"{name}_attention_norm")(x)
            new = attention.key_dense(y), attention.value_dense(y)
            keys, values = (kept(old, one) for old, one in zip(cache[number], new, strict=True))
            made.append((keys, values))
            attended = ops.dot_product_attention(attention.query_dense(y), keys, values, mask=seen[:, None])
            x = x + attention.output_dense(attended)
            y = layer(f"{name}_dense_1")(layer(f"{name}_dense_norm")(x))
            x = x + layer(f"{name}_dense_2")(y)
        return x, made

    def _logits(self, x: Any) -> Any:
        import tensorflow as tf

        x = self.model.get_layer("norm")(x)
        if self.shape.tied:
            return tf.cast(self.model.get_layer("token_embedding")(x, reverse=True), tf.float32)
        return tf.cast(self.model.get_layer("logits")(x), tf.float32)
