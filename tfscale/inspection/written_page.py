"""Figures as HTML by Jinja's templates: a page with DataTables (itables) for the rows, and a part of a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfscale.console.offline_page import missing, rendered
from tfscale.data.thumbnails import address
from tfscale.files import write_whole
from tfscale.inspection.figures import Figures, told
from tfscale.inspection.gathered import gather
from tfscale.inspection.inspect_request import InspectRequest

_PICTURES, _ROWS = 60, 500


def write_page(request: InspectRequest, output: Path) -> int:
    """Writes the page; returns its size in bytes.

    Raises:
        DataMissing, UsageError: as `gather`, or a library is missing.
    """
    figures = gather(request, pictures=_PICTURES, rows=_ROWS)
    tables, rows = _rows(figures)
    content = _rendered("page.html.j2", figures, request.augment, tables=tables, rows=rows).encode()
    write_whole(output, content)
    return len(content)


def part_of(figures: Figures, augment: str) -> str:
    """The figures as one element, which may stand beside others: without scripts, ids, and styles for what isn't its
    own. Its rows are a plain table.

    Raises:
        UsageError: a library is missing.
    """
    return _rendered("figures.html.j2", figures, augment, rows=None)


def _rendered(template: str, figures: Figures, augment: str, **more: Any) -> str:
    values = {"figures": figures, "augment": augment, "told": told, "uri": address, **more}
    return rendered(Path(__file__).with_name(template), values, where="NAME", extra="inspect")


def _rows(figures: Figures) -> tuple[str, str]:
    """(the script of the tables, the table of examples); both "" where there are no rows."""
    if not figures.rows:
        return "", ""
    try:
        import itables
        import pandas as pd
        from itables.javascript import generate_init_offline_itables_html
    except ImportError:
        raise missing("the page needs itables", where="NAME", extra="inspect") from None
    shown = itables.to_html_datatable(
        pd.DataFrame(figures.rows), connected=False, showIndex=False, allow_html=False, lengthMenu=[10, 25, 100],
        layout={"top1": "searchBuilder"}, maxBytes=0, table_id="examples",
    )  # fmt: skip
    return generate_init_offline_itables_html(itables.options.dt_bundle), shown
