"""What the columns of a table are: number, category, boolean, date, text, id or constant.

Owns the rules by which a column's values tell its type, all of them looked at, and the SQL that reads a value by it.
Refuses to know where the table comes from and what is done with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfscale.importer.table_source import FILE_COLUMN, quoted, text

TYPES = ("number", "category", "boolean", "date", "text", "id", "constant")
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "?", "-", "--")
COMMA, POINT = "1,234.5", "1.234,5"  # how numbers are written: thousands and decimals

MOST = "3.4028234e38"  # that a float32 holds
ONES, NOTS = ("true", "yes", "t", "y", "1"), ("false", "no", "f", "n", "0")
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_PADDED = r"[+-]?0\d+(\.\d*)?"  # 007 is a name, and no number
_SIGNS = r"[$€£¥₹%]|USD|EUR|GBP|CHF|JPY"
_GAP = r" \x{A0}\x{202F}\x{2009}''’"  # between thousands, of which the first group begins with no 0: 0,125 is an eighth
_BY_COMMA = rf"[+-]?([1-9]\d{{0,2}}([,{_GAP}]\d{{3}})+|\d+)(\.\d*)?"
_BY_POINT = rf"[+-]?([1-9]\d{{0,2}}([.{_GAP}]\d{{3}})+|\d+)(,\d*)?"
_DAYS = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%b %d, %Y",
         "%d %B %Y", "%B %d, %Y", "%d.%m.%y", "%m/%d/%y", "%d/%m/%y")  # fmt: skip
_FORMATS = tuple(day + hour for day in _DAYS for hour in ("", " %H:%M", " %H:%M:%S"))
_IDENTIFIER = re.compile(r"(?i)(^|[_ .-])(id|uuid|guid|key|index|rowid)$|^(unnamed: ?\d+|nr|no|)$")
_CAMEL_ID = re.compile(r"[a-z](Id|ID)$")
_LONGEST_ID, _FEWEST = 64, 20


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        source: its type in DuckDB, as it was read.
        format: how numbers or dates are written, where that isn't plain.
        missing: how many rows have no value.
        distinct: how many values there are.
        told: what people should know of it.
        forced: whether the schema file says the type, so that values may not fit it.
        gaps: the texts that stand for no value.
    """

    name: str
    type: str
    source: str = "VARCHAR"
    format: str = ""
    missing: int = 0
    distinct: int = 0
    example: str = ""
    told: str = ""
    forced: bool = False
    gaps: tuple[str, ...] = MISSING

    @property
    def raw(self) -> str:
        """The value as text or as it was read, NULL where it is missing."""
        if self.source == "VARCHAR":
            return (
                f"CASE WHEN trim({quoted(self.name)}) NOT IN ({_texts(self.gaps)}) THEN trim({quoted(self.name)}) END"
            )
        if self.source in ("DOUBLE", "FLOAT"):
            return f"CASE WHEN NOT isnan({quoted(self.name)}) THEN {quoted(self.name)} END"
        return quoted(self.name)

    @property
    def value(self) -> str:
        """SQL of the value by its type: DOUBLE, BOOLEAN, TIMESTAMP or VARCHAR."""
        raw = self.raw
        if self.type == "number":
            return _number(raw, self.format) if self.source == "VARCHAR" else f"TRY_CAST({raw} AS DOUBLE)"
        if self.type == "boolean":
            ones, nots = _texts(ONES), _texts(NOTS)
            low = f"regexp_replace(lower(CAST({raw} AS VARCHAR)), '\\.0+$', '')"
            return f"CASE WHEN {low} IN ({ones}) THEN true WHEN {low} IN ({nots}) THEN false END"
        if self.type == "date":
            if self.format and self.source == "VARCHAR":
                return _day(raw, self.format)
            return f"TRY_CAST({raw} AS TIMESTAMP)"
        return f"CAST({raw} AS VARCHAR)"

    @property
    def record(self) -> str:
        """SQL of what a record holds, made of `value`'s: REAL, NULL where it is missing, or VARCHAR, never NULL."""
        name = quoted(self.name)
        if self.type in ("number", "boolean"):
            return f"TRY_CAST({name} AS REAL)"  # NULL in a row that is bad, since it is beyond it
        if self.type == "date":
            day, time = f"strftime({name}, '%Y-%m-%d')", f"strftime({name}, '%Y-%m-%dT%H:%M:%S')"
            return f"coalesce(CASE WHEN {name} = date_trunc('day', {name}) THEN {day} ELSE {time} END, '')"
        return f"coalesce({name}, '')"

    @property
    def fault(self) -> str:
        """SQL of why a row is bad for this column's sake, NULL where it isn't; "" where no row can be."""
        name = quoted(self.name)
        said = []
        if self.forced and self.type in ("number", "boolean", "date"):
            shown = f"CAST({self.raw} AS VARCHAR)"
            told = text(f"column {self.name}: ")
            article = {"number": "no number", "boolean": "neither true nor false", "date": "no date"}[self.type]
            said.append(f"WHEN ({self.raw}) IS NOT NULL AND ({self.value}) IS NULL"
                        f" THEN {told} || '\"' || {shown} || '\" is {article}'")  # fmt: skip
        if self.type == "number":
            beyond = f"isinf(CAST(({self.value}) AS DOUBLE)) OR abs({self.value}) > {MOST}"
            said.append(f"WHEN {beyond} THEN {text(f'column {self.name}: is beyond what float32 holds')}")
        return f"CASE {' '.join(said)} END" if said and name else ""


