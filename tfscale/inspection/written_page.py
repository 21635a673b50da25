"""The page as HTML: Jinja's template, and DataTables (itables) for the rows of examples, sorted and filtered."""

from __future__ import annotations

from pathlib import Path

from tfscale.data.prepared import Prepared
from tfscale.errors import UsageError
from tfscale.files import write_whole
from tfscale.inspection.sections import (
    Page,
    found_at_import,
    known_kind,
    splits_of,
    table_page,
    text_page,
)

_PICTURES, _ROWS = 60, 500


def write_page(name: str, folder: str, output: Path, *, examples: int | None, augment: str) -> int:
    """Returns its size in bytes.

    Args:
        examples: how many are shown; None: 60 pictures, or 500 rows.
        augment: how training looks at pictures, one of tfscale.data.AUGMENTS.

    Raises:
        DataMissing: there is no such data set. UsageError: it holds what no page shows, or a library is missing.
    """
    source = Prepared(name=name, dir=folder)
    source.check()
    at = source.folder()
    assert at is not None
    page = Page(name, at, splits_of(at), found_at_import(at))
    kind = known_kind(source)
    if kind == "pictures":
        from tfscale.inspection.picture_examples import picture_page

        picture_page(source, page, examples=examples or _PICTURES, augment=augment)
    else:
        fill = table_page if kind == "table" else text_page
        fill(source, page, examples=examples or _ROWS)
    content = _html(page, augment).encode()
    write_whole(output, content)
    return len(content)


def _html(page: Page, augment: str) -> str:
    try:
        import jinja2
    except ImportError:
        raise _missing("Jinja2") from None
    template = (Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8")
    made = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template)
    tables, rows = _rows(page)
    return made.render(page=page, augment=augment, tables=tables, rows=rows)


def _rows(page: Page) -> tuple[str, str]:
    """(the script of the tables, the table of examples); both "" where there are no rows."""
    if not page.rows:
        return "", ""
    try:
        import itables
        import pandas as pd
        from itables.javascript import generate_init_offline_itables_html
    except ImportError:
        raise _missing("itables") from None
    shown = itables.to_html_datatable(
        pd.DataFrame(page.rows), connected=False, showIndex=False, allow_html=False, lengthMenu=[10, 25, 100],
        layout={"top1": "searchBuilder"}, maxBytes=0, table_id="examples",
    )  # fmt: skip
    return generate_init_offline_itables_html(itables.options.dt_bundle), shown


def _missing(library: str) -> UsageError:
    return UsageError(
        f"the page needs {library}, which is not installed", where="NAME", fix='pip install "tfscale[inspect]"'
    )
