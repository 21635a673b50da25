"""What the sources of a mixture have in common, and what of it makes them no mixture.

Owns the comparison, the classes of all of them by their names, and what a task is told of them together. Refuses to
know how sources are read.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfscale.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

Names = Mapping[str, Sequence[str] | None]  # of the classes of each source

_OF_ONE_FORM = (
    "num_classes",
    "object_classes",
    "channels",
    "length",
    "vocabulary",
    "fields",
    "tokenizer",
)  # of `Source.spec`
_UNUSED = {"constant": "category", "id": "category"}  # types that no model takes, stored as the other one
_TOLD = 3  # differences in one message
_TOGETHER = "import both together, with a column that tells them apart, or train on one of them"


def mixed_classes(names: Names) -> tuple[str, ...] | None:
    """The classes of all sources: those of the first, then what the others have besides; None: they have no names.

    Raises:
        UsageError: only some have names.
    """
    if not names:
        return None
    (first, of_first), *others = names.items()
    for name, classes in others:
        if (classes is None) != (of_first is None):
            raise unlike(first, name, f"the classes are {_short(of_first)} and {_short(classes)}", fix=_TOGETHER)
    return None if of_first is None else tuple(dict.fromkeys(itertools.chain(*(own or () for own in names.values()))))


def class_places(own: Sequence[str] | None, mixed: Sequence[str] | None) -> np.ndarray | None:
    """Where each of a source's classes is among all of them: int64 [classes]; None: where it is in the source."""
    import numpy as np

    if own is None or mixed is None or list(own) == list(mixed)[: len(own)]:
        return None
    place = {name: number for number, name in enumerate(mixed)}
    return np.array([place[name] for name in own], np.int64)


def mixed_spec(specs: Mapping[str, Mapping[str, Any]], names: Names, shares: Sequence[int]) -> dict[str, Any]:
    """That of the first source, which the others must have alike, but for the classes and what is known of columns.

    Args:
        names: where all have classes with names, else nothing.
        shares: of the training, in the order of the sources.

    Raises:
        UsageError: they differ.
    """
    (first, told), *others = specs.items()
    found = dict(told)
    classes = mixed_classes(names)
    for name, spec in others:
        for key in _OF_ONE_FORM:
            if spec.get(key) != told.get(key) and not (key == "num_classes" and classes):
                raise unlike(first, name, f"{key} is {_short(told.get(key))} and {_short(spec.get(key))}")
        _refuse_columns(first, name, told.get("columns") or {}, spec.get("columns") or {})
    if classes:
        found["num_classes"] = len(classes)
    if any(spec.get("image_size") != found.get("image_size") for spec in specs.values()):
        found.pop("image_size", None)
    labels = [(spec.get("columns") or {}).get("label") or {} for spec in specs.values()]
    if classes and all(label.get("kind") == "class" for label in labels):
        found["columns"] = {**found["columns"], "label": _mixed_label(labels, classes, shares)}
    return found


def _mixed_label(labels: Sequence[Mapping[str, Any]], classes: Sequence[str], shares: Sequence[int]) -> dict[str, Any]:
    """What is known of the label, with all classes and how often each comes where the sources have their shares."""
    found = {**labels[0], "classes": list(classes)}
    counts = [dict(zip(label["classes"], label.get("counts") or (), strict=False)) for label in labels]
    totals = [sum(one.values()) for one in counts]
    if not all(totals):
        return {key: value for key, value in found.items() if key != "counts"}
    each = [share * sum(totals) / sum(shares) / total for share, total in zip(shares, totals, strict=True)]
    mixed = {name: sum(w * one.get(name, 0) for w, one in zip(each, counts, strict=True)) for name in classes}
    return {**found, "counts": [max(1, round(count)) if count else 0 for count in mixed.values()]}


def _refuse_columns(first: str, other: str, one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    """Raises UsageError where two tables differ in their columns, their types or the kind of label."""
    types = [{name: _type_of(about) for name, about in (told.get("columns") or {}).items()} for told in (one, two)]
    differing = [name for name in {**types[0], **types[1]} if types[0].get(name) != types[1].get(name)]
    if differing:
        given = [told.get("columns") or {} for told in (one, two)]
        more = f" and {len(differing) - _TOLD} more" if len(differing) > _TOLD else ""
        told = []
        for name in differing[:_TOLD]:
            both = " and ".join(found[name]["type"] if name in found else "absent" for found in given)
            told.append(f"the column {name} is {both}")
        raise unlike(first, other, "; ".join(told) + more)
    labels = [told.get("label") or {} for told in (one, two)]
    kinds = [label.get("kind", "absent") for label in labels]
    if kinds[0] != kinds[1]:
        raise unlike(first, other, f"the label is {kinds[0]} and {kinds[1]}")
    if kinds[0] == "multilabel" and labels[0].get("classes") != labels[1].get("classes"):
        both = " and ".join(_short(label.get("classes")) for label in labels)
        raise unlike(first, other, f"the labels that a row may have are {both}", fix=_TOGETHER)


def _type_of(about: Mapping[str, Any]) -> str:
    found = str(about["type"])
    return _UNUSED.get(found, found)


def refuse_unlike_fields(forms: Mapping[str, Mapping[str, Any]], *, sizes: bool) -> None:
    """Raises UsageError where the sources' examples can't stand beside each other.

    Args:
        forms: the fields of each source's examples, as tf.data tells them.
        sizes: also where the sizes of a field differ, so that no batch can hold both as they are.
    """
    (first, one), *others = forms.items()
    for name, two in others:
        differing = [key for key in sorted({*one, *two}) if not _is_alike(one.get(key), two.get(key), sizes=sizes)]
        if differing:
            told = [f"{key} is {_form(one.get(key))} and {_form(two.get(key))}" for key in differing[:_TOLD]]
            more = {"fix": "bring them to one size in the task's preprocess, or train on one of them"} if sizes else {}
            raise unlike(first, name, "; ".join(told), **more)


def _is_alike(one: Any, two: Any, *, sizes: bool) -> bool:
    if one is None or two is None:
        return False
    same = one.dtype == two.dtype and one.shape.rank == two.shape.rank
    return same and (not sizes or one.shape.is_compatible_with(two.shape))


def _form(spec: Any) -> str:
    return "absent" if spec is None else f"{spec.dtype.name} of the shape {spec.shape}"


def unlike(
    first: str,
    other: str,
    why: str,
    *,
    fix: str = "import them with the same keys and a common schema, or train on one of them",
) -> UsageError:
    return UsageError(f"{first} and {other} can't be mixed: {why}", where="data.weights", fix=fix)


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
