"""What texts are like, in numbers: how long they are, and which words they have.

Owns measuring them. Refuses to know where they come from and what is made of the numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfscale.importer.picture_looks import class_profile
from tfscale.importer.table_columns import quantiles_of
from tfscale.statistics.protos import WORDS

_WORD = re.compile(r"\w+")
_MOST_WORDS = 50_000  # of a vocabulary: those that come most often


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def text_profile(texts: Iterable[Mapping[str, Any]], fields: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """What `findings` and the protos take of so many texts.

    Args:
        texts: each with its fields, and its label as a number where there are classes.
        fields: "text", or "prompt" and "completion".
    """
    letters: dict[str, list[int]] = {field: [] for field in fields}
    counted: dict[str, list[int]] = {field: [] for field in fields}
    vocabulary: dict[str, Counter[str]] = {field: Counter() for field in fields}
    seen: dict[str, set[int]] = {field: set() for field in fields}
    sizes = dict.fromkeys(fields, 0)
    counts, rows = np.zeros(len(classes), np.int64), 0
    for one in texts:
        rows += 1
        for field in fields:
            text = one[field]
            words = words_of(text)
            letters[field].append(len(text))
            counted[field].append(len(words))
            vocabulary[field].update(words)
            seen[field].add(hash(text))
            sizes[field] += len(text.encode())
        if len(classes):
            counts[one["label"]] += 1
    columns: dict[str, Any] = {}
    for field in fields:
        most = sorted(vocabulary[field].items(), key=lambda one: (-one[1], one[0]))[:_MOST_WORDS]
        measured = {"of": field, "missing": 0}
        columns[field] = {
            "type": "text", "missing": 0, "unique": len(seen[field]), "length": sizes[field] / max(1, rows)
        }  # fmt: skip
        for name, values in (("letters", letters[field]), ("words", counted[field])):
            columns[f"{field}: {name}"] = {"type": "number", **measured, **quantiles_of(np.array(values, np.float64))}
        columns[f"{field}{WORDS}"] = {"type": "words", **measured, "vocabulary": [list(one) for one in most]}
    return {"rows": rows, "columns": columns, "label": class_profile(classes, counts)}