def infer(
    connection: Any, given: Mapping[str, Mapping[str, str]], gaps: Sequence[str] = MISSING
) -> tuple[list[Column], dict[str, str]]:
    """(the columns of the rows `kept`, why others are none).

    Args:
        given: of some columns {"type": ..., "format": ...}, which is taken as it is.
        gaps: the texts that stand for no value.
    """
    columns, left_out = [], {}
    for name, source, *_ in connection.execute("DESCRIBE kept").fetchall():
        if name in (FILE_COLUMN, "__row"):
            continue
        plain = re.sub(r"\(.*\)", "", source)
        if plain.endswith("]") or plain in ("STRUCT", "MAP", "BLOB", "UNION", "LIST", "BIT", "VARIANT", "JSON"):
            left_out[name] = f"it is {source}, and a table has one value a cell"
            continue
        if plain not in ("VARCHAR", *_NUMBERS, *_DATES, "BOOLEAN"):
            plain = "OTHER"
        said = given.get(name, {})
        column = _inferred(connection, Column(name, "category", plain, gaps=("", *gaps)))
        if said:
            column = replace(column, type=said.get("type", column.type), format=said.get("format", column.format),
                             forced=True, told="as the schema says")  # fmt: skip
        columns.append(column)
    return columns, left_out


def make_typed(connection: Any, columns: Sequence[Column], more: Sequence[str] = ()) -> None:
    """Makes the view `typed` of the rows `kept`: each value by its column's type, and why a row is bad as __bad.

    Args:
        more: columns that stay as they are.
    """
    faults = [one.fault for one in columns if one.fault]
    bad = f"coalesce({', '.join(faults)}, NULL)" if faults else "NULL::VARCHAR"
    values = [f"{one.value} AS {quoted(one.name)}" for one in columns]
    kept = ", ".join([f"__row, {bad} AS __bad", *values, *map(quoted, more)])
    connection.execute(f"CREATE OR REPLACE VIEW typed AS SELECT {kept} FROM kept").fetchall()


_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
            "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL")  # fmt: skip
_DATES = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS")


def _inferred(connection: Any, column: Column) -> Column:
    """The column with its type, by all of its values, each different one looked at once."""
    values = f"SELECT v, n FROM (SELECT {column.raw} AS v, count(*) AS n FROM kept GROUP BY 1)"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE vals AS {values}").fetchall()
    missing, distinct, example, count = connection.execute(
        "SELECT coalesce(sum(n) FILTER (v IS NULL), 0), count(v), CAST(arg_max(v, n) AS VARCHAR), sum(n) FROM vals"
    ).fetchall()[0]
    column = replace(column, missing=int(missing), distinct=distinct, example=example or "")
    filled = int(count or 0) - column.missing
    if written := written_gaps(connection, column):
        told = f"missing is written {', '.join(written)}"
        return replace(found := _typed(connection, column, filled), told=f"{found.told}; {told}".lstrip("; "))
    return _typed(connection, column, filled)


