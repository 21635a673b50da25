"""What a training has seen of its data: how often each example, its labels and bytes.

Owns that count, which follows from the address that the training is at: the seed, the order and the labels that the
data have by index. So it is the same whether a run was killed and resumed or not, and costs the training nothing.
Refuses to know runs.

    about = shown(source, Portion("train", Shard(64), training=True, seed=0), steps=1000)
    about["labels"]                         # {"cat": 31990, "dog": 32010}
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfscale.data.order import Permutation, Portion, evaluation_steps, permute
from tfscale.data.pipeline import training_order
from tfscale.data.source import Source

COUNTED = 2**25  # examples up to which each is counted by itself
_AT_ONCE = 2**20  # places of an epoch that are computed together


def held(source: Source, split: str) -> dict[str, Any]:
    """What a prepared split holds: examples and bad_records and, where they are known, bytes and labels."""
    count, bad = source.num_examples(split), list(source.bad_examples(split))
    about: dict[str, Any] = {"examples": count - len(bad), "bad_records": source.count_bad(split)}
    times = np.ones(count if count <= COUNTED else 0, np.int64)
    if len(times):
        times[bad] = 0
    return {**about, **_parts(source, split, times), **_totals(source, split, times)}


def shown(source: Source, portion: Portion, *, steps: int) -> dict[str, Any]:
    """What a training has seen, of a source that is read by index.

    Args:
        portion: of the training; `skip` are the steps of the order that were left out on the way, and the examples that
            are bad count for nothing.
        steps: of the order, from the first one on, also those that were left out.

    Returns:
        examples: how many were shown, an example as often as it came; different: how many of them there are;
        repeats: the difference; most_often and least_often: how often one of the split's good examples came; bytes, as
        stored, and labels by the class's name, where they are known; of a source of several parts how many examples of
        each were shown.
    """
    split, count = portion.split, source.num_examples(portion.split)
    if count > COUNTED:
        return {"examples": _positions(source, portion, steps)}
    times = _times(source, portion, steps)
    bad = np.zeros(count, bool)
    bad[list(source.bad_examples(split))] = True
    times[bad] = 0
    examples, different, good = int(times.sum()), int((times > 0).sum()), times[~bad]
    return {
        "examples": examples,
        "different": different,
        "repeats": examples - different,
        "most_often": int(good.max(initial=0)),
        "least_often": int(good.min()) if len(good) else 0,
        **_parts(source, split, times),
        **_totals(source, split, times),
    }


def why_uncounted(source: Source, split: str) -> str:
    """Why `shown` has no labels of a source that has classes."""
    if source.num_examples(split) > COUNTED:
        return f"of more than {COUNTED:,} examples only how many there were is counted"
    label = source.spec().get("columns", {}).get("label") or {}
    if label.get("kind") == "multilabel":
        return "an example has several at once, which are not counted"
    return "finding them out takes a look through all of the data"


def _parts(source: Source, split: str, times: np.ndarray) -> dict[str, Any]:
    """parts: of a source of several, how many examples of each."""
    ends = np.cumsum([part.examples for part in source.parts(split)])
    if not len(ends) or not len(times):
        return {}
    each = [int(some.sum()) for some in np.split(times, ends[:-1])]
    return {"parts": dict(zip(source.part_names(), each, strict=True))}


def _totals(source: Source, split: str, times: np.ndarray) -> dict[str, Any]:
    """bytes and labels of examples that count so many times each; of those that are known."""
    found: dict[str, Any] = {}
    if len(times) != source.num_examples(split):
        return found
    sizes, labels = source.stored_bytes(split), source.class_labels(split)
    if sizes is not None:
        found["bytes"] = int(sizes @ times)
    if labels is not None:
        names = source.class_names()
        usable = labels >= 0
        each = np.bincount(labels[usable], times[usable], minlength=len(names or ())).astype(np.int64).tolist()
        found["labels"] = {names[i] if names and i < len(names) else str(i): n for i, n in enumerate(each)}
    return found


def _times(source: Source, portion: Portion, steps: int) -> np.ndarray:
    """How often each example came: int64 [examples]."""
    count, batch, seed = source.num_examples(portion.split), portion.shard.global_batch, portion.seed or 0
    first = steps * batch  # of the positions that are looked at step by step
    if parts := source.parts(portion.split):
        blocks, rest = divmod(first, sum(part.share for part in parts))
        first -= rest
        told = [(part.examples, *divmod(blocks * part.share, part.examples)) for part in parts]
        times = np.concatenate([_of_epochs(*one, _drawn(one[0], seed)) for one in told])
    elif source.whole_epochs:
        epochs, rest = divmod(steps, evaluation_steps(count, batch))
        permutation = source.permutation(portion.split, global_batch=batch, seed=portion.seed)
        times = _of_epochs(count, epochs, rest * batch, permutation or _drawn(count, seed))
    else:
        times = _of_epochs(count, *divmod(first, count), _drawn(count, seed))

    def add(start: int, stop: int, by: int, least: int = 0) -> None:
        """The examples of some steps, from a position on."""
        order = training_order(source, _at(portion, start)).take(stop - start)
        for step, place in enumerate(order.as_numpy_iterator(), start):
            counts = place["weight"] > 0
            counts[: max(0, least - step * batch)] = False
            np.add.at(times, place["index"][counts], by)

    add(first // batch, steps, 1, first)
    for left_out in portion.skip:
        add(left_out, left_out + 1, -1)
    return times


def _of_epochs(count: int, epochs: int, rest: int, permutation: Permutation) -> np.ndarray:
    """How often each of `count` examples came in so many whole epochs and the first places of the next one."""
    times = np.full(count, epochs, np.int64)
    for start in range(0, rest, _AT_ONCE):
        with tf.device("CPU:0"):
            places = tf.range(start, min(rest, start + _AT_ONCE), dtype=tf.int64)
            times[permutation(places, tf.zeros_like(places) + epochs).numpy()] += 1
    return times


def _drawn(count: int, seed: int) -> Permutation:
    """The order of each epoch as the seed draws it."""
    return lambda places, epochs: permute(places, epochs, count, seed)


def _positions(source: Source, portion: Portion, steps: int) -> int:
    """How many examples so many steps have, where each step that is left out is a whole one."""
    count, batch = source.num_examples(portion.split), portion.shard.global_batch
    if not source.whole_epochs:
        return (steps - len(portion.skip)) * batch
    epochs, rest = divmod(steps, evaluation_steps(count, batch))
    return epochs * count + rest * batch - len(portion.skip) * batch


def _at(portion: Portion, start: int) -> Portion:
    return Portion(portion.split, portion.shard, True, portion.seed, start)
