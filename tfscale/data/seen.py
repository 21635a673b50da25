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

from tfscale.data.order import Portion, evaluation_steps
from tfscale.data.pipeline import training_order
from tfscale.data.source import Source

_MOST = 2**25  # examples that are counted one by one


def held(source: Source, split: str) -> dict[str, Any]:
    """What a prepared split holds: examples and bad_records and, where they are known, bytes and labels."""
    count, bad = source.num_examples(split), list(source.bad_examples(split))
    about: dict[str, Any] = {"examples": count - len(bad), "bad_records": source.count_bad(split)}
    times = np.ones(count if count <= _MOST else 0, np.int64)
    times[bad] = 0
    return {**about, **_totals(source, split, times)}


def shown(source: Source, portion: Portion, *, steps: int) -> dict[str, Any]:
    """What a training has seen, of a source that is read by index.

    Args:
        portion: of the training; `skip` are the steps of the order that were left out on the way, and the examples that
            are bad count for nothing.
        steps: of the order, from the first one on, also those that were left out.

    Returns:
        examples: how many were shown, an example as often as it came; different: how many of them there are;
        repeats: the difference; most_often and least_often: how often one of the split's good examples came; bytes, as
        stored, and labels by the class's name, where they are known.
    """
    split, count = portion.split, source.num_examples(portion.split)
    if count > _MOST:
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
        **_totals(source, split, times),
    }


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
    count, batch = source.num_examples(portion.split), portion.shard.global_batch
    if source.whole_epochs:
        epoch = steps // evaluation_steps(count, batch)
        first = epoch * evaluation_steps(count, batch)
    else:
        epoch = steps * batch // count
        first = epoch * count // batch
    times = np.full(count, epoch, np.int64)

    def add(start: int, stop: int, by: int, least: int = 0) -> None:
        """The examples of some steps, as far as they lie in this epoch or behind."""
        order = training_order(source, _at(portion, start)).take(stop - start)
        for place in order.as_numpy_iterator():
            np.add.at(times, place["index"][(place["epoch"] >= least) & (place["weight"] > 0)], by)

    add(first, steps, 1, epoch)
    for left_out in portion.skip:
        add(left_out, left_out + 1, -1)
    return times


def _positions(source: Source, portion: Portion, steps: int) -> int:
    """How many examples so many steps have, where each step that is left out is a whole one."""
    count, batch = source.num_examples(portion.split), portion.shard.global_batch
    if not source.whole_epochs:
        return (steps - len(portion.skip)) * batch
    epochs, rest = divmod(steps, evaluation_steps(count, batch))
    return epochs * count + rest * batch - len(portion.skip) * batch


def _at(portion: Portion, start: int) -> Portion:
    return Portion(portion.split, portion.shard, True, portion.seed, start)
