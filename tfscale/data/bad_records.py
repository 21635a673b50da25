"""The records of a data set that can't be used, found once before training and remembered.

Owns the budget (data.max_bad_records), the note of what was found and the message about it. A record in it keeps its
place in the order, so that every attempt makes the same steps, and counts with weight 0 there. Refuses to know how a
record is judged. Every worker judges the copy of the data that it reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tfscale.data.index_file import one_writer, read_index, write_index
from tfscale.errors import DataCorrupt

_log = logging.getLogger(__name__)

SPLITS = ("train", "test")
_LISTED = 5  # records in one line


class BadRecord(NamedTuple):
    """One record and what is wrong with it."""

    place: int  # in its split
    file: str
    number: int  # in its file
    byte: int
    reason: str

    def __str__(self) -> str:
        return f"record {self.number} at byte {self.byte}{self.reason}"


@dataclass
class BadRecords:
    """What is known of some files.

    Args:
        note: where it is remembered.
        seen: what the files are now (sizes, times), and what else a judgement depends on; JSON.
        budget: how many bad records are tolerated, over all splits.
    """

    note: Path
    seen: Mapping[str, Any]
    budget: int

    def known(self) -> dict[str, list[BadRecord]] | None:
        """What was found, where the files are still the same and it is within the budget; else None."""
        content = read_index(self.note)
        bad = content.pop("bad", {})
        if content != self.seen or sum(map(len, bad.values())) > self.budget:
            return None
        return {split: [BadRecord(*entry) for entry in bad.get(split, [])] for split in SPLITS}

    def find(self, judge: Callable[[str], Iterable[BadRecord]]) -> dict[str, list[BadRecord]]:
        """Judges both splits, unless another process has done so while we waited.

        Raises:
            DataCorrupt: more than the budget allows.
        """
        with one_writer(self.note.parent, self.note.name):
            known = self.known()
            if known is not None:
                return known
            found: dict[str, list[BadRecord]] = {split: [] for split in SPLITS}
            for split in SPLITS:
                for record in judge(split):
                    found[split].append(record)
                    if sum(map(len, found.values())) > self.budget:
                        raise self._beyond([one for split in SPLITS for one in found[split]])
            write_index(self.note, {**self.seen, "bad": found})
            return found

    def _beyond(self, found: list[BadRecord]) -> DataCorrupt:
        last, others = found[-1], found[:-1]
        what = f"{len(found)} records are bad, and data.max_bad_records={self.budget}: " if others else ""
        before = f"; before it {_listed(others)}" if others else ""
        return DataCorrupt(
            f"{what}{last}{before}",
            where=last.file,
            fix="write the record again, correct data.features, or let a few be left out with data.max_bad_records=N",
        )

    def report(self, found: Mapping[str, list[BadRecord]]) -> None:
        """One line for people, where anything was found."""
        all_of_them = [record for records in found.values() for record in records]
        if all_of_them:
            text = f"{len(all_of_them)} bad records of at most {self.budget} count for nothing: {_listed(all_of_them)}"
            _log.warning(f"{text} (all in {self.note})")


def _listed(records: Sequence[BadRecord]) -> str:
    text = "; ".join(f"{record.file}: {record}" for record in records[:_LISTED])
    return text + (f"; and {len(records) - _LISTED} more" if len(records) > _LISTED else "")
