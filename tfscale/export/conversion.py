"""Conversion: for which library a trained run is exported, in which precision, and what it may lose by that.

Owns what goes together, told before TensorFlow is there. Refuses to convert.

    wanted = Conversion("litert", "int8", most_loss=0.02)
    wanted.check()
    wanted.folder                   # "export-litert-int8"
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from tfscale.errors import UsageError

PRECISIONS = {
    "savedmodel": ("float32", "bfloat16"),
    "litert": ("float32", "float16", "int8"),
    "onnx": ("float32",),
}
MOST_LOSS = 0.01
_MODULES = {"litert": ("ai_edge_litert",), "onnx": ("tf2onnx", "onnx", "onnxruntime")}  # of the extras of that name


@dataclass(frozen=True)
class Conversion:
    """What is asked for.

    Attributes:
        most_loss: how much worse the metric may become in a lower precision: by this number where more is better, by
            this share of it where less is. None: MOST_LOSS.
    """

    format: str = "savedmodel"
    precision: str = "float32"
    most_loss: float | None = None

    @property
    def lossy(self) -> bool:
        return self.precision != "float32"

    @property
    def apart(self) -> bool:
        """Whether it is something else than a run's own export, and has a folder beside it."""
        return self.format != "savedmodel" or self.lossy

    @property
    def bound(self) -> float:
        return MOST_LOSS if self.most_loss is None else self.most_loss

    @property
    def folder(self) -> str:
        """The name of the export in a run's folder."""
        return "-".join(["export", self.format, *([self.precision] if self.lossy else [])])

    def check(self) -> None:
        """Raises UsageError: the format has no such precision, or its extra isn't installed."""
        if self.precision not in PRECISIONS[self.format]:
            others = [name for name, known in PRECISIONS.items() if self.precision in known]
            raise UsageError(
                f"format={self.format} has no precision {self.precision}",
                where="precision",
                fix=f"format={others[0]} precision={self.precision}, or leave precision away",
            )
        if self.most_loss is not None and not self.lossy:
            raise UsageError("in float32 nothing is lost", where="most_loss", fix="leave it away, or precision=int8")
        if not self.bound >= 0:
            raise UsageError("the most that may be lost is 0 or more", where="most_loss", fix=f"most_loss={MOST_LOSS}")
        missing = [name for name in _MODULES.get(self.format, ()) if importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(
                f"format={self.format} needs {' and '.join(missing)}, which is not installed",
                where="format",
                fix=f"pip install 'tfscale[{self.format}]'",
            )
