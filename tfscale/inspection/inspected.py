"""tfscale.inspect_data: the figures of a data set in a program or a notebook."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

from tfscale.inspection.figures import Figures
from tfscale.inspection.gathered import gather
from tfscale.inspection.inspect_request import InspectRequest, looks_of
from tfscale.inspection.terminal import text_of
from tfscale.inspection.written_page import part_of

_PICTURES, _ROWS = 12, 10


class InspectedData:
    """What a data set holds: a notebook shows it with charts and examples, as `tfscale data inspect` does, and `print`
    as `tfscale data show`.

    Attributes:
        figures: its numbers, as JSON holds them: "splits", "found" by the import, "classes" of each split, "columns"
            with their charts, of the training split.
        examples: the examples that were chosen: dicts of columns; of pictures "label", "file", "size" (width, height),
            "image" (uint8 [height, width, 3] of at most 160 points a side) and "boxes".
    """

    def __init__(self, figures: Figures, augment: str):
        self._figures, self._augment = figures, augment

    @cached_property
    def figures(self) -> dict[str, Any]:
        return self._figures.as_dict()

    @cached_property
    def examples(self) -> list[dict[str, Any]]:
        rows = self._figures.rows
        if rows:
            return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
        return [
            {"label": one.label, "file": one.name, "size": one.size, "image": one.shown[0], "boxes": one.boxes}
            for one in self._figures.pictures
        ]

    def __str__(self) -> str:
        return text_of(self._figures)

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {examples:,}" for name, examples, _ in self._figures.splits)
        return f"<tfscale data set {self._figures.name}: {splits}>"

    def _repr_html_(self) -> str:
        return self._html

    @cached_property
    def _html(self) -> str:
        return part_of(self._figures, self._augment)


def inspect_data(
    name: str,
    *,
    dir: str | None = None,
    split: str = "train",
    label: str | None = None,
    where: str | None = None,
    examples: int | None = None,
    augment: str = "none",
) -> InspectedData:
    """Looks at a prepared data set; in a notebook the last line of a cell shows it.

    Args:
        name: as `tfscale data import` wrote it.
        dir: the folder of all data sets; None: TFSCALE_DATA_DIR, or data.
        split, label, where: whose examples are shown: those of a class, or of a table those for which SQL over its
            columns holds, such as "distance > 1000". Figures are of all.
        examples: how many are shown; None: 12 pictures, 10 rows.
        augment: how pictures are shown once more as training sees them: a name or a list, as `task.augment` is written.

    Raises:
        DataMissing: there is no such data set, or no such example.
        UsageError: an argument doesn't fit the data. Shown in a notebook it needs the extra `inspect`.
    """
    looks_of(augment)
    folder = dir or os.environ.get("TFSCALE_DATA_DIR") or "data"
    request = InspectRequest(name, folder, examples, split, label, where, augment)
    return InspectedData(gather(request, pictures=_PICTURES, rows=_ROWS), augment)
