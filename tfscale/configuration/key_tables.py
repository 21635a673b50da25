"""Answers as people read them in a terminal of any width."""

from __future__ import annotations

import textwrap

from tfscale.configuration.documented_key import Key
from tfscale.configuration.key_answers import PAGE, Answer
from tfscale.console import columns, table

_NARROW = 100  # columns below which a key's type and default stand below one another


def text_of(answer: Answer) -> str:
    """A line on what it is, and a table."""
    if answer.is_one:
        return _one(answer.keys[0])
    parts = [_folded(answer.about)]
    if answer.names:
        parts.append(table(answer.names.items(), framed=False))
    if answer.keys:
        parts.append(_several(answer.keys))
    return "\n".join(parts)


def _several(keys: list[Key]) -> str:
    shared = {key.name.rpartition(".")[0] for key in keys}
    names = [key.leaf if len(shared) == 1 else key.name for key in keys]
    if columns() < _NARROW:
        rows = [(name, f"{key.type}\n{key.default}", key.meaning) for name, key in zip(names, keys, strict=True)]
        return table(rows, ("key", "type\ndefault", "meaning"))
    rows4 = [(name, key.type, key.default, key.meaning) for name, key in zip(names, keys, strict=True)]
    return table(rows4, ("key", "type", "default", "meaning"), whole=(0,))


def _one(key: Key) -> str:
    rows = {
        "key": key.name,
        "meaning": key.meaning,
        "type": key.type,
        "default": key.default,
        "null is": key.null_is,
        "allowed": key.allowed,
        "override": key.override,
        "class": key.place,
        "documented": f"{PAGE}#{key.name.partition('.')[0]}",
    }
    return table([(name, text) for name, text in rows.items() if text], framed=False, whole=(0,))


def _folded(text: str) -> str:
    return textwrap.fill(text, columns(), break_on_hyphens=False)
