"""Who had an alias of a registered model, and when: one event for each time that it moved, kept at the version that got
it.

Owns the events, their form in tags, and to whom a roll-back gives the alias. Refuses to know MLflow.

    events = read_events({"1": tags, "2": tags}, "champion")
    line_of(events)                       # ["1", "2"]: 2 has it, 1 had it before
    before(events, held="2", there={"1", "2"})                     # "1"
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

_WHEN = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True)
class Event:
    """An alias has moved.

    Attributes:
        version: that got it. former: that had it, None: nobody.
        number: counts the alias's moves; two at once may have the same.
        when: UTC, as 20261130T101112.123456Z.
        why: a sentence.
        back: whether it was a roll-back.
        numbers: of the comparison, where there was one.
    """

    version: str
    former: str | None
    number: int
    when: str
    why: str
    back: bool = False
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def next(cls, events: Sequence[Event], version: str, former: str | None, why: str, **more: Any) -> Event:
        """What happens now, after these."""
        number = max((event.number for event in events), default=0) + 1
        return cls(version, former, number, datetime.now(UTC).strftime(_WHEN), why, **more)

    def tag(self, alias: str) -> tuple[str, str]:
        """Key and value of the version's tag."""
        value = {name: one for name, one in asdict(self).items() if name not in ("number", "when") and one != {}}
        return f"{_prefix(alias)}{self.number:06d}.{self.when}", json.dumps(value, ensure_ascii=False)


def read_events(tags: Mapping[str, Mapping[str, str]], alias: str) -> list[Event]:
    """The events of an alias, oldest first, of the tags of each version; what nobody of ours wrote is passed over."""
    found = []
    for version, own in tags.items():
        for key, value in own.items():
            number, _, when = key.removeprefix(_prefix(alias)).partition(".")
            if not key.startswith(_prefix(alias)) or not number.isdecimal():
                continue
            try:
                told = json.loads(value)
                found.append(
                    Event(
                        version,
                        None if told["former"] is None else str(told["former"]),
                        int(number),
                        when,
                        str(told["why"]),
                        bool(told.get("back")),
                        told.get("numbers") or {},
                    )
                )
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
    return sorted(found, key=lambda event: (event.number, event.when))


def line_of(events: Sequence[Event]) -> list[str]:
    """Who had the alias one after another, the present one last, without those from whom it was rolled back."""
    line: list[str] = []
    for event in events:
        if event.back and event.version in line:
            while line[-1] != event.version:
                line.pop()
            continue
        if event.former is not None and line[-1:] != [event.former]:
            line.append(event.former)  # somebody gave it the alias by hand
        if line[-1:] != [event.version]:
            line.append(event.version)
    return line


def before(events: Sequence[Event], held: str | None, there: Collection[str]) -> str | None:
    """The version to give the alias back to, None where there is none.

    Args:
        held: the version that has it now.
        there: the versions that there are: others may be deleted since.
    """
    line = line_of(events)
    if held in line:
        line = line[: len(line) - 1 - line[::-1].index(held)]
    return next((version for version in reversed(line) if version != held and version in there), None)


def was_rolled_back(events: Sequence[Event], version: str) -> Event | None:
    """The roll-back that took the alias from this version, unless it got it again since."""
    found = None
    for event in events:
        if event.back and event.former == version:
            found = event
        elif event.version == version:
            found = None
    return found


def _prefix(alias: str) -> str:
    return f"tfscale.alias.{alias}."
