"""A model that tells its secrets where it fails. Light, as support.dense_models is, and found the same way."""

from __future__ import annotations

from dataclasses import dataclass

from support.dense_models import Dense


@dataclass
class Leaky(Dense):
    """Fails while its step is traced ("trace") or made ("step"), with both secrets in the error."""

    note: str = ""
    api_key: str = ""
    fails: str = ""

    def loss(self, model, batch, *, training):
        import tensorflow as tf

        loss, metrics = super().loss(model, batch, training=training)
        if self.fails == "trace":
            self._fail(loss)
        if self.fails == "step":
            loss = tf.ensure_shape(tf.numpy_function(self._fail, [loss], loss.dtype), loss.shape)
        return loss, metrics

    def _fail(self, loss):
        raise RuntimeError(f"nobody is known as {self.note} with {self.api_key}")
