"""Tables imported as people import theirs, from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tfscale.importer.dataset import import_data
from tfscale.importer.import_request import parse_request

Rows = Mapping[str, Sequence[Any]]  # None: missing


def import_table(
    root: Path, splits: Mapping[str, Rows], types: Mapping[str, str], *, name: str = "table", label: str = "label"
) -> Path:
    """Imports the rows into root; `types` names the type of every column but "label"."""
    root.mkdir(parents=True, exist_ok=True)
    file, schema = root / f"{name}.csv", root / f"{name}.yaml"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*next(iter(splits.values())), "part"])
        for split, rows in splits.items():
            writer.writerows([*row, split] for row in zip(*rows.values(), strict=True))
    schema.write_text(yaml.safe_dump({"columns": dict(types)}))
    words = [
        str(file),
        f"name={name}",
        f"dir={root}",
        f"label={label}",
        "split_by=part",
        f"schema={schema}",
        "processes=1",
    ]
    return import_data(parse_request(words))
