"""What a result says of the data that the model saw, in words.

Owns the words. Refuses to count: data/seen.py does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHOWN = 6  # classes in one line
_TRACKED = 100  # classes up to which each has a figure of its own


def in_words(data: Mapping[str, Any]) -> dict[str, str]:
    """What people see at the end of `Result.data`, as name and text."""
    found: dict[str, str] = {}
    seen = data.get("seen", {})
    if seen.get("examples"):
        found["data seen"] = "; ".join([_examples(seen), *([_size(seen["bytes"])] if "bytes" in seen else [])])
    if seen.get("parts"):
        found["mixed of"] = _parts(seen["parts"], data["splits"]["train"].get("parts", {}))
    if seen.get("labels"):
        found["labels seen"] = _labels(seen["labels"])
    bad = {name: split["bad_records"] for name, split in data.get("splits", {}).items() if split["bad_records"]}
    if bad:
        found["left out"] = ", ".join(f"{count:,} bad records of the {name} split" for name, count in bad.items())
    return found


def figures(data: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of what was seen, by names such as "seen/label/cat"; labels where they are few."""
    seen = data.get("seen", {})
    labels = seen.get("labels", {}) if not untracked(data) else {}
    found = {f"seen/{name}": float(value) for name, value in seen.items() if not isinstance(value, Mapping)}
    found.update({f"seen/part/{name}": float(count) for name, count in seen.get("parts", {}).items()})
    return {**found, **{f"seen/label/{name}": float(count) for name, count in labels.items()}}


def untracked(data: Mapping[str, Any]) -> str:
    """What `figures` leaves out, a sentence for people; "" where that is nothing."""
    classes = len(data.get("seen", {}).get("labels", {}))
    if classes <= _TRACKED:
        return ""
    return f"the tracker has no seen/label/... of {classes:,} classes, more than {_TRACKED}: result.json has them all"


def _examples(seen: Mapping[str, Any]) -> str:
    text = f"{seen['examples']:,} examples"
    if "different" not in seen:
        return text
    least, most = seen["least_often"], seen["most_often"]
    often = "none twice" if most == 1 else f"each {least} times" if most == least else f"each {least} to {most} times"
    return f"{text} of {seen['different']:,}, {often}"


def _parts(seen: Mapping[str, int], there: Mapping[str, int]) -> str:
    total = max(1, sum(seen.values()))
    epochs = {name: f", {count / there[name]:.2f} epochs" if there.get(name) else "" for name, count in seen.items()}
    return "; ".join(f"{name} {count:,} ({count / total:.1%}{epochs[name]})" for name, count in seen.items())


def _size(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"


def _labels(labels: Mapping[str, int]) -> str:
    by_count = sorted(labels.items(), key=lambda one: -one[1])
    if len(by_count) <= 2 * _SHOWN:
        return ", ".join(f"{name} {count:,}" for name, count in labels.items())
    first, last = by_count[:_SHOWN], by_count[-_SHOWN:]
    told = [", ".join(f"{name} {count:,}" for name, count in some) for some in (first, last)]
    return f"{told[0]} ... {told[1]}; {len(labels):,} classes"
