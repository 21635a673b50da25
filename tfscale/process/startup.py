"""Importing TensorFlow without what no training uses: a third of the seconds before a program begins.

Keras imports matplotlib, pandas and scikit-learn wherever they are installed, for image galleries, data frames given to
its `fit`, and wrappers; MLflow and mlxtend bring them along. Owns hiding them from it. Refuses to in a process that is
not a program of ours: a notebook may hand a data frame to Keras next.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

HIDDEN = ("matplotlib", "pandas", "sklearn")
_in_program = False


def begin_program() -> None:
    """Says that this process is there for one command of ours."""
    global _in_program
    _in_program = True


def cpu_alone() -> None:
    """Before TensorFlow is imported: looking for GPUs takes time, and takes them from others, where nothing here uses
    them; nor is what its processors could do people's concern then."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@contextlib.contextmanager
def lean() -> Iterator[None]:
    """Import TensorFlow in here. Whoever imported Keras or one of the others before keeps them."""
    if not _in_program or "keras" in sys.modules:
        yield
        return
    hidden = [name for name in HIDDEN if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import of it fail
    gc.disable()  # nothing of an import is garbage, and looking for some takes an eighth of the time
    try:
        yield
    finally:
        gc.freeze()  # more than a million objects that stay: later searches, and the one at the end, pass them over
        gc.enable()
        for name in hidden:
            del sys.modules[name]
