"""Side: one set of examples that is looked at, by itself or beside another.

Owns what is known of one. Refuses to know how it was read and what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfscale.statistics.findings import Finding


@dataclass
class Examples:
    """Pictures, texts or rows one by one, as copies and noise are looked for.

    Attributes:
        names: for people.
        labels: int64, -1 for none; empty where they have no classes.
        digests: of what an example is; None where a copy is no fault, as in tables.
        near: what tells that two are nearly the same: of pictures uint64 hashes, of texts their words.
        small: uint8 [n, 8, 8, 3] of pictures: two that are nearly the same have nearly these colours.
        features: [n, d] floats with NaN for a gap, of which a simple model may tell the label; None for texts.
        categories: which of the features are numbers of values.
    """

    names: Sequence[str]
    labels: np.ndarray
    digests: Sequence[bytes] | None = None
    near: np.ndarray | Sequence[Sequence[str]] | None = None
    small: np.ndarray | None = None
    features: np.ndarray | None = None
    categories: Sequence[bool] = ()


@dataclass
class Side:
    """One set of examples.

    Attributes:
        about: {"rows", "columns", "label"} as `findings` takes it; with "bad", why some can't be read.
        unit: what people call one of them.
        told: how much of the label each column of a table alone tells.
        examples: None where only figures are known, as of a baseline.
        found: what was found as it was read.
    """

    name: str
    about: dict[str, Any]
    unit: str = "rows"
    told: dict[str, float] = field(default_factory=dict)
    examples: Examples | None = None
    found: list[Finding] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        return list((self.about.get("label") or {}).get("classes", ()))
