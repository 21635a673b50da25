"""What becomes an array of a model's input, and what is refused with which status."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tfscale.serving.json_body import parsed, written
from tfscale.serving.refusal import Refusal
from tfscale.serving.tensor_specs import TensorSpec, check_rows

NUMBERS = TensorSpec("x", "float32", (None, 2), gaps=False)
GAPS = TensorSpec("x", "float32", (None, 2), gaps=True)
WHOLE = TensorSpec("n", "int32", (None,))
BYTES = TensorSpec("image", "string", (None,))
TRUE = TensorSpec("on", "bool", (None,))


@pytest.mark.parametrize(
    ("spec", "values", "expected"),
    [
        (NUMBERS, [[1, 2.5], [3, 4]], np.float32([[1, 2.5], [3, 4]])),
        (GAPS, [[1, float("nan")]], np.float32([[1, np.nan]])),
        (WHOLE, [1, -2], np.int32([1, -2])),
        (GAPS, [[1, None]], np.float32([[1, np.nan]])),
        (TensorSpec("h", "float16", (None,)), [1.5], np.float16([1.5])),
        (TensorSpec("u", "uint64", (None,)), [2**64 - 1, 1], np.array([2**64 - 1, 1], np.uint64)),
        (TRUE, [True], np.array([True])),
        (BYTES, ["ä", b"\xff"], np.array(["ä".encode(), b"\xff"], object)),
    ],
)
def test_values_become_arrays_of_the_models_type(spec, values, expected):
    found = spec.array(values)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("spec", "values", "status", "said"),
    [
        (NUMBERS, [[1, 2, 3]], 422, r"x takes \[n, 2\], and was given \[1, 3\]"),
        (NUMBERS, [1, 2], 422, r"x takes \[n, 2\], and was given \[2\]"),
        (NUMBERS, [[1], [1, 2]], 422, "different lengths"),
        (NUMBERS, [[1, float("nan")]], 422, "NaN or an infinity"),
        (NUMBERS, [[1, None]], 422, "null among its values"),
        (NUMBERS, [["1", "2"]], 400, "takes float32, and was given a text"),
        (NUMBERS, [[1, {}]], 400, "and was given"),
        (WHOLE, [1.5], 400, "takes int32, and was given a fraction"),
        (WHOLE, [float("nan")], 422, "takes whole numbers"),
        (WHOLE, [2**31], 422, "too large for it"),
        (TRUE, [1], 400, "takes bool"),
        (BYTES, [1], 400, 'bytes as {"b64": "..."}, and was given a whole number'),
        (BYTES, [["a", "b"], ["c"]], 422, "different lengths"),
        (WHOLE, [True], 400, "takes int32, and was given true or false"),
        (NUMBERS, [[1, "a" * 500_000]] + [["", ""]] * 1000, 400, "given a text"),  # NumPy alone takes gigabytes
        (GAPS, [[1, float("inf")]], 422, "infinity"),
        (NUMBERS, [[1, 1e300]], 422, "too large"),
        (NUMBERS, [[1, 2], 3], 422, "different lengths"),
    ],
)
def test_what_the_model_does_not_take_is_refused(spec, values, status, said):
    with pytest.raises(Refusal, match=said) as refused:
        spec.array(values)
    assert refused.value.status == status


def test_all_inputs_have_as_many_examples():
    specs, x = {"x": NUMBERS, "n": WHOLE}, np.zeros((2, 2), np.float32)
    assert check_rows({"x": x, "n": np.zeros(2, np.int32)}, specs) == 2
    for arrays, said in (
        ({"x": x}, "n missing"),
        ({"x": x, "n": np.zeros(2, np.int32), "m": x}, "m unknown"),
        ({"x": x, "n": np.zeros(3, np.int32)}, "different numbers"),
        ({"x": x[:0], "n": np.zeros(0, np.int32)}, "no examples"),
    ):
        with pytest.raises(Refusal, match=said):
            check_rows(arrays, specs)
    fixed = {"x": TensorSpec("x", "float32", (4, 2))}
    with pytest.raises(Refusal, match="takes 4 examples at once, and was given 2"):
        check_rows({"x": x}, fixed)


def test_a_picture_that_claims_more_pixels_than_training_takes_is_refused_before_it_is_decoded():
    specs = {"image": TensorSpec("image", "string", (None,))}

    def png(width, height):
        return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)

    texts = [b"BMW 320 is no picture, whatever its letters say of a size", b"", b"\xff\xd8\xff", png(4000, 3000)]
    assert check_rows({"image": np.array(texts, object)}, specs) == 4
    with pytest.raises(Refusal, match="image is a picture that claims 12000 x 11000 pixels") as seen:
        check_rows({"image": np.array([*texts, png(12_000, 11_000)], object)}, specs)
    assert seen.value.status == 422


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "", "text/plain", "image/png"]
)
def test_json_is_read_whatever_is_declared(kind):
    assert parsed(b'{"a": [NaN, -Infinity, 1e3]}', kind)["a"][1:] == [float("-inf"), 1000.0]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json; charset=utf-8", 400),
        (b"{", "application/x-www-form-urlencoded", 400),
        (b"\x89PNG", "image/png", 415),
        (b"[1]", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"a": "\xff"}', "application/json", 400),
    ],
)
def test_what_is_no_json_object_is_refused(body, kind, status):
    with pytest.raises(Refusal) as refused:
        parsed(body, kind)
    assert refused.value.status == status


def test_nan_is_not_hidden_in_answers():
    assert written({"a": np.float32([0.1, 2])}) == b'{"a":[0.1,2.0]}'
    assert written({"a": [np.float32([1, np.nan]), float("inf")]}) == b'{"a":[[1.0,NaN],Infinity]}'
