"""tfds:NAME as a source: any data set of TFDS, which prepares it in the data folder, as data=tfds does."""

from __future__ import annotations

import logging

from tfscale.data.tfds import Tfds
from tfscale.errors import UsageError
from tfscale.importer.import_request import ImportRequest

_log = logging.getLogger(__name__)

_TFDS = "tfds:"


def made_by_tfds(request: ImportRequest) -> str | None:
    """The folder of the data set that the path names; None: it names none of TFDS.

    Raises:
        DataMissing: TFDS doesn't know it, or can't prepare it.
        UsageError: the new data set would bear its name, and lie among its versions.
    """
    if not request.path.startswith(_TFDS):
        return None
    wanted = request.path.removeprefix(_TFDS)
    if wanted.partition(":")[0].split("/")[0] == request.name:
        raise UsageError(
            f"{request.name} is what TFDS calls its own, which data=tfds data.name={wanted} trains on as it is",
            where="name",
            fix=f"name=my_{request.name} for one with other splits",
        )
    source = Tfds(dir=request.dir, name=wanted)
    if source.folder() is None:
        source.check()  # whether TFDS knows it
    folder = source.make()
    source.require_tfrecord()
    _log.info(f"{request.path}: {folder}")
    return str(folder)
