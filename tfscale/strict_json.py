"""Strict JSON: what we write, without the NaN and Infinity that JSON has not and many readers refuse.

Owns how a number that isn't finite is written: as the text "NaN", "Infinity" or "-Infinity", as Protocol Buffers' JSON
has it, so that nothing is lost: `float()` takes these texts, and so does pandas in a column of numbers.

    dumps({"loss": math.nan})          # {"loss": "NaN"}
    numbers(json.loads(text))          # {"loss": nan}
"""

from __future__ import annotations

import json
import math
from typing import Any

_TEXTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(value: Any, **options: Any) -> str:
    """`json.dumps` with these options, whose result every reader of JSON takes."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(plain(value), allow_nan=False, **options)


def plain(value: Any) -> Any:
    """The value with texts in place of its numbers that aren't finite."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def numbers(value: Any) -> Any:
    """What was read, with the numbers again that `dumps` has written as texts."""
    if isinstance(value, dict):
        return {key: numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [numbers(one) for one in value]
    return _TEXTS.get(value, value) if isinstance(value, str) else value
