"""schema.yaml: what the columns of a table are, as people edit it and give it back as data.schema=FILE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tfscale.errors import UsageError, nearest
from tfscale.files import write_whole
from tfscale.importer.table_types import MISSING, TYPES, Column

KINDS = ("class", "number", "multilabel")
_KEYS, _OF_COLUMN, _OF_LABEL = ("columns", "missing", "label"), ("type", "format"), ("name", "kind")
_HEAD = """\
# What the columns are. Edit it and import again: tfscale data import PATH name=NAME data.schema=THIS_FILE fresh=true
# types: number, category, boolean, date, text, id, constant (the last two are kept in the records, and no features)
# missing: the texts that stand for no value, besides empty ones
# format: of numbers "1,234.5" or "1.234,5"; of dates such as "%d/%m/%Y". label.kind: class or number
"""


@dataclass
class Schema:
    """What a schema file says.

    Attributes:
        columns: {"type": ..., "format": ...} of some columns.
        missing: the texts that stand for no value.
        label_kind: "class", "number", or "" where the label's values tell.
    """

    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    label_kind: str = ""
    missing: tuple[str, ...] = MISSING


def read_schema(file: Path) -> Schema:
    """Raises UsageError for what no import writes."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"can't be read: {str(error).splitlines()[0]}", where=str(file), fix="correct it") from None
    columns = content.get("columns", {}) if isinstance(content, dict) and content else None
    if not isinstance(columns, dict):
        raise UsageError("it has no columns", where=str(file), fix="columns: {age: {type: number}}")
    _refuse_unknown(content, _KEYS, "", file)
    schema = Schema()
    for name, said in columns.items():
        said = {"type": said} if isinstance(said, str) else said
        kind = said.get("type") if isinstance(said, dict) else None
        _refuse_unknown(said, _OF_COLUMN, f"column {name}: ", file)
        if kind not in TYPES:
            near = nearest(str(kind), TYPES)
            raise UsageError(f"column {name}: there is no type {kind!r}{near}", where=str(file), fix=", ".join(TYPES))
        schema.columns[str(name)] = {"type": kind, **({"format": said["format"]} if said.get("format") else {})}
    if "missing" in content:
        schema.missing = tuple(str(one) for one in content["missing"] or ())
    label = content.get("label")
    _refuse_unknown(label, _OF_LABEL, "label: ", file)
    schema.label_kind = label.get("kind", "") if isinstance(label, dict) else ""
    if schema.label_kind not in ("", *KINDS):
        raise UsageError(
            f"a label is no {schema.label_kind!r}", where=str(file), fix=f"label.kind: {' or '.join(KINDS)}"
        )
    return schema


def _refuse_unknown(said: Any, known: tuple[str, ...], of: str, file: Path) -> None:
    unknown = [str(key) for key in said if key not in known] if isinstance(said, dict) else []
    if unknown:
        raise UsageError(
            f"{of}{', '.join(unknown)} would do nothing{nearest(unknown[0], known)}",
            where=str(file),
            fix=f"what may stand here is {', '.join(known)}",
        )


def write_schema(file: Path, columns: Sequence[Column], label: str | None, kind: str) -> None:
    said = {one.name: {"type": one.type, **({"format": one.format} if one.format else {})} for one in columns}
    lines = [_HEAD]
    if label is not None:
        lines.append(yaml.safe_dump({"label": {"name": label, "kind": kind}}, sort_keys=False, allow_unicode=True))
    gaps = [one for one in (columns[0].gaps if columns else MISSING) if one]
    lines.append(yaml.safe_dump({"missing": gaps}, default_flow_style=None, width=1000))
    lines.append("columns:\n")
    for name, one in said.items():
        entry = yaml.safe_dump({name: one}, default_flow_style=None, sort_keys=False, allow_unicode=True, width=1000)
        lines.append("".join(f"  {line}\n" for line in entry.splitlines()))
    write_whole(file, "".join(lines).encode())
