"""Tables: data=csv data.path=mine.csv data.label=species.

Owns reading of CSV files by PyArrow, what a column holds, and the line of every fault. Refuses to know TensorFlow and
in which form a file lies (`csv_form`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from tfscale.config.override_syntax import as_override
from tfscale.data.arrays import ArrayFiles, ArraySource, check_finite
from tfscale.data.csv_form import DELIMITERS, Form, not_decodable
from tfscale.data.source import Source
from tfscale.errors import DataCorrupt, DataMissing, UsageError, first_line, nearest

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 16 * 2**20  # bytes; the longest row that can be read
_SAMPLE = 1000  # cells that tell whether a column holds text
_DECIMAL_COMMA = r"^([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)$"
_NUMBER_BY_COMMA = r"^[+-]?\d*,?\d+(?:[eE][+-]?\d+)?$"


@dataclass
class Csv(ArrayFiles):
    """Numeric columns as "x": float32 [columns], and one column as the "label".

    A label of text is the place among the sorted texts of the train split. Whether a number is a class or a quantity
    the task says (`settle`): whole ones are int64, others float32. Columns without a name, as Pandas writes its index,
    are left out. Without `test_path`, `test_share` of the rows are the test split, chosen by a hash of the row's
    number.
    """

    test_share: float = 0.0  # share of the rows that is held out without a test_path; from 0, less than 1
    label: str = "???"  # a column: integers, texts (classes), or other numbers to predict
    columns: Optional[list[str]] = None  # columns that become x; null: all but the label
    # between two cells; null: comma, semicolon, tab or bar, as the file's first rows show
    delimiter: Optional[str] = None
    # of the text, such as cp1252; null: UTF-8, or UTF-16 and UTF-32 as the first bytes show
    encoding: Optional[str] = None

    def check(self) -> None:
        if not 0 <= self.test_share < 1:
            raise UsageError(
                f"{self.test_share} is no share of the rows", where="data.test_share", fix="use a number from 0 to 0.9"
            )
        if self.columns is not None and (self.label in self.columns or not self.columns):
            raise UsageError(
                "data.columns is empty or names the label", where="data.columns", fix="name the columns of features"
            )
        self.held("train")

    def arrays(self, split: str) -> dict[str, Any]:
        return dict(self._read[0].get(split, {}))

    def place(self, split: str, row: int) -> tuple[str, str]:
        table, rows = self._read[2][split]
        return str(table.file), table.line(int(rows[row]))

    def spec(self) -> dict[str, int]:
        return {"num_features": self.held("train")["x"].shape[1], **self.class_spec()}

    def class_names(self) -> tuple[str, ...] | None:
        return self._read[1] or super().class_names()

    def feature_names(self) -> list[str]:
        return self.columns if self.columns is not None else _features(self._read[2]["train"][0].names, self.label)

    def unlabelled(self, path: str) -> Source:
        # the model takes the columns in the order of the table that it learnt from
        known = self.columns is None and Path(self.path).is_file()
        columns = _features(_header(self._form(self.path))[1], self.label) if known else self.columns
        return _Unlabelled(
            path=path, label=self.label, columns=columns, delimiter=self.delimiter, encoding=self.encoding
        )

    def _form(self, path: str) -> Form:
        return Form.of(Path(path), delimiter=self.delimiter, encoding=self.encoding)

    @cached_property
    def _read(
        self,
    ) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...] | None, dict[str, tuple[_Table, np.ndarray]]]:
        """The splits, the names of the classes where the labels are texts, and the table and rows of each split."""
        import numpy as np

        table = _Table(self._form(self.path))
        features = self.columns if self.columns is not None else _features(table.names, self.label)
        table.require([*features, self.label])
        x = table.features(features)
        held_out = _share(len(x), self.test_share if self.test_path is None else 0.0)
        train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        if len(train) == 0:
            raise DataMissing("no row is left to train on", where=self.path, fix="set a smaller data.test_share")
        labels = _Labels.of(table, self.label, train, known=self.known_classes)
        splits, origin = {"train": {"x": x[train], "label": labels.read(table, train)}}, {"train": (table, train)}
        if self.test_path is not None:
            other = _Table(self._form(self.test_path))
            x = other.features(features, numeric=True)
            origin["test"] = (other, np.arange(len(x)))
            splits["test"] = {"x": x, "label": labels.read(*origin["test"])}
        elif len(test):
            origin["test"] = (table, test)
            splits["test"] = {"x": x[test], "label": labels.read(table, test)}
        if len({fields["label"].dtype for fields in splits.values()}) > 1:  # quantities, whole ones by chance
            for fields in splits.values():
                fields["label"] = fields["label"].astype(np.float32)
        return splits, labels.classes, origin


@dataclass
class _Unlabelled(ArraySource):
    """The features of one table, as the split "test"."""

    places: ClassVar[tuple[str, ...]] = ("path",)

    path: str = "???"
    label: str = "???"  # left out where the table has it
    columns: Optional[list[str]] = None
    delimiter: Optional[str] = None
    encoding: Optional[str] = None

    def check(self) -> None:
        self.held("test")

    def arrays(self, split: str) -> dict[str, Any]:
        if split != "test":
            return {}
        table = _Table(Form.of(Path(self.path), delimiter=self.delimiter, encoding=self.encoding))
        known = self.columns is not None
        return {"x": table.features(self.columns or _features(table.names, self.label), numeric=known)}

    def spec(self) -> dict[str, int]:
        return {"num_features": self.held("test")["x"].shape[1]}


class _Table:
    """One file's header, its columns as trimmed text, and what is wrong in which line.

    Raises:
        DataMissing: the file is missing or has no row.
        DataCorrupt: rows of different lengths, names that stand twice, text that is not UTF-8.
    """

    def __init__(self, form: Form):
        self.form, self.file = form, form.file
        raw, self.names = _header(form)
        pa, _, arrow_csv = _pyarrow()
        try:
            with form.open() as stream:
                table = arrow_csv.read_csv(
                    stream,
                    read_options=arrow_csv.ReadOptions(use_threads=False, block_size=_BLOCK, encoding=_arrow(form)),
                    parse_options=arrow_csv.ParseOptions(delimiter=form.delimiter, newlines_in_values=True),
                    convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(raw, pa.string())),
                )
        except UnicodeDecodeError:
            raise not_decodable(self.file, form.encoding) from None
        except (pa.ArrowInvalid, EOFError, OSError, ValueError) as error:
            if "UTF8" in str(error):
                raise not_decodable(self.file, form.encoding) from None
            for line, cells in form.rows():
                if len(cells) != len(self.names):
                    told = f"line {line} has {len(cells)} cells and the header has {len(self.names)}"
                    marks = DELIMITERS.get(form.delimiter, repr(form.delimiter))
                    raise self.corrupt(told, f"put texts with {marks} in quotes, or set data.delimiter") from None
            raise self.corrupt(f"the table can't be read: {first_line(error)}", "save it as CSV in UTF-8") from None
        if table.num_rows == 0:
            raise DataMissing(
                "the table has a header and no row", where=str(self.file), fix="data.path=... with data in it"
            )
        self._table = table.rename_columns(self.names)

    def corrupt(self, what: str, fix: str) -> DataCorrupt:
        return DataCorrupt(what, where=str(self.file), fix=fix)

    def line(self, row: int) -> str:
        """Where a row stands: walked again, since quoted line breaks and blank lines shift it."""
        lines = (line for number, (line, _) in enumerate(self.form.rows()) if number == row + 1)
        return f"line {next(lines, row + 2)}"

    def require(self, columns: list[str]) -> None:
        for column in columns:
            if column not in self.names:
                headless = ", and its first line seems to hold data and no names" if _headless(self.names) else ""
                raise self.corrupt(
                    f"there is no column {column!r}{nearest(column, self.names)}{headless}",
                    f"its columns, {self.form}, are {', '.join(self.names)}: set data.label and data.columns, or "
                    "data.delimiter",
                )

    def cells(self, column: str) -> Any:
        """A PyArrow array of strings, numbers in it with a decimal point.

        Raises:
            DataCorrupt: an unknown column or an empty cell.
        """
        _, compute, _ = _pyarrow()
        self.require([column])
        cells = compute.utf8_trim_whitespace(self._table.column(column)).combine_chunks()
        row = compute.index(cells, "").as_py()
        if row >= 0:
            raise self.corrupt(f"the cell of {column} is empty in {self.line(row)}", "fill the cell or remove the row")
        if self.form.delimiter != ",":  # as spreadsheets write where the comma is the decimal point
            commas = compute.sum(compute.match_substring_regex(cells, _DECIMAL_COMMA)).as_py()
            if commas and 2 * compute.sum(compute.match_substring_regex(cells, _NUMBER_BY_COMMA)).as_py() > len(cells):
                return compute.replace_substring_regex(cells, _DECIMAL_COMMA, r"\1.\2")
        return cells

    def features(self, columns: list[str], *, numeric: bool = False) -> np.ndarray:
        """float32 [rows, columns].

        Args:
            numeric: whether the columns are known to hold numbers, so that text in them is a fault of the data.

        Raises:
            UsageError: a column of text, or no column.
            DataCorrupt: a cell that is no finite number.
        """
        import numpy as np

        text = [] if numeric else [name for name in columns if _is_text(self.cells(name))]
        rest = [name for name in columns if name not in text]
        if text or not columns:
            raise UsageError(
                f"the column {', '.join(text)} holds text, and features are numbers" if text else "there is no feature",
                where=str(self.file),
                fix=f"{as_override('data.columns', rest)} leaves it out; or encode it as numbers",
            )
        return np.stack([self.numbers(name, self.cells(name)) for name in columns], axis=1)

    def numbers(self, column: str, cells: Any, rows: np.ndarray | None = None, *, integer: bool = False) -> np.ndarray:
        """float32 or int64 [cells]; raises DataCorrupt naming the line of a cell that is no finite number.

        Args:
            rows: the place of every cell in the table; None: all rows.
        """
        import numpy as np

        def line(number: int) -> str:
            return self.line(number if rows is None else int(rows[number]))

        kind = "int64" if integer else "float64"
        values = _cast(cells, kind)
        if values is None:
            bad = _first_unlike(cells, kind)
            what = "whole number" if integer else "number"
            raise self.corrupt(
                f"{cells[bad].as_py()[:80]!r} in column {column} is no {what} in {line(bad)}",
                "correct the cell or remove the row",
            )
        if integer:
            return values
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is reported next
            values = values.astype(np.float32)
        check_finite(values, field=f"column {column}", where=str(self.file), row_name=line)
        return values


@dataclass(frozen=True)
class _Labels:
    """How a column of labels is read: as the train split has it."""

    column: str
    classes: tuple[str, ...] | None = None  # of texts

    @classmethod
    def of(cls, table: _Table, column: str, rows: np.ndarray, *, known: tuple[str, ...] | None) -> _Labels:
        cells = table.cells(column).take(_pyarrow()[0].array(rows))
        if not _is_text(cells):
            return cls(column)
        return cls(column, known or tuple(sorted(cells.unique().to_pylist())))

    def read(self, table: _Table, rows: np.ndarray) -> np.ndarray:
        """int64 or float32 [rows]; raises DataCorrupt naming the line of a label that the train split can't have."""
        pa, compute, _ = _pyarrow()
        cells = table.cells(self.column).take(pa.array(rows))
        if self.classes is None:
            return table.numbers(self.column, cells, rows, integer=_cast(cells, "int64") is not None)
        found = compute.index_in(cells, pa.array(self.classes))
        if found.null_count:
            row = compute.index(found.is_null(), True).as_py()
            unknown = cells[row].as_py()
            raise table.corrupt(
                f"no training example has the label {unknown[:80]!r} of {table.line(int(rows[row]))}"
                f"{nearest(unknown, self.classes)}",
                "correct the label, or add examples of it to the training split",
            )
        return found.to_numpy(zero_copy_only=False).astype("int64")


