"""What people ask of a report, and what is refused before anything is computed."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from tfscale.console.offline_page import missing
from tfscale.errors import UsageError
from tfscale.files import refuse_unwritable

WHERE, EXTRA = "report", "report"  # the option, and the extra of tfscale
IMPORTANCE = "report.importance"
_FEWEST = 10  # examples that are shuffled
_LIBRARIES = {"sklearn": "scikit-learn", "scipy": "SciPy", "jinja2": "Jinja2", "vl_convert": "vl-convert"}


@dataclass(frozen=True)
class ReportRequest:
    """A page, and the same figures as JSON beside it; or a comparison alone.

    Attributes:
        output: FILE.html; None: no page.
        slices: a column of the data by whose values the examples are told apart, or "".
        against: the folder of a run that answers the same examples, or its URL, or "".
        importance: examples at most by which the importance of a table's columns is computed; 0: it isn't; None: it is
            of a table that has no more than 200 columns.
    """

    output: Path | None
    slices: str = ""
    against: str = ""
    importance: int | None = None

    @property
    def numbers(self) -> Path | None:
        """FILE.json"""
        return self.output.with_suffix(".json") if self.output else None

    @property
    def where(self) -> str:
        """The option that is at fault where there is no answer to it."""
        return WHERE if self.output else "against"

    def check(self) -> None:
        """Finds without TensorFlow that the report can't be made.

        Raises:
            UsageError: the output is no page, there is none that slices or the importance of columns would be on, the
                examples of the importance are too few, or a library is missing.
            OutputError: the folder can't be written.
        """
        if self.slices and self.output is None:
            raise UsageError(
                "slices are part of a report, and none is asked for", where="report.slices", fix="add report=FILE.html"
            )
        if self.importance is not None and self.output is None:
            raise UsageError(
                "the importance of columns is part of a report, and none is asked for",
                where=IMPORTANCE,
                fix="add report=FILE.html",
            )
        if self.importance and self.importance < _FEWEST:
            raise UsageError(
                f"{self.importance} examples tell nothing of a column",
                where=IMPORTANCE,
                fix=f"give 1000, or {_FEWEST} or more; 0 leaves it away",
            )
        if self.output is not None and self.output.suffix != ".html":
            raise UsageError(f"{self.output} is no page's name", where=WHERE, fix="use report=FILE.html")
        for module, library in _LIBRARIES.items():
            if importlib.util.find_spec(module) is None and (self.output or module == "scipy"):
                raise missing(f"{self.where}= needs {library}", where=self.where, extra=EXTRA)
        if self.output is not None:
            refuse_unwritable(self.output, where=WHERE, fix="choose another report=FILE.html")
