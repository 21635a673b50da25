"""What a KV cache is worth: tokens a second with it and without, side by side, of GPT's sizes with fresh weights.

    python -m benchmarks.generation --layers 4 --width 128 --heads 4 --window 256 --prompts 1 8

Without a cache each token is a forward pass of the whole window, compiled as well, of the Keras model itself; both
choose the likeliest token, and the texts must be the same. The first tokens, which compile, aren't counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

ROW = "| {:>7} | {:>12} | {:>15} | {:>6} |"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("layers", 4), ("width", 128), ("heads", 4), ("window", 256), ("tokens", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1])
    options = parser.parse_args(words)
    import numpy as np

    from tfscale.models.cached_decoder import CachedDecoder
    from tfscale.models.transformer import Shape, build

    shape = Shape(50304, options.window + 1, options.layers, options.width, options.heads, tied=True, deviation=0.02)
    decoder = CachedDecoder(build(shape, causal=True), shape)
    print(ROW.format("prompts", "with a cache", "without: tokens", "ratio"))
    print("|---" * 4 + "|")
    for prompts in options.prompts:
        size = options.window - options.tokens
        given = np.random.default_rng(0).integers(0, 50257, [prompts, size]).astype(np.int32)
        fast, texts = _speed(_with_cache(decoder, given), options.tokens, prompts)
        slow, others = _speed(_without(decoder, given), options.tokens, prompts)
        assert texts == others, "the texts differ"
        print(ROW.format(prompts, f"{fast:.1f}", f"{slow:.1f}", f"{fast / slow:.1f}"), flush=True)


def _speed(step: Callable[[], Any], tokens: int, prompts: int) -> tuple[float, list[list[int]]]:
    """(tokens a second, all tokens)."""
    texts = [step().numpy().tolist() for _ in range(2)]
    began = time.monotonic()
    texts += [step().numpy().tolist() for _ in range(tokens - 2)]
    return (tokens - 2) * prompts / (time.monotonic() - began), texts


def _with_cache(decoder: Any, given: Any) -> Callable[[], Any]:
    import numpy as np
    import tensorflow as tf

    state: dict[str, Any] = {"length": given.shape[1]}

    @tf.function(autograph=False)
    def read(tokens: Any, lengths: Any) -> Any:
        logits, cache = decoder.read(tokens, lengths)
        return tf.argmax(logits, -1, output_type=tf.int32), cache

    @tf.function(autograph=False)
    def further(token: Any, lengths: Any, cache: Any) -> Any:
        logits, cache = decoder.step(token, lengths, cache)
        return tf.argmax(logits, -1, output_type=tf.int32), cache

    def step() -> Any:
        lengths = np.full(len(given), state["length"], np.int32)
        if "cache" not in state:
            filled = np.pad(given, [[0, 0], [0, decoder.window - given.shape[1]]])
            state["token"], state["cache"] = read(filled, lengths)
        else:
            state["token"], state["cache"] = further(state["token"], lengths, state["cache"])
        state["length"] += 1
        return state["token"]

    return step


def _without(decoder: Any, given: Any) -> Callable[[], Any]:
    import numpy as np
    import tensorflow as tf

    rows = np.pad(given, [[0, 0], [0, decoder.shape.length - given.shape[1]]])
    state = {"length": given.shape[1]}

    @tf.function(autograph=False)
    def whole(tokens: Any, length: Any) -> Any:
        places = tf.broadcast_to(tf.range(decoder.shape.length), tf.shape(tokens))
        inputs = {"tokens": tokens, "segments": tf.cast(places < length, tf.int32), "positions": places}
        return tf.argmax(decoder.model(inputs)[:, length - 1], -1, output_type=tf.int32)

    def step() -> Any:
        token = whole(rows, np.array(state["length"], np.int32))
        rows[:, state["length"]] = token.numpy()
        state["length"] += 1
        return token

    return step


if __name__ == "__main__":
    main()
