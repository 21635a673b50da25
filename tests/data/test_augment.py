from __future__ import annotations

import numpy as np
import pytest

from tfscale.data.transforms import AUGMENTS, transforms


@pytest.fixture
def augment(tf):
    from tfscale.data import augment

    return augment


@pytest.fixture
def prepared(augment):
    def prepared(image, seed, kind, *, training=True, size=32):
        return augment.prepare(image, seed, transforms(kind), augment.Looks(training, size, channels=3))

    return prepared


def picture(tf, height=40, width=60):
    """A smooth picture, that tells where a crop was taken: red grows downwards, green to the right."""
    rows, columns = np.meshgrid(np.linspace(0, 255, height), np.linspace(0, 255, width), indexing="ij")
    return tf.constant(np.stack([rows, columns, 0 * rows], -1).astype(np.uint8))


def seeds(tf, count):
    return [tf.constant([7, i], tf.int64) for i in range(count)]


EVERYTHING = ["imagenet", "rand_augment", "colour", "erase", "mixup", "cutmix"]
DRAWN = {"none": 0, "digits": 0, "cifar": 1, "photos": 1, "imagenet": 1, str(EVERYTHING): 20}


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", [*AUGMENTS, EVERYTHING], ids=str)
def test_every_kind_has_a_static_shape_and_is_a_function_of_the_seed(tf, prepared, kind, training, encoded):
    image = tf.io.encode_jpeg(picture(tf)) if encoded else picture(tf)
    drawn = DRAWN[str(kind)] if training else 0

    @tf.function
    def prepare(seed):
        fields = prepared(image, seed, kind, training=training)
        assert fields["image"].shape == (32, 32, 3)
        assert {name: tuple(field.shape) for name, field in fields.items() if name != "image"} == (
            {"draws": (drawn,)} if drawn else {}
        )
        return fields

    one, again, other = (prepare(seed) for seed in (*seeds(tf, 1) * 2, seeds(tf, 2)[1]))
    assert one["image"].dtype == tf.uint8
    assert all((one[name].numpy() == again[name].numpy()).all() for name in one)
    assert (one["image"].numpy() == other["image"].numpy()).all() == (not training or kind == "none")
    assert not drawn or not (one["draws"].numpy() == other["draws"].numpy()).any()


def area(crop):
    """The share of the picture that a crop shows, by its range of colours."""
    reds, greens = (crop[..., c].astype(float) for c in (0, 1))
    return np.ptp(reds) / 255 * np.ptp(greens) / 255


def test_photos_keep_more_of_the_picture_than_imagenet(tf, prepared):
    def areas(kind):
        crop = tf.function(lambda seed: prepared(picture(tf, 200, 200), seed, kind, size=64)["image"], autograph=False)
        return [area(crop(seed).numpy()) for seed in seeds(tf, 60)]

    photos, imagenet, own = areas("photos"), areas("imagenet"), areas([{"resized_crop": {"least_area": 0.9}}])
    assert min(photos) > 0.30  # 0.35, less what the borders of a resized crop lose
    assert np.mean(photos) > np.mean(imagenet) + 0.1
    assert min(imagenet) < 0.25
    assert min(own) > 0.85


def test_evaluation_shows_the_middle(tf, prepared):
    fields = prepared(picture(tf, 80, 80), seeds(tf, 1)[0], "photos", training=False, size=70)
    assert set(fields) == {"image"}
    assert np.abs(fields["image"].numpy().astype(int) - picture(tf, 80, 80).numpy()[5:75, 5:75]).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 1)])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_picture_of_few_pixels_has_a_middle_and_crops(tf, augment, shape, scaled):
    image, steps = tf.fill([*shape, 3], tf.constant(200, tf.uint8)), transforms([{"resized_crop": {"scaled": scaled}}])
    for encoded in (tf.io.encode_png(image), tf.io.encode_jpeg(image)):
        for training in (True, False):
            seen = augment.prepare(encoded, tf.constant([1, 2], tf.int64), steps, augment.Looks(training, 8, 3))[
                "image"
            ]
            np.testing.assert_array_equal(seen, np.full([8, 8, 3], 200))