def written_gaps(connection: Any, column: Column) -> list[str]:
    """Which texts, besides empty ones, were taken for no value."""
    if not column.missing or column.source != "VARCHAR":
        return []
    value = f"trim({quoted(column.name)})"
    query = f"SELECT DISTINCT {value} FROM kept WHERE {value} IN ({_texts(column.gaps)}) AND {value} <> '' ORDER BY 1"
    return [text for (text,) in connection.execute(query).fetchall()]


def _typed(connection: Any, column: Column, filled: int) -> Column:
    """The column with its type, from the table `vals` of its values."""
    distinct, missing = column.distinct, column.missing
    if distinct == 0 or (distinct == 1 and not missing):
        return replace(column, type="constant")
    if column.source == "BOOLEAN":
        return replace(column, type="boolean")
    if column.source in _DATES:
        return replace(column, type="date")
    if column.source in _NUMBERS:
        return _number_or_id(connection, column, filled)
    found = _of_texts(connection, column, filled) if column.source == "VARCHAR" else column
    return found if found.type != "category" else _of_words(connection, found, filled)


def _of_texts(connection: Any, column: Column, filled: int) -> Column:
    """Number, boolean or date, where all texts are; else a category."""
    bare = _bare("v")
    plain, comma, point, padded, flags, iso = connection.execute(
        f"""SELECT count_if(regexp_full_match(v, '{_NUMBER}')), count_if(regexp_full_match({bare}, '{_BY_COMMA}')),
            count_if(regexp_full_match({bare}, '{_BY_POINT}')), count_if(regexp_full_match(v, '{_PADDED}')),
            count_if(lower(v) IN ({_texts((*ONES, *NOTS))})),
            count_if(regexp_matches(v, '^\\d{{4}}-\\d{{1,2}}-\\d{{1,2}}') AND TRY_CAST(v AS TIMESTAMP) IS NOT NULL)
            FROM vals WHERE v IS NOT NULL"""
    ).fetchall()[0]
    every = column.distinct
    if flags == every and every <= 4 and _is_pair(connection):
        return replace(column, type="boolean")
    if padded == 0 and plain == every:
        return _number_or_id(connection, column, filled)
    if padded == 0 and every in (comma, point):
        format = COMMA if comma == every else POINT
        odd = f"SELECT arg_max(v, n) FROM vals WHERE NOT regexp_full_match(v, '{_NUMBER}')"
        example = connection.execute(odd).fetchall()[0][0]
        told = f'numbers written "{example}": read as {_read_as(connection, example, format)}'
        return replace(column, type="number", format=format, told=told)
    if iso == every:
        return replace(column, type="date")
    found = _as_date(connection, column)
    return replace(found, told=_nearly(connection, every)) if found.type == "category" and padded == 0 else found


def _nearly(connection: Any, every: int) -> str:
    """What people should know of a column that would be numbers but for a few texts."""
    query = f"""SELECT count(*), coalesce(sum(n), 0), min(v) FROM vals
                WHERE v IS NOT NULL AND NOT regexp_full_match({_bare("v")}, '{_BY_COMMA}([eE][+-]?\\d+)?')"""
    others, rows, example = connection.execute(query).fetchall()[0]
    if every < 10 or others > every / 10:
        return ""
    return f'numbers but for {rows:,} rows such as "{example}": the schema can say number, and makes them bad'


