"""The order of examples: one infinite concatenation of epoch permutations.

Owns the rule of order of recipes and Tasks; epochs.py has that of people's own models. With B = global_batch, step s
takes positions [s*B, (s+1)*B), and a worker takes its slice of that. Position p lies in epoch p // n; the example there
is a permutation of n, drawn by (seed, epoch), at p % n. So any step of any worker is reached by arithmetic: remainders,
resume, parity and a change of the number of workers need nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from tfscale.autograph import no_autograph

FOREVER = 2**62
Permutation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # int64 places and epochs -> int64 examples
_ROUNDS = 8  # of the cipher; fewer leave visible patterns


@dataclass(frozen=True)
class Shard:
    """One worker's part of every step."""

    global_batch: int
    worker: int = 0
    num_workers: int = 1

    @property
    def worker_batch(self) -> int:
        return self.global_batch // self.num_workers


@dataclass(frozen=True)
class Portion:
    """Which batches of the data: for one worker, from a step on.

    Attributes:
        split: "train" or "test".
        shard: which part of every step this worker reads.
        training: endless and shuffled with augmentation; otherwise every example once, filled up with weight 0.
        seed: of the order and of the augmentation, together with epoch and index; None: the order is Keras's where a
            global seed of TensorFlow is set, and all else is as with 0.
        start_step: the first step; a resumed run passes the step it restored, a resumed prediction its next part's.
        skip: steps of the order from start_step on that are left out, rising.
        as_fit: of sources of whole epochs, as Keras's fit reads them: the last step of an evaluation is smaller, and
            training goes on to the end of an epoch alone where each is a pass through the data.
        steps: how many, of a source that is read by index; None: to the end.
    """

    split: str
    shard: Shard
    training: bool
    seed: int | None = 0
    start_step: int = 0
    skip: tuple[int, ...] = ()
    as_fit: bool = False
    steps: int | None = None


@dataclass(frozen=True)
class Part:
    """One of several sources that are read together.

    Attributes:
        examples: how many it has; they stand behind those of the parts before it.
        share: how many positions of every block are its own; a block is as long as all shares together.
    """

    examples: int
    share: int


def mixed_order(parts: Sequence[Part], shard: Shard, *, seed: int, start_step: int = 0) -> tf.data.Dataset:
    """As `training_order`, of several parts by their shares; "epoch" is that of the part.

    A block of positions is a permutation of its slots, drawn by (seed, block), and the first share of slots is the
    first part's: slot j of a share c in block b is the part's (b*c + j)-th example in its own endless concatenation of
    permuted epochs. So each part's epochs are whole but for the examples of one block at their ends, its share is exact
    in every block, and a step is still reached by arithmetic.
    """
    shares, counts = ([getattr(part, name) for part in parts] for name in ("share", "examples"))
    block = sum(shares)
    share, count = tf.constant(shares, tf.int64), tf.constant(counts, tf.int64)
    ends, before = tf.cumsum(share), tf.cumsum(count, exclusive=True)

    @no_autograph
    def at(step):
        position = _positions(step, shard)
        number = position // block
        slot = _slots(number, position % block, block, shard.worker_batch, seed)
        part = tf.searchsorted(ends, slot, side="right", out_type=tf.int64)
        mine, size = tf.gather(share, part), tf.gather(count, part)
        ordinal = number * mine + slot - (tf.gather(ends, part) - mine)
        epoch, offset = ordinal // size, ordinal % size
        index = permute(offset, epoch, size, seed) + tf.gather(before, part)
        return {"index": index, "epoch": epoch, "weight": _ones(shard)}

    return tf.data.Dataset.range(start_step, FOREVER).map(at)