def photo(tf, height, width):
    """A JPEG with structures of 8 to 100 pixels, and no noise, which no two ways of decoding agree on."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 7 + y / 19), np.sin(x / 5 - y / 11) * np.sin(y / 23), np.cos((x + y) / 13)]
    image = np.stack([127.5 + 100 * wave for wave in waves], -1).astype(np.uint8)
    return tf.io.encode_jpeg(image, quality=95)


@pytest.mark.parametrize(("size", "ratios"), [(300, {1}), (224, {1, 2}), (100, {1, 2, 4}), (32, {2, 4, 8})])
def test_a_crop_that_is_decoded_alone_and_smaller_is_the_crop_of_the_whole(tf, augment, size, ratios):
    """At the model's size, beside the whole picture cropped and resized with every pixel counted: what is decoded smaller
    is as near to that as what skips pixels, as resizing the whole crop does."""
    jpeg = photo(tf, 560, 720)
    whole = tf.cast(tf.io.decode_jpeg(jpeg), tf.float32)
    crop_of = tf.function(lambda window: augment.decode_window(jpeg, window, size=size, channels=3), autograph=False)
    seen = set()
    for top, left, height, width in [
        (0, 0, 560, 720),
        (8, 24, 448, 504),
        (32, 8, 304, 344),
        (16, 40, 152, 176),
        (104, 200, 88, 64),
    ]:
        crop = tf.cast(crop_of(tf.constant([top, left, height, width])), tf.float32)
        ratio = max([r for r in (2, 4, 8) if min(height, width) >= r * size], default=1)
        seen.add(ratio)
        assert abs(crop.shape[0] - height / ratio) <= 1 and abs(crop.shape[1] - width / ratio) <= 1
        full = whole[top : top + height, left : left + width]
        if ratio == 1:
            assert np.abs(crop - full).mean() < 0.1  # a decoded crop differs at its borders
        else:
            wanted = tf.image.resize(full, [size, size], antialias=True)
            apart = [np.abs(tf.image.resize(one, [size, size]) - wanted).mean() for one in (crop, full)]
            assert apart[0] < max(2, apart[1]), (ratio, apart)  # of 255
    assert seen == ratios


def test_only_what_is_scaled_is_decoded_smaller_and_evaluation_like_training(tf, augment):
    """The names stay as they were: the whole picture, and every second pixel or so of it."""
    jpeg, size = photo(tf, 560, 720), 64
    whole = tf.io.decode_jpeg(jpeg)[35:525, 115:605]  # the middle 87.5 %
    found = {}
    for scaled in (False, True):
        steps = transforms([{"resized_crop": {"scaled": scaled}}])
        looks = augment.Looks(False, size, 3)
        found[scaled] = tf.cast(augment.prepare(jpeg, tf.constant([1, 2], tf.int64), steps, looks)["image"], tf.float32)
    np.testing.assert_array_equal(found[False], tf.round(tf.image.resize(whole, [size, size])))
    smaller = augment.decode_window(jpeg, tf.constant([35, 115, 490, 490]), size=size, channels=3)
    assert abs(smaller.shape[0] - 490 / 4) < 1 > abs(smaller.shape[1] - 490 / 4)
    np.testing.assert_array_equal(found[True], tf.round(tf.image.resize(smaller, [size, size])))
    seen = augment.prepare(jpeg, tf.constant([1, 2], tf.int64), transforms("imagenet"), augment.Looks(True, size, 3))
    seed = tf.constant([1, 2], tf.int64)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        [560, 720, 3], tf.zeros([1, 0, 4]), seed, min_object_covered=0.0, area_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3), use_image_if_no_bounding_boxes=True,
    )  # fmt: skip
    crop = tf.io.decode_and_crop_jpeg(jpeg, tf.concat([begin[:2], extent[:2]], 0), channels=3)
    np.testing.assert_array_equal(seen["image"], tf.cast(tf.round(tf.image.resize(crop, [size, size])), tf.uint8))


def test_a_large_picture_is_resized_to_the_same_bits(tf, augment):
    for sides in ((40, 60), (300, 500)):
        image = tf.io.decode_jpeg(photo(tf, *sides))
        wanted = tf.cast(tf.round(tf.image.resize(image, [48, 48])), tf.uint8)
        assert (augment.resize(image, 48, 3).numpy() == wanted.numpy()).all()


# -- RandAugment beside Pillow, by which it was defined


def pillow(name, image, strength):
    """torchvision's RandAugment on a Pillow image, https://arxiv.org/abs/1909.13719, at this share of its range."""
    from PIL import Image, ImageEnhance, ImageOps

    size, grey, strong = image.size, (128,) * 3, abs(strength)

    def affine(*six):
        return image.transform(size, Image.Transform.AFFINE, six, Image.Resampling.NEAREST, fillcolor=grey)

    enhanced = {"brightness": "Brightness", "colour": "Color", "contrast": "Contrast", "sharpness": "Sharpness"}
    if name in enhanced:
        return getattr(ImageEnhance, enhanced[name])(image).enhance(1 + 0.9 * strength)
    return {
        "identity": lambda: image,
        "shear_x": lambda: affine(1, 0.3 * strength, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, 0.3 * strength, 1, 0),
        "translate_x": lambda: affine(1, 0, round(150 / 331 * size[0] * strength), 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, round(150 / 331 * size[1] * strength)),
        "rotate": lambda: image.rotate(30 * strength, Image.Resampling.NEAREST, fillcolor=grey),
        "posterize": lambda: ImageOps.posterize(image, 8 - round(4 * strong)),
        "solarize": lambda: ImageOps.solarize(image, 255 * (1 - strong)),
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
    }[name]()


def test_randaugment_does_what_pillow_does(tf):
    pytest.importorskip("PIL")
    from PIL import Image

    from tfscale.data.rand_augment import OPERATIONS, apply

    content = tf.io.decode_jpeg(photo(tf, 48, 64)).numpy() // 2 + 40  # neither black nor white, for the contrasts
    run = tf.function(lambda which, strength: apply(tf.constant(content), which, strength), autograph=False)
    for place, name in enumerate(OPERATIONS):
        for strength in (0.3, -0.7, 1.0):
            got = run(tf.constant(place), tf.constant(strength)).numpy().astype(int)
            wanted = np.asarray(pillow(name, Image.fromarray(content), strength), int)
            apart = np.abs(got - wanted).max(-1)
            moved = name.startswith(("shear", "rotate"))  # the nearest pixel is another one here and there
            assert np.mean(apart > 1) < 0.02 if moved else apart.max() <= 1, (name, strength, apart.max())


def test_randaugment_draws_all_operations_for_each_picture_anew(tf):
    from tfscale.data.rand_augment import rand_augment

    image = tf.io.decode_jpeg(photo(tf, 24, 24))
    run = tf.function(lambda seed: rand_augment(image, seed, layers=1, magnitude=20), autograph=False)
    assert len({run(seed).numpy().tobytes() for seed in seeds(tf, 200)}) >= 14  # with those that have two directions
    grey = tf.image.rgb_to_grayscale(image)
    assert rand_augment(grey, seeds(tf, 1)[0], layers=2, magnitude=9).shape == (24, 24, 1)