def _number_or_id(connection: Any, column: Column, filled: int) -> Column:
    value = "v" if column.source != "VARCHAR" else "TRY_CAST(v AS DOUBLE)"
    whole, low, high = connection.execute(
        f"SELECT count_if({value} = floor({value})), CAST(min({value}) AS DOUBLE), CAST(max({value}) AS DOUBLE)"
        " FROM vals WHERE v IS NOT NULL"
    ).fetchall()[0]
    if whole == column.distinct == filled and names_id(column.name):
        return replace(column, type="id")
    if column.distinct == 2 and (low, high) == (0, 1):
        return replace(column, type="boolean")
    told = ""
    if whole == column.distinct and max(abs(low), abs(high)) > 2**24:
        told = "loses digits: float32 holds whole numbers up to 16,777,216"
    return replace(column, type="number", told=told)


def _as_date(connection: Any, column: Column) -> Column:
    """A date where one way of writing fits all texts."""
    sample = connection.execute("SELECT v FROM vals WHERE v IS NOT NULL ORDER BY v LIMIT 50").fetchall()
    if not all(re.search(r"\d", v) and len(v) <= 30 for (v,) in sample):
        return column
    for format in _FORMATS:
        fits = f"SELECT count_if({_day('v', format)} IS NOT NULL) FROM"
        if (
            connection.execute(f"{fits} (SELECT v FROM vals WHERE v IS NOT NULL ORDER BY v LIMIT 50)").fetchall()[0][0]
            == len(sample)
            and connection.execute(f"{fits} vals WHERE v IS NOT NULL").fetchall()[0][0] == column.distinct
        ):
            return replace(column, type="date", format=format, told=f"dates written {format}")
    return column


def _day(value: str, format: str) -> str:
    """SQL of a date's text by its format; DuckDB's %Y would take 99 for the year 99."""
    read = f"try_strptime({value}, {text(format)})"
    return f"CASE WHEN regexp_matches({value}, '\\d{{4}}') THEN {read} END" if "%Y" in format else read


def _of_words(connection: Any, column: Column, filled: int) -> Column:
    """Category, text or id, by how often values come again and how many words they have."""
    words, longest = connection.execute(
        "SELECT avg(len(string_split_regex(CAST(v AS VARCHAR), '\\s+'))), max(len(CAST(v AS VARCHAR)))"
        " FROM vals WHERE v IS NOT NULL"
    ).fetchall()[0]
    unique = column.distinct == filled
    if unique and words < 1.5 and longest <= _LONGEST_ID and (filled >= _FEWEST or names_id(column.name)):
        return replace(column, type="id")
    if words >= 2 and filled >= _FEWEST and column.distinct > filled / 2:
        return replace(column, type="text")
    return column if words < 8 else replace(column, type="text")


def names_id(name: str) -> bool:
    """Whether a column of this name numbers its rows."""
    return bool(_IDENTIFIER.search(name) or _CAMEL_ID.search(name))


def _is_pair(connection: Any) -> bool:
    """Whether the texts are a word for yes and its own for no."""
    found = {v for (v,) in connection.execute("SELECT DISTINCT lower(v) FROM vals WHERE v IS NOT NULL").fetchall()}
    return any(found == {one, other} for one, other in zip(ONES, NOTS, strict=True))


def _read_as(connection: Any, example: str, format: str) -> str:
    value = connection.execute(f"SELECT {_number(text(example), format)}").fetchall()[0][0]
    return f"{value:g}"


def _bare(value: str) -> str:
    """SQL of a number's text without signs of currencies and percent; "(5)" is -5."""
    bare = f"trim(regexp_replace({value}, '{_SIGNS}', '', 'g'))"
    return f"regexp_replace({bare}, '^\\((.*)\\)$', '-\\1')"


def _number(value: str, format: str) -> str:
    if not format:
        return f"TRY_CAST({value} AS DOUBLE)"
    thousands, decimal = (",", ".") if format == COMMA else (".", ",")
    digits = f"regexp_replace({_bare(value)}, '[{_GAP}{thousands}]', '', 'g')"
    return f"TRY_CAST(replace({digits}, '{decimal}', '.') AS DOUBLE)"


def _texts(values: Sequence[str]) -> str:
    return ", ".join(map(text, values))
