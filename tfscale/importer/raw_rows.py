"""Rows to predict as people have them: a table's file, read by what the training's data tell of its columns.

Owns finding those columns in the file. Refuses to know models.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tfscale.data.source import Source
from tfscale.errors import DataCorrupt, DataMissing, nearest
from tfscale.files import digest_of
from tfscale.importer.duck_connection import connect, import_duckdb
from tfscale.importer.recognise import look
from tfscale.importer.table_source import FILE_COLUMN, load, open_tables, quoted
from tfscale.importer.table_types import MISSING, infer, make_typed
from tfscale.importer.tables import row_names

if TYPE_CHECKING:
    import tensorflow as tf

_TOLD = 5


@dataclass
class RawRows(Source):
    """The rows of a file, as the split "test".

    Attributes:
        path: a table that `tfscale data import` reads: a file, a folder or a pattern.
        columns: what columns.json tells of those that are taken.
        gaps: the texts that stand for no value.
        content: a hash of the files; None: not read yet.
    """

    places: ClassVar[tuple[str, ...]] = ("path",)

    path: str = "???"
    columns: dict[str, Any] = field(default_factory=dict)
    gaps: tuple[str, ...] = MISSING
    content: str = ""

    @classmethod
    def of(cls, path: str, told: Mapping[str, Any], used: Sequence[str]) -> RawRows:
        """Reads the file.

        Args:
            told: what columns.json of the training's data holds.
            used: the columns that the model takes.

        Raises:
            DataMissing: there is no such file, or no row in it.
            DataCorrupt: a column is missing, or a row doesn't fit.
        """
        made = cls(path, {name: told["columns"][name] for name in used}, tuple(told.get("missing", MISSING)))
        made.content = made._read[2]
        return made

    @cached_property
    def _read(self) -> tuple[dict[str, np.ndarray], list[str], str, str]:
        """(the columns as records hold them, the name of each row, a hash of the files, what is said of them)."""
        import_duckdb()
        with tempfile.TemporaryDirectory() as folder, connect() as connection:
            try:
                found = look(self.path)
            except DataMissing as error:
                raise DataMissing(error.what, where="input", fix="give input=PATH of what to predict") from None
            files = open_tables(found, Path(folder))
            _, rejects = load(connection, files, names=list(self._named.values()))
            if rejects:
                raise DataCorrupt(
                    f"{len(rejects):,} rows can't be read; the first: line {rejects[0].line}: {rejects[0].reason}",
                    where=rejects[0].file,
                    fix="mend them",
                )
            there = [row[0] for row in connection.execute("DESCRIBE raw").fetchall() if row[0] != FILE_COLUMN]
            self._refuse_missing(there)
            names = ", ".join(f"{quoted(name)} AS {quoted(field)}" for field, name in self._named.items())
            connection.execute(f"CREATE VIEW kept AS SELECT rowid AS __row, {names} FROM raw").fetchall()
            given = {name: {"type": one["type"], "format": one.get("format", "")} for name, one in self.columns.items()}
            columns, _ = infer(connection, given, self.gaps)
            make_typed(connection, columns)
            name = row_names(connection, files)
            self._refuse_bad(connection, name)
            records = ", ".join(f"{one.record} AS {quoted(one.name)}" for one in columns)
            table = connection.sql(f"SELECT {records} FROM typed ORDER BY __row").to_arrow_table()
            arrays = {}
            for one, column in zip(columns, table.columns, strict=True):
                values = column.to_numpy() if one.type in ("number", "boolean") else column.to_pylist()
                is_text = isinstance(values, list)
                arrays[one.name] = np.array([v.encode() for v in values], object) if is_text else values.astype("f4")
            others = [one for one in there if one not in self._named.values()]
            said = f"columns that the model doesn't take: {', '.join(others)}" if others else ""
            return arrays, [name(row) for row in range(table.num_rows)], digest_of(files.digests), said

    @property
    def _named(self) -> dict[str, str]:
        """What tables call the columns, by what records call them."""
        return {field: one.get("column", field) for field, one in self.columns.items()}

    def _refuse_missing(self, there: Sequence[str]) -> None:
        missing = [name for name in self._named.values() if name not in there]
        if missing:
            raise DataCorrupt(
                f"it has no column {', '.join(missing[:_TOLD])}{nearest(missing[0], list(there))}",
                where=self.path,
                fix="give the columns that the model was trained on, with their names; a gap may be empty",
            )

    def _refuse_bad(self, connection: Any, name: Any) -> None:
        bad = "SELECT __row, __bad FROM typed WHERE __bad IS NOT NULL ORDER BY 1"
        found = connection.execute(f"{bad} LIMIT {_TOLD}").fetchall()
        if found:
            count = connection.execute(f"SELECT count(*) FROM ({bad})").fetchall()[0][0]
            told = "; ".join(f"{name(row)}: {why}" for row, why in found)
            raise DataCorrupt(
                f"{count:,} rows can't be predicted: {told}{'; ...' if count > _TOLD else ''}",
                where=self.path,
                fix="mend them; a gap may be empty",
            )

    def check(self) -> None:
        if not self.num_examples("test"):
            raise DataMissing("it holds no row", where=self.path, fix="give a table with rows")

    def remarks(self) -> Sequence[str]:
        return [self._read[3]] if self._read[3] else []

    def num_examples(self, split: str) -> int:
        return len(self._read[1]) if split == "test" else 0

    def example_names(self, split: str) -> list[str]:
        return self._read[1]

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        held = {name: tf.constant(values) for name, values in self._read[0].items()}
        gather = no_autograph(lambda some: {name: tf.gather(values, some) for name, values in held.items()})
        return indices.map(gather).unbatch()

    @property
    def parses_rows(self) -> bool:
        return True
