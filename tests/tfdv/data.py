"""The table that TFDV and ours both look at: python -m tests.tfdv.data FOLDER imports it there."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

ROWS = 1500


def write_table(path: Path) -> Path:
    """A column of every type, with gaps; the same on every machine."""
    random = np.random.RandomState(7)
    delay = random.exponential(20, ROWS).round(1) - 10
    words = ["late", "again", "no", "crew", "storm", "fuel", "gate", "ok", "été"]
    columns = {
        "flight_id": [f"f{i:05}" for i in range(ROWS)],
        "delay": np.where(random.uniform(size=ROWS) < 0.1, "", delay.astype(str)),
        "distance": random.randint(0, 300, ROWS) * 10,
        "carrier": random.choice(["AA", "BB", "CC", ""], ROWS, p=[0.5, 0.3, 0.17, 0.03]),
        "weekend": random.choice(["yes", "no"], ROWS),
        "when": [f"2013-{month:02}-{day:02}" for month, day in random.randint(1, 13, (ROWS, 2))],
        "place": ["LGA"] * ROWS,
        "note": [" ".join(random.choice(words, 9)) for _ in range(ROWS)],
        "late": np.where(delay > 15, "late", "on time"),
        "split": np.where(np.arange(ROWS) % 5 == 0, "test", "train"),
    }
    with path.open("w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    return path


def words_of_import(path: Path, folder: Path) -> list[str]:
    return ["data", "import", str(path), "name=looked", f"data.dir={folder}", "data.label=late", "data.split_by=split"]


if __name__ == "__main__":
    from tfscale.__main__ import main

    at = Path(sys.argv[1])
    at.mkdir(parents=True, exist_ok=True)
    sys.exit(main([*words_of_import(write_table(at / "table.csv"), at), "fresh=true"]))
