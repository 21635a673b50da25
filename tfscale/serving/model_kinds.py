"""Which kind a model is, and what reads it.

Owns the choice. Refuses to know what a kind reads, which are `tensorflow_model.py` and `python_model.py`.

    model = load_model(version, "churn", frozenset({"churn"}))
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from tfscale.serving.loaded_model import LoadedModel
from tfscale.serving.model_place import Version
from tfscale.serving.pickles import read_about, refuse_code

_log = logging.getLogger(__name__)


def load_model(version: Version, name: str, pickles: Collection[str]) -> LoadedModel:
    """Reads the files; takes seconds.

    Args:
        name: by which it is served.
        pickles: names of the models whose files may run their author's code when they are read.

    Raises:
        UsageError: that isn't allowed for this model, or a package that it needs is missing.
        DataCorrupt: it can't be read, or doesn't say what it takes and answers.
    """
    if not version.is_mlflow:
        from tfscale.serving.tensorflow_model import TensorFlowModel

        if name in pickles:
            _log.info(f"{name} is a SavedModel: serve.pickles does nothing for it")
        return TensorFlowModel.load(version)
    from tfscale.serving.python_model import PythonModel

    about = read_about(version.folder)
    refuse_code(version, about, name, pickles)
    return PythonModel.load(version, about)
