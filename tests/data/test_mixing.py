"""What is done to whole batches: against the same done by hand for draws that are known, and for every way of cutting a step."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from tfscale.data.transforms import transforms
from tfscale.errors import UsageError


@pytest.fixture
def mixing(tf):
    from tfscale.data import mixing

    return mixing


def pictures(tf, count=8, size=12, channels=3):
    return tf.constant(np.random.RandomState(0).randint(0, 256, (count, size, size, channels), np.uint8))


def drawn(tf, mixing, steps, count=8, first=0):
    """A batch as the pipeline makes it."""
    rows = [mixing.draws(steps, tf.constant([7, first + i], tf.int64)) for i in range(count)]
    return {name: tf.stack([row[name] for row in rows]) for name in rows[0]}


def test_mirror_turns_the_chosen_ones_from_left_to_right(tf, mixing):
    images = pictures(tf, 3)
    got = mixing.mirror(images, tf.constant([True, False, True])).numpy()
    assert got.dtype == np.uint8
    assert (got[1] == images[1].numpy()).all()
    for i in (0, 2):
        assert (got[i] == images[i].numpy()[:, ::-1]).all()


def test_half_of_the_examples_are_mirrored(tf, mixing):
    images, steps = pictures(tf, 200), transforms("cifar")
    got, mix = mixing.augmented({"image": images, **drawn(tf, mixing, steps, 200)}, steps)
    same = [(a == b).all() for a, b in zip(got.numpy(), images.numpy(), strict=True)]
    assert mix is None and 70 < sum(same) < 130


def test_evaluation_changes_nothing(tf, mixing):
    images = pictures(tf, 3)
    got, mix = mixing.augmented({"image": images}, transforms(["imagenet", "colour", "mixup"]))
    assert got is images and mix is None


EVERYTHING = ["flip", {"colour": {"hue": 0.1}}, {"erase": {"share": 0.7}}, "mixup", "cutmix"]


@pytest.mark.parametrize("parts", [2, 4])
def test_a_step_in_parts_is_the_step_in_one_piece(tf, mixing, parts):
    """So the number of replicas, workers and micro-batches changes nothing."""
    steps, images = transforms(EVERYTHING), pictures(tf)
    batch = {"image": images, **drawn(tf, mixing, steps)}
    whole, mix = mixing.augmented(batch, steps)
    rows = 8 // parts
    some = [mixing.augmented({k: v[i : i + rows] for k, v in batch.items()}, steps) for i in range(0, 8, rows)]
    assert (np.concatenate([one[0] for one in some]) == whole.numpy()).all()
    assert (np.concatenate([one[1].own for one in some]) == mix.own.numpy()).all()


def test_an_odd_part_of_a_step_is_refused(tf, mixing):
    steps = transforms(["mixup"])
    with pytest.raises(UsageError, match="a replica's part of a step has 7 examples"):
        mixing.augmented({"image": pictures(tf, 7), **drawn(tf, mixing, steps, 7)}, steps)


def test_mixup_blends_neighbours_and_their_labels_by_the_same_share(tf, mixing):
    steps, images = transforms([{"mixup": {"alpha": 1.0}}]), pictures(tf).numpy().astype(float)
    got, mix = mixing.augmented({"image": tf.constant(images, tf.uint8), **drawn(tf, mixing, steps)}, steps)
    own, other = mix.own.numpy(), [1, 0, 3, 2, 5, 4, 7, 6]
    assert len(set(own)) == 8 and own.min() >= 0 and own.max() <= 1
    wanted = own[:, None, None, None] * images + (1 - own)[:, None, None, None] * images[other]
    assert np.abs(got.numpy() - wanted).max() <= 0.51
    labels = tf.constant([3, 1, 4, 1, 5, 9, 2, 6])
    targets = mix.targets(tf.one_hot(labels, 10)).numpy()
    assert targets == pytest.approx(
        own[:, None] * np.eye(10)[labels] + (1 - own)[:, None] * np.eye(10)[labels.numpy()[other]]
    )
    assert mix.larger(labels).numpy().tolist() == [
        int(labels[i if share >= 0.5 else other[i]]) for i, share in enumerate(own)
    ]
    logits = tf.constant(np.random.RandomState(1).randn(8, 10), tf.float32)
    by_parts = mix.loss(lambda y: tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits), labels)
    at_once = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
    assert by_parts.numpy() == pytest.approx(at_once.numpy(), rel=1e-5)


def test_cutmix_pastes_as_much_of_the_neighbour_as_its_label_says(tf, mixing):
    steps, size, count = transforms(["cutmix"]), 40, 64
    images = tf.constant(np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, size, size, 3), np.uint8))
    got, mix = mixing.augmented({"image": images, **drawn(tf, mixing, steps, count)}, steps)
    own = (got.numpy() == images.numpy()).all(-1)
    assert own.mean((1, 2)) == pytest.approx(mix.own.numpy(), abs=1e-6)
    assert 0.4 < float(mix.own.numpy().mean()) < 0.75 and len(set(mix.own.numpy())) > 50
    for i, row in enumerate(got.numpy()):
        assert set(np.unique(row)) <= {i, i ^ 1}
        there = ~own[i]
        assert there.sum() == there.any(1).sum() * there.any(0).sum()  # a rectangle


def test_beside_each_other_each_is_drawn_for_half_of_the_pictures_and_share_leaves_some_alone(tf, mixing):
    count = 200
    images = tf.constant(np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8))

    def kinds(given):
        steps = transforms(given)
        got, _ = mixing.augmented({"image": images, **drawn(tf, mixing, steps, count)}, steps)
        alone = [(a == b).all() for a, b in zip(got.numpy(), images.numpy(), strict=True)]
        cut = [len(np.unique(row)) == 2 for row in got.numpy()]
        return sum(alone), sum(cut)

    cut = kinds([{"mixup": {"alpha": 8.0}}, {"cutmix": {"alpha": 8.0}}])[1]
    assert 70 < cut < 130
    alone, cut = kinds([{"cutmix": {"alpha": 8.0, "share": 0.25}}])
    assert 30 < cut < 75 and alone + cut == count


def test_beta_has_its_moments(tf, mixing):
    from tfscale.data.mixing import _beta

    seeds = tf.stack([tf.fill([1500], tf.constant(3, tf.int64)), tf.range(1500, dtype=tf.int64)], 1)
    for alpha in (0.01, 0.2, 8.0):
        draw = tf.function(lambda alpha=alpha: tf.map_fn(lambda s: _beta(alpha, s), seeds, tf.float32), autograph=False)
        shares = draw().numpy()
        assert np.isfinite(shares).all() and shares.min() >= 0 and shares.max() <= 1
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)
        assert shares.mean() == pytest.approx(0.5, abs=0.06)


def test_erasing_fills_rectangles_of_the_sizes_that_are_asked_for(tf, mixing):
    steps = transforms([{"erase": {"share": 0.5, "least_area": 0.1, "most_area": 0.3, "fill": 7}}])
    images = tf.constant(np.full((200, 40, 40, 3), 200, np.uint8))
    got, _ = mixing.augmented({"image": images, **drawn(tf, mixing, steps, 200)}, steps)
    there = (got.numpy() == 7).all(-1)
    assert ((got.numpy() == 200).all(-1) | there).all()
    some = there[there.any((1, 2))]
    assert 70 < len(some) < 130
    shares = some.mean((1, 2))
    assert shares.min() > 0.08 and shares.max() < 0.33 and np.ptp(shares) > 0.1
    assert all(one.sum() == one.any(1).sum() * one.any(0).sum() for one in some)
    assert some[:, 0].any() and some[:, -1].any() and some[:, :, 0].any() and some[:, :, -1].any()


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_those_of_pillow(tf, mixing, channels):
    """Each alone, where nothing is cut off at 0 or 255; all at 1 change nothing."""
    pytest.importorskip("PIL")
    from PIL import Image, ImageEnhance

    content = pictures(tf, 1, 16, channels).numpy() // 3 + 60
    image = Image.fromarray(content[0] if channels == 3 else content[0, ..., 0])
    for place, name in enumerate(("Brightness", "Contrast", "Color")):
        for factor in (0.7, 1.0, 1.3):
            factors = [1.0, 1.0, 1.0, 0.0]
            factors[place] = factor
            got = mixing.coloured(tf.constant(content), tf.constant([factors])).numpy()[0].astype(int)
            wanted = np.asarray(getattr(ImageEnhance, name)(image).enhance(factor), int).reshape(got.shape)
            assert np.abs(got - wanted).max() <= 1, (name, factor)


def test_a_full_turn_of_the_hue_changes_nothing_and_a_third_moves_red_to_green(tf, mixing):
    red = tf.constant(np.asarray([170, 90, 90], np.uint8).reshape(1, 1, 1, 3))

    def turned(share):
        return mixing.coloured(red, tf.constant([[1.0, 1.0, 1.0, share]])).numpy().ravel().astype(int)

    assert np.abs(turned(1.0) - [170, 90, 90]).max() <= 1
    hues = {share: colorsys.rgb_to_hsv(*(turned(share) / 255))[0] for share in (1 / 3, 2 / 3)}
    assert sorted(hues.values()) == pytest.approx([1 / 3, 2 / 3], abs=0.08)


def test_colours_of_pictures_with_four_channels_are_refused(tf, mixing):
    with pytest.raises(UsageError, match="have 4 channels"):
        mixing.refuse_channels(transforms(["flip", "colour"]), 4)
    mixing.refuse_channels(transforms(["flip", "erase", "mixup"]), 4)
