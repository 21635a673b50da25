"""EXIF's eight ways to lie, and palettes: pictures as they are to be seen, in the graph as outside."""

from __future__ import annotations

import io

import numpy as np
import pytest
from support.turned_pictures import HEIGHT, WIDTH, stored, upright

PIL = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def in_graph(tf):
    from tfscale.data.augment import decode

    return tf.function(lambda some: decode(some, 3), input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_every_way_to_lie_is_seen_upright(tf, in_graph, kind, endian):
    wanted = np.asarray(upright(), int)
    for way in range(1, 9):
        seen = in_graph(tf.constant(stored(way, kind, endian))).numpy()
        assert seen.shape == wanted.shape and np.abs(seen - wanted).max() < 16, way


def test_outside_of_a_graph_as_in_it(tf, in_graph):
    from tfscale.data.augment import decode

    content = tf.constant(stored(6))
    assert (decode(content, 3).numpy() == in_graph(content).numpy()).all()
    assert decode(content, 3, reading=1).shape == (WIDTH, HEIGHT, 3)  # as it was before


def test_nonsense_in_the_record_turns_nothing(tf):
    from tfscale.data.orientation import orientation

    good = stored(6)
    start = good.index(b"Exif")
    assert int(orientation(tf.constant(good))) == 6
    for broken in (
        stored(0),
        stored(9),
        good[: start + 9],
        good[: start + 20],
        good[: start + 10] + b"\xff" * 4 + good[start + 14 :],  # a directory far behind the end
        good[: start + 14] + b"\xff\xff" + good[start + 16 :],
        b"\xff\xd8\xff\xe1\x00\x00Exif",
        b"RIFF\0\0\0\0WEBPEXIF\xff\xff\xff\xff",
        b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffeXIf",
        b"Exif",
        b"",
    ):
        assert int(orientation(tf.constant(broken))) in (1, 6), broken


def test_a_segment_before_the_record_is_passed_over(tf):
    from tfscale.data.orientation import orientation

    good = stored(8)
    other = b"\xff\xe2" + (2 + 60000).to_bytes(2, "big") + b"Exif\0\0II" + bytes(60000 - 8)
    assert int(orientation(tf.constant(good[:2] + other + b"\xff\xff" + good[3:]))) == 8


def test_a_crop_of_a_turned_jpeg_is_the_crop_of_the_upright_one(tf):
    from tfscale.data import augment
    from tfscale.data.transforms import transforms

    looks, steps = augment.Looks(training=True, size=16, channels=3), transforms("imagenet")
    prepare = tf.function(lambda content, seed: augment.prepare(content, seed, steps, looks)["image"], autograph=False)
    for seed in range(4):
        wanted = prepare(tf.constant(stored(1)), tf.constant([7, seed], tf.int64)).numpy()
        for way in range(2, 9):
            got = prepare(tf.constant(stored(way)), tf.constant([7, seed], tf.int64)).numpy()
            assert np.abs(got.astype(int) - wanted).max() < 14, way  # decoded crops differ at their borders


@pytest.mark.parametrize(("mode", "channels"), [("P", 3), ("L", 3), ("P", 1), ("P", 4)])
def test_a_bmp_of_256_colours_has_the_colours_of_its_palette(tf, mode, channels):
    from tfscale.data.augment import decode

    stream = io.BytesIO()
    upright().convert(mode, **({"palette": PIL.Palette.ADAPTIVE, "colors": 100} if mode == "P" else {})).save(
        stream, "BMP"
    )
    wanted = PIL.open(stream).convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    seen = decode(tf.constant(stream.getvalue()), channels).numpy()
    assert seen.shape == (HEIGHT, WIDTH, channels)
    assert np.abs(seen.astype(int) - np.asarray(wanted, int).reshape(seen.shape)).max() <= (1 if channels == 1 else 0)


def test_bmps_that_would_be_read_otherwise_are_refused(tf):
    from tfscale.data.pictures import verify_content

    def bmp(mode):
        stream = io.BytesIO()
        upright().convert(mode).save(stream, "BMP")
        return bytearray(stream.getvalue())

    packed, old = bmp("P"), bmp("RGB")
    packed[30] = 1  # run-length encoding
    old[14] = 12  # OS/2's header
    for content, told in ((packed, "compressed BMP"), (old, "header of OS/2"), (bmp("1"), "1 bits a pixel")):
        assert told in verify_content(bytes(content), channels=3, max_pixels=10**6)
    assert verify_content(bytes(bmp("P")), channels=3, max_pixels=10**6) == (HEIGHT, WIDTH)


def test_the_size_that_is_told_is_that_of_the_picture_as_it_is_seen(tf):
    from tfscale.data.pictures import verify_content

    assert verify_content(stored(6), channels=3, max_pixels=10**6) == (HEIGHT, WIDTH)
    assert verify_content(stored(6), channels=3, max_pixels=10**6, reading=1) == (WIDTH, HEIGHT)


def test_other_kinds_are_named(tf):
    from tfscale.data.pictures import verify_content

    stream = io.BytesIO()
    upright().save(stream, "TIFF")
    assert verify_content(stream.getvalue(), channels=3, max_pixels=10**6).endswith("but TIFF")
