from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shlex
import zipfile

import pytest

from tfscale.config.override_syntax import as_override
from tfscale.data.csv import Csv
from tfscale.data.csv_form import Form
from tfscale.errors import DataCorrupt, UsageError

ROWS = [(i / 4, i * 3, "xyz"[i % 3]) for i in range(12)]
NAMES = ("width", "leaf height (cm)", "kind")


def text(separator=",", *, names=NAMES, rows=ROWS, blank="", end="\n"):
    lines = [names, *rows]
    return "".join((separator + blank).join(map(str, line)) + end for line in lines)


def held(tmp_path, content: bytes, name="t.csv", **options):
    file = tmp_path / name
    file.write_bytes(content)
    source = Csv(path=str(file), label=options.pop("label", "kind"), **options)
    source.check()
    return source.held("train"), source


PLAIN = [[width, height] for width, height, _ in ROWS]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_separators_and_encodings_are_found(tmp_path, separator, encoding):
    fields, source = held(tmp_path, text(separator).encode(encoding))
    assert fields["x"].tolist() == PLAIN
    assert source.class_names() == ("x", "y", "z")


@pytest.mark.parametrize(
    "content",
    [
        text(blank=" "),
        text(blank="  "),
        text(names=[f" {name} " for name in NAMES]),
        text(end="\r\n"),
        text(end="\r"),
        "\n\n" + text(),
        text(names=[f'"{name}"' for name in NAMES], rows=[(f'"{a}"', f'"{b}"', f'"{c}"') for a, b, c in ROWS]),
        text(blank=" ", rows=[(a, f'"{b}"', f'"{c}"') for a, b, c in ROWS]),  # blanks before quotes
    ],
    ids=["blank", "blanks", "names", "crlf", "cr", "empty lines", "quotes", "loose quotes"],
)
def test_blanks_quotes_and_line_ends_change_nothing(tmp_path, content):
    fields, source = held(tmp_path, content.encode())
    assert fields["x"].tolist() == PLAIN
    assert source.class_names() == ("x", "y", "z")


def test_quoted_cells_hold_separators_also_behind_blanks(tmp_path):
    rows = [(a, b, f'"{c}, or so"') for a, b, c in ROWS]
    for blank in ("", " "):
        _, source = held(tmp_path, text(rows=rows, blank=blank).encode())
        assert source.class_names() == ("x, or so", "y, or so", "z, or so")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_tables_are_known_by_their_content(tmp_path, pack):
    fields, source = held(tmp_path, pack(text(";").encode("utf-16")), name="t.csv")
    assert fields["x"].tolist() == PLAIN
    assert source.unlabelled(source.path).held("test")["x"].tolist() == PLAIN
    assert str(Form.of(tmp_path / "t.csv")).startswith("separated by semicolons, UTF-16, ")


def test_decimal_commas_are_read_where_the_comma_separates_nothing(tmp_path):
    rows = [(str(a).replace(".", ","), b, c) for a, b, c in ROWS]
    fields, _ = held(tmp_path, text(";", rows=rows).encode())
    assert fields["x"].tolist() == PLAIN
    targets = [(b, c, str(a).replace(".", ",")) for a, b, c in ROWS]
    fields, _ = held(tmp_path, text(";", names=("a", "name", "y"), rows=targets).encode(), label="y", columns=["a"])
    assert fields["label"].tolist() == [a for a, _, _ in ROWS]
    with pytest.raises(DataCorrupt, match=r"'n\?' in column width is no number in line 4"):
        held(tmp_path, text(";", rows=[*rows[:2], ("n?", 1, "x"), *rows[2:]]).encode())


def test_given_options_win(tmp_path):
    fields, _ = held(tmp_path, text("~").encode(), delimiter="~")
    assert fields["x"].tolist() == PLAIN
    fields, _ = held(tmp_path, text("\t").encode(), delimiter="tab")
    assert fields["x"].tolist() == PLAIN
    _, source = held(tmp_path, text(names=("größe", "b", "kind")).encode("cp1252"), encoding="cp1252")
    assert source.unlabelled(source.path).held("test")["x"].tolist() == PLAIN
    with pytest.raises(UsageError, match="separates no cells"):
        held(tmp_path, text().encode(), delimiter=";;")
    with pytest.raises(UsageError, match="no encoding 'utf-9'"):
        held(tmp_path, text().encode(), encoding="utf-9")


def test_what_is_no_csv_is_named(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("t.csv", text())
    for content, told in (
        (packed.getvalue(), "ZIP archive or an Excel workbook"),
        (b"PAR1" + bytes(40), "Parquet"),
        (gzip.compress(text().encode())[:-20], "can't be unpacked"),
        (text(names=("größe", "b", "kind")).encode("latin-1"), "not in the encoding UTF-8 .* data.encoding=cp1252"),
        (text(rows=ROWS * 1000).encode() + b"1,2,gr\xfcn\n", "not in the encoding UTF-8"),  # far behind the start
        (text().encode()[:50] + bytes(5), "zero bytes"),
        (text(names=("1.5", "2", "x")).encode(), "no column 'kind', and its first line seems to hold data"),
        (text(";").encode() + b"1;2\n", "line 14 has 2 cells and the header has 3"),
    ):
        with pytest.raises((DataCorrupt, UsageError), match=told):
            held(tmp_path, content)


def test_the_fix_for_columns_of_text_can_be_copied(tmp_path):
    rows = [(a, "text", b, c) for a, b, c in ROWS]
    content = text(names=("a, b", "note", *NAMES[1:]), rows=rows).replace("a, b", '"a, b"').encode()
    with pytest.raises(UsageError, match=r"the column note holds text") as error:
        held(tmp_path, content)
    (override,) = shlex.split(error.value.fix.partition(" leaves")[0])
    assert override == "data.columns=['a, b','leaf height (cm)']"
    fields, _ = held(tmp_path, content, columns=["a, b", "leaf height (cm)"])
    assert fields["x"].tolist() == PLAIN


@pytest.mark.parametrize(
    "value",
    [
        *(
            "a b",
            "it's",
            "c:\\x\\",
            "x\\'y",
            "null",
            "a,b=c",
            "[1]",
            "ä#~",
            "train (1).csv",
            'say "hi"',
            "",
            "$HOME `x`",
        ),
        *("1", "1e3", ["leaf (cm)", "b", 1, None, True, "1e3"], 5, None, False),
    ],
)
def test_overrides_survive_the_shell_and_hydra(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (word,) = shlex.split(as_override("data.path", value))
    got = OverridesParser.create().parse_override(word).value()
    assert (got if not isinstance(got, list) else [getattr(one, "text", one) for one in got]) == value
