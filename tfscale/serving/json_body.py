"""JSON of requests and answers: read with NaN as Python and TensorFlow Serving write it, written from arrays.

Owns orjson (extra `serve`). Refuses to know protocols.
"""

from __future__ import annotations

import base64
import binascii
import json
from http import HTTPStatus
from typing import Any

import numpy as np

from tfscale.serving.refusal import Refusal, bad_request

_ANY = ("", "application/json", "application/x-www-form-urlencoded")  # curl's own, which TensorFlow Serving takes


def parsed(body: bytes, content_type: str) -> dict[str, Any]:
    """The object in a body.

    Raises:
        Refusal: it isn't one; 415 where another type than JSON is declared, too.
    """
    import orjson

    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as strict:
        try:
            found = json.loads(body)  # NaN and Infinity, which orjson refuses
            json.dumps(found, ensure_ascii=False).encode()  # and half characters, which aren't taken
        except (ValueError, RecursionError):
            kind = content_type.partition(";")[0].strip().lower()
            if kind in _ANY or kind.endswith("+json"):
                raise bad_request(f"the body is no JSON: {str(strict)[:200]}") from None
            raise Refusal(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body is {kind}, and no JSON; send application/json"
            ) from None
    if not isinstance(found, dict):
        raise bad_request("the body is no JSON object")
    return found


def written(value: Any) -> bytes:
    """JSON of dicts, lists and arrays of numbers; NaN and infinities as NaN, Infinity and -Infinity, which are no JSON,
    where there are any: null would hide them."""
    import orjson

    if _is_finite(value):
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(value, default=lambda array: array.tolist(), separators=(",", ":")).encode()


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    return not isinstance(value, float) or bool(np.isfinite(value))


def plain(array: np.ndarray) -> np.ndarray:
    """An array as JSON has its numbers: of half precision in float32."""
    found = array.astype(np.float32) if array.dtype.name in ("bfloat16", "float16") else array
    return np.asarray(found, order="C")


def from_base64(text: Any) -> bytes:
    """Raises Refusal: it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise bad_request("the value of b64 is no base64") from None


def in_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