def _features(names: list[str], label: str) -> list[str]:
    return [name for name in names if name not in ("", label)]


def _share(rows: int, share: float) -> np.ndarray:
    """bool [rows]: whether a row is held out, by SplitMix64 of its number (Steele et al., 2014)."""
    import numpy as np

    z = np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) / 2.0**53 < share


def _cast(cells: Any, kind: str) -> np.ndarray | None:
    """The cells as numbers, or None where one of them is none."""
    pa, compute, _ = _pyarrow()
    try:
        return compute.cast(cells, kind).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None


def _first_unlike(cells: Any, kind: str) -> int:
    """The place of the first cell that `_cast` refuses, by halving."""
    low, high = 0, len(cells)
    while high - low > 1:
        middle = (low + high) // 2
        if _cast(cells.slice(low, middle - low), kind) is None:
            high = middle
        else:
            low = middle
    return low


def _is_text(cells: Any) -> bool:
    """Whether most cells are no numbers; a few are faults in a column of numbers."""
    some = cells.slice(0, _SAMPLE)
    if _cast(some, "float64") is not None:
        return False
    return 2 * sum(_cast(some.slice(i, 1), "float64") is None for i in range(len(some))) > len(some)


def _header(form: Form) -> tuple[list[str], list[str]]:
    """The first row as it stands, and the names of the columns: trimmed, as cells are.

    Raises:
        DataMissing: the file is empty.
        DataCorrupt: two columns have one name.
    """
    raw = next((cells for _, cells in form.rows()), None)
    if raw is None:
        raise DataMissing("the file is empty", where=str(form.file), fix="data.path=... with a header and rows")
    names = [name.strip() for name in raw]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataCorrupt(f"two columns are named {twice[0]!r}", where=str(form.file), fix="rename one of them")
    return raw, names


def _headless(names: list[str]) -> bool:
    """Whether all but the last name are numbers, as in a table without a header."""

    def is_number(text: str) -> bool:
        try:
            float(text)
        except ValueError:
            return False
        return True

    return len(names) > 1 and all(map(is_number, names[:-1]))


def _arrow(form: Form) -> str:
    return "utf8" if form.encoding in ("utf-8", "utf-8-sig") else form.encoding


def _pyarrow() -> tuple[Any, Any, Any]:
    """(pyarrow, pyarrow.compute, pyarrow.csv)."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
    except ImportError:
        raise UsageError(
            "tables are read by PyArrow, which is not installed", where="data", fix='pip install "tfscale[tables]"'
        ) from None
    return pyarrow, pyarrow.compute, pyarrow.csv
