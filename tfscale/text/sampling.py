"""Which token comes next: the likeliest one, or one that is drawn.

Owns temperature, top-k (Fan et al., 2018) and top-p (Holtzman et al., 2020). Refuses to know models and tokenizers.

    token = Sampling(temperature=0.8, top_k=40).choose(logits, draw=7)        # float32 [batch, vocabulary] -> [batch]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Sampling:
    """How a text is written.

    Attributes:
        tokens: how many are written at most.
        temperature: what logits are divided by: below 1 likely tokens become likelier; 0 takes the likeliest one.
        top_k: only so many of the likeliest tokens may be drawn; None: all.
        top_p: only the likeliest tokens whose probabilities reach this sum together; None: all.
        seed: the same one gives the same text again, of the same prompts at the same places.
        stop: a text ends before any of these.
    """

    tokens: int = 200
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises UsageError."""
        limits = (
            (self.tokens >= 1, "tokens", f"{self.tokens} tokens are no text", "tokens=200"),
            (0 <= self.temperature < float("inf"), "temperature", f"{self.temperature} is no temperature",
             "temperature=0.8, or 0 for the likeliest token each time"),
            (self.top_k is None or self.top_k >= 1, "top_k", f"of {self.top_k} tokens none can be drawn", "top_k=40"),
            (self.top_p is None or 0 < self.top_p <= 1, "top_p", f"{self.top_p} is no probability", "top_p=0.9"),
            (0 <= self.seed < 2**63, "seed", f"{self.seed} is no seed", "seed=0, or another positive number"),
            (not isinstance(self.stop, str), "stop", f"{self.stop!r} is one text, and several may stop", "stop=('.',)"),
            (all(self.stop), "stop", "an empty text ends every text before it begins", "stop='.', or leave it away"),
        )  # fmt: skip
        for fine, where, what, fix in limits:
            if not fine:
                raise UsageError(what, where=where, fix=fix)
        for name in ("top_k", "top_p"):
            if self.temperature == 0 and getattr(self, name) is not None:
                raise UsageError(
                    f"temperature=0 takes the likeliest token, so that {name} has no effect",
                    where=name,
                    fix=f"leave {name} away, or temperature=0.8",
                )

    def choose(self, logits: tf.Tensor, *, draw: Any) -> tf.Tensor:
        """A token of every row, int32 [batch].

        Args:
            logits: float32 [batch, vocabulary]; -inf for what must not be chosen.
            draw: the number of the draw: every one of a text has its own.
        """
        import tensorflow as tf

        if self.temperature == 0:
            return tf.argmax(logits, -1, output_type=tf.int32)
        logits = (logits - tf.reduce_max(logits, -1, keepdims=True)) / self.temperature  # never too large
        if self.top_k is not None:
            least = tf.math.top_k(logits, min(self.top_k, int(logits.shape[-1]))).values[:, -1:]
            logits = tf.where(logits < least, -float("inf"), logits)
        if self.top_p is not None:
            ordered = tf.sort(logits, direction="DESCENDING")
            before = tf.cumsum(tf.nn.softmax(ordered), axis=-1, exclusive=True)
            least = tf.reduce_min(tf.where(before < self.top_p, ordered, float("inf")), -1, keepdims=True)
            logits = tf.where(logits < least, -float("inf"), logits)
        # The largest of logits with Gumbel noise is a draw from their softmax; row r has the same noise in any batch
        seed = tf.stack([tf.constant(self.seed, tf.int64), tf.cast(draw, tf.int64)])
        tiny = tf.constant(1.2e-38, tf.float32)
        noise = tf.random.stateless_uniform(tf.shape(logits), seed, minval=tiny)
        return tf.argmax(logits - tf.math.log(-tf.math.log(noise)), -1, output_type=tf.int32)
