"""Image classification by a ConvNeXt: +recipe=convnext (digits, two cores) and +recipe=convnext_t_imagenet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from tfscale.recipes.image_classification import ImageClassification, refuse_numbers

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

    variant: str = "T"  # T, S, B or L as published, or digits, a small one
    depths: Optional[list[int]] = None  # blocks of each stage; null: the variant's
    widths: Optional[list[int]] = None  # channels of each stage; null: the variant's
    patch: Optional[int] = None  # pixels of a side that the stem makes one place of; null: the variant's
    layer_scale: float = 1e-6  # what the factors of a block's channels begin with; 0 leaves them away
    # share of the examples for which the last block is left out in training, the first one's being 0
    drop_path: float = 0.0
    deviation: Optional[float] = 0.02  # of the normal distribution that weights are drawn from; null: Glorot's rule

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in convnext.VARIANTS:
            raise UsageError(
                f"there is no ConvNeXt {self.variant!r}{nearest(self.variant, list(convnext.VARIANTS))}",
                where="task.variant",
                fix=f"use one of {', '.join(convnext.VARIANTS)}",
            )
        refuse_numbers(self.drop_path, self.deviation)
        if self.layer_scale < 0:
            raise UsageError("the first factor is below 0", where="task.layer_scale", fix="use 1e-6, or 0 for none")
        sizes = self._sizes()
        if len(sizes["depths"]) != len(sizes["widths"]) or not sizes["depths"]:
            raise UsageError(
                f"there are {len(sizes['depths'])} depths and {len(sizes['widths'])} widths",
                where="task.depths",
                fix="give one depth and one width for each stage",
            )
        for name, size in sizes.items():
            if min(size if isinstance(size, tuple) else (size,)) < 1:
                raise UsageError(f"{name} is {size}", where=f"task.{name}", fix="use 1 or more")

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
