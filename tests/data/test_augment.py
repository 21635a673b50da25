from __future__ import annotations

import numpy as np
import pytest

from tfscale.data import AUGMENTS, check_augment
from tfscale.errors import UsageError


@pytest.fixture
def augment(tf):
    from tfscale.data import augment

    return augment


def picture(tf, height=40, width=60):
    """A smooth picture, that tells where a crop was taken: red grows downwards, green to the right."""
    rows, columns = np.meshgrid(np.linspace(0, 255, height), np.linspace(0, 255, width), indexing="ij")
    return tf.constant(np.stack([rows, columns, 0 * rows], -1).astype(np.uint8))


def seeds(tf, count):
    return [tf.constant([7, i], tf.int64) for i in range(count)]


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", AUGMENTS)
def test_every_kind_has_a_static_shape_and_is_a_function_of_the_seed(tf, augment, kind, training, encoded):
    image = tf.io.encode_jpeg(picture(tf)) if encoded else picture(tf)

    @tf.function
    def prepare(seed):
        image_, flip = augment.prepare(image, seed, kind, training=training, size=32, channels=3)
        assert image_.shape == (32, 32, 3)
        assert (flip is not None) == (training and kind in ("cifar", "imagenet", "photos"))
        return image_

    one, again, other = (prepare(seed).numpy() for seed in (*seeds(tf, 1) * 2, seeds(tf, 2)[1]))
    assert one.dtype == np.uint8
    assert (one == again).all()
    assert (one == other).all() == (not training or kind == "none")


def test_unknown_kinds_are_refused_without_tensorflow():
    with pytest.raises(UsageError, match="unknown augmentation 'photo'"):
        check_augment("photo")


def area(crop):
    """The share of the picture that a crop shows, by its range of colours."""
    reds, greens = (crop[..., c].astype(float) for c in (0, 1))
    return np.ptp(reds) / 255 * np.ptp(greens) / 255


def test_photos_keep_more_of_the_picture_than_imagenet(tf, augment):
    def areas(kind):
        crops = (
            augment.prepare(picture(tf, 200, 200), s, kind, training=True, size=64, channels=3)[0]
            for s in seeds(tf, 60)
        )
        return [area(crop.numpy()) for crop in crops]

    photos, imagenet = areas("photos"), areas("imagenet")
    assert min(photos) > 0.30  # 0.35, less what the borders of a resized crop lose
    assert np.mean(photos) > np.mean(imagenet) + 0.1
    assert min(imagenet) < 0.25


def test_evaluation_shows_the_middle(tf, augment):
    image, flip = augment.prepare(picture(tf, 80, 80), seeds(tf, 1)[0], "photos", training=False, size=70, channels=3)
    assert flip is None
    assert np.abs(image.numpy().astype(int) - picture(tf, 80, 80).numpy()[5:75, 5:75]).max() <= 1


def test_half_of_the_examples_are_mirrored(tf, augment):
    def drawn(count):
        image = picture(tf, 8, 8)
        some = (augment.prepare(image, s, "cifar", training=True, size=8, channels=3)[1] for s in seeds(tf, count))
        return [bool(flip) for flip in some]

    assert 70 < sum(drawn(200)) < 130
    assert drawn(9) == drawn(9)


def test_mirror_turns_the_chosen_ones_from_left_to_right(tf, augment):
    images = tf.constant(np.random.RandomState(0).randint(0, 256, (3, 4, 5, 3), np.uint8))
    got = augment.mirror(images, tf.constant([True, False, True])).numpy()
    assert got.dtype == np.uint8
    assert (got[1] == images[1].numpy()).all()
    for i in (0, 2):
        assert (got[i] == images[i].numpy()[:, ::-1]).all()
