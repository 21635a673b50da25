"""Image classification by a vision transformer: +recipe=vit (digits, two cores) and +recipe=deit_s_imagenet (DeiT)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from tfscale.recipes.image_classification import ImageClassification, refuse_numbers

from tfscale.errors import UsageError, nearest
from tfscale.models import vit


@dataclass
class ViT(ImageClassification):
    """Image classification by a vision transformer.

    `variant`: "Ti", "S", "B" or "L" as published, or "digits", a small one; `width`, `depth`, `heads` and `patch`
    (pixels of a side) take the place of the variant's own.
    `pool`: whether a class "token" answers, or the "mean" of all tokens.
    `deviation`: of the normal distribution that weights are drawn from; null: Glorot's rule.
    `drop_path` is the share of the examples for which the last block is left out in training, the first one's being 0.
    """

    variant: str = "S"  # Ti, S, B or L as published, or digits, a small one
    width: Optional[int] = None  # length of a token's vector; null: the variant's
    depth: Optional[int] = None  # how many blocks there are; null: the variant's
    heads: Optional[int] = None  # of attention, a divisor of the width; null: the variant's
    patch: Optional[int] = None  # pixels of a side of what becomes a token; null: the variant's
    pool: str = "token"  # whether a class token answers, or the mean of all tokens
    # share of the examples for which the last block is left out in training, the first one's being 0
    drop_path: float = 0.0
    deviation: Optional[float] = 0.02  # of the normal distribution that weights are drawn from; null: Glorot's rule

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in vit.VARIANTS:
            raise UsageError(
                f"there is no ViT {self.variant!r}{nearest(self.variant, list(vit.VARIANTS))}",
                where="task.variant",
                fix=f"use one of {', '.join(vit.VARIANTS)}",
            )
        if self.pool not in ("token", "mean"):
            raise UsageError(f"nothing is pooled by {self.pool!r}", where="task.pool", fix="use token or mean")
        refuse_numbers(self.drop_path, self.deviation)
        sizes = self._sizes()
        for name, size in sizes.items():
            if size < 1:
                raise UsageError(f"{name} is {size}", where=f"task.{name}", fix="use 1 or more")
        if sizes["width"] % sizes["heads"]:
            raise UsageError(
                f"{sizes['heads']} heads can't share a width of {sizes['width']}",
                where="task.heads",
                fix="choose a divisor of the width, such as width / 64",
            )
        if self.image_size is not None and (self.image_size % sizes["patch"] or self.image_size < 1):
            raise UsageError(
                f"patches of {sizes['patch']} pixels don't cover pictures of {self.image_size}",
                where="task.patch",
                fix="choose a patch that divides task.image_size",
            )

    def _sizes(self) -> dict[str, int]:
        own = {"width": self.width, "depth": self.depth, "heads": self.heads, "patch": self.patch}
        return {**vit.VARIANTS[self.variant], **{name: size for name, size in own.items() if size is not None}}

    def _whole(self) -> vit.Shape:
        drawn = {"dropped": self.drop_path, "deviation": self.deviation}
        return vit.Shape(**self.shape(), **self._sizes(), pool=self.pool, **drawn)

    def cost(self):
        return vit.footprint(self._whole())

    def build_model(self):
        return vit.build(self._whole())
