"""Several labels at once: columns of yes and no, or lists of those that hold.

Owns the SQL of a row's labels as a list of 0 and 1, one place for each label. Refuses to know what else a label may be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tfscale.errors import DataCorrupt, UsageError
from tfscale.importer.table_source import text
from tfscale.importer.table_types import NOTS, ONES

MOST = 1_000  # labels at once
_SEPARATORS = (";", "|", ",")


def parts_of(label: str) -> list[str]:
    """["a", "b > 3"] of "[a, b > 3]"; [] of what is no list."""
    if not (label.startswith("[") and label.endswith("]")):
        return []
    try:
        names = yaml.load(label, yaml.BaseLoader)  # all texts: yes and 01 are names, too
    except yaml.YAMLError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        raise UsageError(f"{label} is no list of columns", where="data.label", fix="data.label=[rain, wind]")
    if split := next((one for one in names if one.count("(") != one.count(")")), ""):
        raise UsageError(
            f"{split!r} is cut at a comma inside brackets",
            where="data.label",
            fix="put quotes around it: data.label='[rain, \"coalesce(wind, 0) > 1\"]'",
        )
    if len(set(names)) < len(names):
        raise UsageError(f"{label} names a column twice", where="data.label", fix="name each once")
    return names


def of_columns(connection: Any, values: Mapping[str, str]) -> str:
    """SQL over `typed` of the labels of a row, NULL where one of them is missing.

    Args:
        values: the SQL of each label by its name.

    Raises:
        UsageError: a value is neither yes nor no.
    """
    ones, nots = (", ".join(map(text, words)) for words in (ONES, NOTS))
    cells = []
    for name, sql in values.items():
        word = f"regexp_replace(lower(CAST({sql} AS VARCHAR)), '\\.0+$', '')"
        cell = f"CASE WHEN {word} IN ({ones}) THEN 1 WHEN {word} IN ({nots}) THEN 0 END"
        query = f"SELECT min(CAST({sql} AS VARCHAR)) FROM typed WHERE {word} <> '' AND ({cell}) IS NULL"
        other = connection.execute(query).fetchall()[0][0]
        if other is not None:
            raise UsageError(
                f"the label {name} has the value {other!r}, and of several labels each is yes or no",
                where="data.label",
                fix=f"say when it holds, such as data.label=[{name} = {text(other)}, ...]",
            )
        cells.append(cell)
    every = " AND ".join(f"({cell}) IS NOT NULL" for cell in cells)
    return f"CASE WHEN {every} THEN [{', '.join(cells)}] END"


def of_lists(connection: Any, sql: str, shown: str) -> tuple[str, list[str], str]:
    """(SQL of the labels of a row, the names of all labels, what people should know) of lists of those that hold; or of
    lists that say of each label whether it holds: of one length, and of nothing but 0 and 1, or false and true.

    Raises:
        DataCorrupt: there are too many, or lists of 0 and 1 have several lengths.
    """
    word = r"regexp_replace(lower(trim(CAST(x AS VARCHAR))), '\.0+$', '')"
    words = f"list_transform({sql}, lambda x: coalesce({word}, ''))"
    held = f"list_filter(list_transform({sql}, lambda x: trim(CAST(x AS VARCHAR))), lambda x: x <> '')"
    query = f"""SELECT bool_and(list_has_all(['0', '1', 'false', 'true'], words)), min(len(words)), max(len(words)),
        bool_or(len(words) > len(list_distinct(words)))
        FROM (SELECT {words} AS words FROM typed WHERE ({sql}) IS NOT NULL)"""
    marks, least, most, comes_twice = connection.execute(query).fetchall()[0]
    if marks and least == most and most > 1:
        told = f"; each of its lists says of {most} labels whether they hold"
        return f"list_transform({words}, lambda x: (x IN ('1', 'true'))::INT)", list(map(str, range(most))), told
    if marks and comes_twice:
        raise DataCorrupt(
            f"{shown} holds lists of 0 and 1 of {least} to {most} values, and which labels they mean can't be said",
            where="data.label",
            fix="give lists of one length, or of the labels that hold",
        )
    query = f"SELECT DISTINCT one FROM (SELECT unnest({held}) AS one FROM typed) ORDER BY TRY_CAST(one AS DOUBLE), one"
    names = [one for (one,) in connection.execute(query).fetchall()]
    if len(names) > MOST:
        raise DataCorrupt(
            f"{shown} holds {len(names):,} different labels, and {MOST:,} at once can be learnt",
            where="data.label",
            fix="choose another, or only some: data.label=\"list_filter(tags, lambda x: x IN ('a', 'b'))\"",
        )
    every = f"[{', '.join(map(text, names))}]"
    # a lambda around the row's own list, which would be made anew for every label inside the other
    cells = f"list_transform([{held}], lambda h: list_transform({every}, lambda c: list_contains(h, c)::INT))[1]"
    return f"CASE WHEN ({sql}) IS NOT NULL THEN {cells} END", names, ""


def several_in(classes: Sequence[str], name: str) -> str:
    """What people should know of classes that look like several labels in one text; ""."""
    for sign in _SEPARATORS:
        parts = {part.strip() for value in classes for part in value.split(sign)}
        joined = [value for value in classes if sign in value.strip(sign)]
        if len(joined) * 5 >= len(classes) > len(parts):
            return f"; {joined[0]!r} looks like several at once: data.label=\"split({name}, '{sign}')\" learns each"
    return ""
