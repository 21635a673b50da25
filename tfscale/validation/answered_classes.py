"""What a served model answered, beside the labels that it was trained on.

Owns which answers are classes of a label. Refuses to know the log, and how far two distributions may lie apart.

    found, why = beside_labels(log.answers, base.about["label"], Limits())
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tfscale.statistics.findings import Finding, Limits, prediction_drift

REDACTED = "<redacted>"
_CLASS = "class"  # what our exports call the number of a class
_NO_CLASSES = {
    "number": "the label is a number, and what is predicted of numbers varies less than they do",
    "multilabel": "an example has several labels at once",
}


def beside_labels(
    answers: Sequence[Mapping[str, Any]], label: Mapping[str, Any] | None, limits: Limits, names: Sequence[str] = ()
) -> tuple[list[Finding], str]:
    """(what of them is otherwise than the labels are, why they aren't compared or "").

    Args:
        answers: of each example, by the outputs' names.
        label: of the base, as `findings` takes it.
        names: of the model's classes in its order; none: the label's.
    """
    if not label:
        return [], "the base has no label"
    if label["kind"] != _CLASS:
        return [], _NO_CLASSES.get(label["kind"], f"the label is a {label['kind']}")
    counts, why = _counted(answers, [str(one) for one in label["classes"]], [str(one) for one in names])
    return ([], why) if why else (list(prediction_drift(label, counts, limits)), "")


def _counted(
    answers: Sequence[Mapping[str, Any]], classes: Sequence[str], names: Sequence[str]
) -> tuple[Counter[str], str]:
    outputs = {name for row in answers for name in row}
    chosen = _CLASS if _CLASS in outputs else next(iter(outputs)) if len(outputs) == 1 else None
    values = [row[chosen] for row in answers if chosen is not None and row.get(chosen) is not None]
    if not values:
        return Counter(), "the log holds no class that was answered"
    if REDACTED in values:
        return Counter(), f"{chosen} is hidden"
    if not all(isinstance(one, str | int) for one in values):
        return Counter(), f"{chosen} is no class"
    if chosen == _CLASS and not any(isinstance(one, str | bool) for one in values):  # numbers, in the model's order
        order = names or classes
        if (largest := max(values)) >= len(order) or min(values) < 0:
            return Counter(), f"it answers the class {largest}, and there are {len(order)}"
        values = [order[one] for one in values]
    counts = Counter(map(str, values))
    if not counts.keys() & set(classes):
        return Counter(), f"{next(iter(counts))!r} is none of the label's classes"
    return counts, ""
