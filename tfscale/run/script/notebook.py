"""The same for a notebook: from `tfscale.enable()` on every `model.fit` of this process is a fit of tfscale.

Owns that nothing is gone on with: a cell that is run again trains on, as with Keras. Refuses to know fits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tfscale.cluster import Cluster
from tfscale.errors import UsageError
from tfscale.keras_fit.from_python import new_name
from tfscale.run.script.journal import Entered
from tfscale.run.script.keras_calls import KerasCalls
from tfscale.run.script.refusals import first_plan
from tfscale.run_dir.folder import RunDir
from tfscale.runtime import global_state as runtime

_undo: list[Callable[[], None]] = []  # one at most


class _Anew:
    """A journal that knows nothing: each fit has a folder of its own."""

    program, ended = "this notebook", False

    def __init__(self) -> None:
        self.run_dir, self._count = RunDir(Path("runs")), 0

    def enter(self, place: str, digest: str, name: str) -> Entered:
        self._count += 1
        return Entered(self._count, self.run_dir.path / name / new_name(), False, False)


def enable(*, overrides: Sequence[str] = ()) -> None:
    """From here on `keras.Model.fit` of this process is tfscale's, on its local devices, with Keras's arguments and its
    History; a second call takes other overrides.

    A cell that is run again trains on. An interrupt (the kernel's stop button) raises KeyboardInterrupt once the
    checkpoint of that step is written. Models that exist already can be trained.

    Args:
        overrides: configuration of every fit, such as ["plan.local_devices=2"]; devices of one CPU can only be divided
            before TensorFlow's first operation.

    Raises:
        UsageError: overrides that there aren't, or this process is one of several.
    """
    cluster = Cluster.resolve(os.environ)
    if cluster.is_multi_worker:
        raise UsageError(
            f"this is {cluster.role}:{cluster.index} of several processes, and a notebook trains in one",
            where="tfscale.enable",
            fix="run it as a script: tfscale run script.py",
        )
    plan = first_plan(overrides, cluster)
    disable()
    runtime.import_tensorflow(plan)
    runtime.set_devices(plan)
    _undo.append(KerasCalls(_Anew(), overrides).install())


def disable() -> None:
    """Undoes `enable`: `keras.Model.fit` is Keras's own again. Does nothing where it is."""
    while _undo:
        _undo.pop()()
