"""What a page that opens without a network is made of: templates that escape what people's data say, charts as SVG.

Owns Jinja and vl-convert, which draws Vega-Lite without a browser. Refuses to know what is on a page.

    page = rendered(Path("page.html.j2"), {"name": "<b>"}, where="output", extra="inspect")     # holds &lt;b&gt;
    svg = drawn({"mark": "bar", "data": {"values": rows}}, where="output", extra="inspect")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfscale.errors import UsageError

_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}


def rendered(template: Path, values: Mapping[str, Any], *, where: str, extra: str) -> str:
    """A Jinja template with these values, all of which are escaped unless the template calls them safe; it may include
    others of its folder.

    Args:
        where: the option that asks for the page, for the error.
        extra: of tfscale, which installs the library.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise missing("the page needs Jinja2", where=where, extra=extra) from None
    loader = jinja2.FileSystemLoader(template.parent)
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, finalize=_without_controls
    )
    return made.get_template(template.name).render(**values)


def _without_controls(value: Any) -> Any:
    """HTML holds no control characters, not even escaped."""
    return value.translate(_CONTROLS) if isinstance(value, str) else value


def drawn(chart: Mapping[str, Any], *, where: str, extra: str) -> str:
    """A Vega-Lite chart as an SVG element; raises UsageError where vl-convert is not installed."""
    try:
        import vl_convert
    except ImportError:
        raise missing("charts are drawn by vl-convert", where=where, extra=extra) from None
    svg: str = vl_convert.vegalite_to_svg({"$schema": "https://vega.github.io/schema/vega-lite/v5.json", **chart})
    return svg


def printable(text: object) -> str:
    """What people's data say in one line, without what a terminal would obey and an SVG can't hold."""
    return "".join(one if one.isprintable() else " " if one.isspace() else "\ufffd" for one in str(text))


def missing(needs: str, *, where: str, extra: str) -> UsageError:
    """The error of a library that isn't there."""
    return UsageError(f"{needs}, which is not installed", where=where, fix=f'pip install "tfscale[{extra}]"')
