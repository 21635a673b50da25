"""The baseline of a data set that is imported, and imported again.

Owns whose statistics it has: those of the first import, as long as the same command is given again.
"""

from __future__ import annotations

import logging

from tfscale.console.messages import RESULT, figures
from tfscale.files import read_json
from tfscale.importer.import_request import ImportRequest
from tfscale.statistics.baseline import breaks, copy_baseline, is_baseline, keep_baseline
from tfscale.statistics.protos import SCHEMA

_log = logging.getLogger(__name__)


def make_baseline(request: ImportRequest) -> None:
    """Puts it beside the statistics that were just written, where there are some, and says what training will."""
    folder, former = request.incomplete, request.folder
    if not (folder / SCHEMA).is_file():
        return
    if not is_baseline(former):
        keep_baseline(folder, folder)
        return
    about = read_json(request.folder / "import.json", trusted=True)
    if not isinstance(about, dict) or about.get("request") != request.meaning():
        _log.info("the baseline is made anew, since other keys were given than before")
        keep_baseline(folder, folder)
        return
    copy_baseline(former, folder)
    if failing := sum(one.fails for one in breaks(folder, folder, "train")):
        _log.log(
            RESULT,
            f"the data break the baseline of those before, and training will refuse them: {failing} findings; see"
            f" `tfscale data validate {request.name}`, and take them as they are by accept=true there",
            extra=figures(findings=failing),
        )