def _slots(number: tf.Tensor, place: tf.Tensor, block: int, positions: int, seed: int) -> tf.Tensor:
    """Which slot of its block each of some consecutive positions has: int64 [positions].

    Every block is sorted by random numbers of (seed, block, slot), by SplitMix64 (Steele et al., 2014): the cipher of
    `permute` takes a thousand times as long on so few.
    """
    numbers = number[0] + tf.range((positions + block - 2) // block + 1, dtype=tf.int64)
    drawn = random_bits(tf.cast(numbers, tf.uint64) + random_bits(tf.constant(seed, tf.uint64)))
    drawn = random_bits(drawn[:, tf.newaxis] + tf.cast(tf.range(block), tf.uint64))
    slots = tf.argsort(tf.bitcast(drawn, tf.int64), axis=1)
    return tf.cast(tf.gather_nd(slots, tf.stack([number - number[0], place], axis=1)), tf.int64)


def random_bits(counter: tf.Tensor) -> tf.Tensor:
    """Random bits of a number: uint64."""
    bits = (counter + tf.constant(1, tf.uint64)) * tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        shifted = tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint64))
        bits = tf.bitwise.bitwise_xor(bits, shifted) * tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, tf.constant(31, tf.uint64)))


def training_order(num_examples: int, shard: Shard, *, seed: int, start_step: int = 0) -> tf.data.Dataset:
    """Endless; one element per step: {"index", "epoch": int64 [worker_batch], "weight": float32 [worker_batch]}."""

    @no_autograph
    def at(step):
        position = _positions(step, shard)
        epoch, offset = position // num_examples, position % num_examples
        return {"index": permute(offset, epoch, num_examples, seed), "epoch": epoch, "weight": _ones(shard)}

    return tf.data.Dataset.range(start_step, FOREVER).map(at)


def evaluation_order(num_examples: int, shard: Shard, *, start_step: int = 0) -> tf.data.Dataset:
    """Every example once from start_step on, in the order stored; the last step is filled up with weight 0. Elements as
    in training."""

    @no_autograph
    def at(step):
        position = _positions(step, shard)
        real = position < num_examples
        index = tf.where(real, position, 0)
        return {"index": index, "epoch": tf.zeros_like(index), "weight": tf.cast(real, tf.float32)}

    return tf.data.Dataset.range(start_step, evaluation_steps(num_examples, shard.global_batch)).map(at)


def without(steps: tf.data.Dataset, bad: Sequence[int], num_examples: int) -> tf.data.Dataset:
    """The same steps, in which these examples have weight 0 and a good one is read in the place of each.

    So all shapes and the order of all other examples stay, and a step's mean is still over the whole batch.
    """
    known = set(bad)
    places = tf.constant(sorted(known), tf.int64)
    good = tf.constant(next(i for i in range(num_examples) if i not in known), tf.int64)

    @no_autograph
    def mend(place):
        index = place["index"]
        nearest = tf.minimum(tf.searchsorted(places, index), len(known) - 1)
        is_bad = tf.equal(tf.gather(places, nearest), index)
        weight = tf.where(is_bad, tf.zeros_like(place["weight"]), place["weight"])
        return {**place, "index": tf.where(is_bad, good, index), "weight": weight}

    return steps.map(mend)


def evaluation_steps(num_examples: int, global_batch: int) -> int:
    return -(-num_examples // global_batch)


def permute(offset: tf.Tensor, epoch: tf.Tensor, num_examples: int | tf.Tensor, seed: int) -> tf.Tensor:
    """The examples at these offsets of these epochs: int64 [k], by a block cipher on [0, num_examples).

    The cipher (RandomIndexShuffle) computes each place by itself, so that a billion examples need no memory.
    """
    size = tf.shape(offset)[0]
    seeds = tf.stack([tf.fill([size], tf.constant(seed, tf.int64)), epoch, tf.ones_like(epoch)], axis=1)
    last = tf.broadcast_to(tf.cast(num_examples, tf.int64) - 1, [size])
    shuffled = tf.raw_ops.RandomIndexShuffle(index=offset, seed=seeds, max_index=last, rounds=_ROUNDS)
    return tf.ensure_shape(shuffled, offset.shape)


def _positions(step: tf.Tensor, shard: Shard) -> tf.Tensor:
    first = step * shard.global_batch + shard.worker * shard.worker_batch
    return first + tf.range(shard.worker_batch, dtype=tf.int64)


def _ones(shard: Shard) -> tf.Tensor:
    return tf.ones([shard.worker_batch], tf.float32)
