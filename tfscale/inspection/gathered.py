"""All figures of a data set, gathered in one place for a page, a terminal and a notebook."""

from __future__ import annotations

from tfscale.console import hushed
from tfscale.data.prepared import Prepared
from tfscale.errors import UsageError, nearest
from tfscale.files import read_json
from tfscale.inspection.figures import Figures, found_at_import, splits_of
from tfscale.inspection.inspect_request import InspectRequest
from tfscale.process.startup import lean


def gather(request: InspectRequest, *, pictures: int, rows: int) -> Figures:
    """The figures that were asked for.

    Args:
        pictures, rows: how many examples are shown where nobody says.

    Raises:
        DataMissing: there is no such data set, or no such example.
        UsageError: it holds what has no figures, or the request doesn't fit it.
    """
    source = Prepared(name=request.name, dir=request.dir)
    source.check()
    with hushed(), lean():
        import tensorflow as tf

        tf.config.list_logical_devices("CPU")  # what it prints of devices comes here, not between the figures
    at = source.folder()
    assert at is not None
    splits, kind = splits_of(at), _kind_of(source)
    names = [name for name, *_ in splits]
    if request.split not in names:
        text = f"{request.name} has no split {request.split!r}{nearest(request.split, names)}"
        raise UsageError(text, where="split", fix=f"split={' or '.join(names)}")
    figures = Figures(request.name, at, kind, splits, found_at_import(at), split=request.split)
    asked = {"label": request.label, "where": request.where}
    figures.chosen = " ".join(f"{key}={value}" for key, value in asked.items() if value is not None)
    if kind == "pictures":
        from tfscale.inspection.picture_examples import picture_figures

        picture_figures(source, figures, request, examples=request.examples or pictures)
    else:
        from tfscale.inspection.row_figures import table_figures, text_figures

        fill = table_figures if kind == "table" else text_figures
        fill(source, figures, request, examples=request.examples or rows)
    return figures


def _kind_of(source: Prepared) -> str:
    """ "table", "pictures" or "texts"; raises UsageError."""
    spec, folder = source.spec(), source.folder()
    assert folder is not None
    features = read_json(folder / "features.json", trusted=True)["featuresDict"]["features"]
    if "image" in features:
        return "pictures"
    if spec.get("columns", {}).get("columns"):
        return "table"
    if any("text" in one for one in features.values()):
        return "texts"
    raise UsageError(f"{source.name} holds neither pictures nor texts nor a table", where="NAME", fix="import it anew")
