"""A table that is read slowly, for tests that need time between two steps. Light, as support.dense_models is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from support.dense_models import Table


@dataclass
class Slow(Table):
    """Every training record takes `pause` seconds."""

    pause: float = 0.0

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in super().identity().items() if name != "pause"}

    def read(self, split: str, indices: Any, *, ram_bytes: int) -> Any:
        from tensorflow.python.data.experimental.ops.testing import sleep

        records = super().read(split, indices, ram_bytes=ram_bytes)
        return records.apply(sleep(round(1e6 * self.pause))) if split == "train" and self.pause else records
