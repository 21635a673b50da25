"""What people ask of a report, and what is refused before anything is computed."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tfscale.console.offline_page import missing
from tfscale.errors import OutputError, UsageError

WHERE, EXTRA = "report", "report"  # the option, and the extra of tfscale
_LIBRARIES = {"sklearn": "scikit-learn", "jinja2": "Jinja2", "vl_convert": "vl-convert"}


@dataclass(frozen=True)
class ReportRequest:
    """A page, and the same figures as JSON beside it.

    Attributes:
        output: FILE.html.
        slices: a column of the data by whose values the examples are told apart, or "".
    """

    output: Path
    slices: str = ""

    @property
    def numbers(self) -> Path:
        """FILE.json"""
        return self.output.with_suffix(".json")

    def check(self) -> None:
        """Finds without TensorFlow that the report can't be made.

        Raises:
            UsageError: the output is no page, or a library is missing.
            OutputError: the folder can't be written.
        """
        if self.output.suffix != ".html":
            raise UsageError(f"{self.output} is no page's name", where=WHERE, fix="use report=FILE.html")
        for module, library in _LIBRARIES.items():
            if importlib.util.find_spec(module) is None:
                raise missing(f"the report needs {library}", where=WHERE, extra=EXTRA)
        try:
            if self.output.is_dir():
                raise IsADirectoryError(f"{self.output} is a folder")
            self.output.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.output.parent):  # permission bits say nothing about read-only mounts
                pass
        except OSError as error:
            raise OutputError(
                f"{self.output} can't be written: {error.strerror or error}",
                where=WHERE,
                fix="choose another report=FILE.html",
            ) from None
