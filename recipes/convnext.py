"""Image classification by a ConvNeXt: +recipe=convnext (digits, two cores) and +recipe=convnext_t_imagenet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from tfscale.recipes.image_classification import ImageClassification

from tfscale.errors import UsageError, nearest
from tfscale.models import convnext


@dataclass
class ConvNeXt(ImageClassification):
    """Image classification by a ConvNeXt.

    `variant`: "T", "S", "B" or "L" as published, or "digits", a small one; `depths` and `widths` of the stages and
    `patch` (pixels of a side, which the stem makes one place of) take the place of the variant's own.
    `layer_scale` is what the factors of a block's channels begin with; 0 leaves them away.
    `deviation`: of the normal distribution that weights are drawn from; null: Glorot's rule.
    `drop_path` is the share of the examples for which the last block is left out in training, the first one's being 0.
    """

    variant: str = "T"
    depths: Optional[list[int]] = None
    widths: Optional[list[int]] = None
    patch: Optional[int] = None
    layer_scale: float = 1e-6
    drop_path: float = 0.0
    deviation: Optional[float] = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in convnext.VARIANTS:
            raise UsageError(
                f"there is no ConvNeXt {self.variant!r}{nearest(self.variant, list(convnext.VARIANTS))}",
                where="task.variant",
                fix=f"use one of {', '.join(convnext.VARIANTS)}",
            )
        if not 0 <= self.drop_path < 1:
            raise UsageError("it is a share of the examples", where="task.drop_path", fix="use 0 or more, and below 1")
        sizes = self._sizes()
        if len(sizes["depths"]) != len(sizes["widths"]):
            raise UsageError(
                f"there are {len(sizes['depths'])} depths and {len(sizes['widths'])} widths",
                where="task.depths",
                fix="give one depth and one width for each stage",
            )
        if min(*sizes["depths"], *sizes["widths"], sizes["patch"]) < 1:
            raise UsageError("depths, widths and the patch are 1 or more", where="task", fix=f"not {sizes}")

    def _sizes(self) -> dict:
        own = {"depths": self.depths, "widths": self.widths, "patch": self.patch}
        given = {name: size if isinstance(size, int) else tuple(size) for name, size in own.items() if size is not None}
        return {**convnext.VARIANTS[self.variant], **given}

    def _whole(self) -> convnext.Shape:
        drawn = {"scale": self.layer_scale, "dropped": self.drop_path, "deviation": self.deviation}
        return convnext.Shape(**self.shape(), **self._sizes(), **drawn)

    def cost(self):
        return convnext.footprint(self._whole())

    def build_model(self):
        return convnext.build(self._whole())
