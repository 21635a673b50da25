"""ResNet image classification: +recipe=resnet (digits, two cores) and +recipe=resnet50_imagenet (Goyal et al.)."""

from __future__ import annotations

from dataclasses import dataclass

from tfscale.recipes.image_classification import ImageClassification

from tfscale.errors import UsageError
from tfscale.models import resnet


@dataclass
class ResNet(ImageClassification):
    """Image classification by a ResNet: `depth` 8 to 110 of the CIFAR family or 18 to 152 of the ImageNet family, with
    `width` channels in the first stage.

    `sync_batch_norm` normalises by the moments of the global batch instead of each replica's part of it.
    """

    depth: int = 50  # 8 to 110 of the CIFAR family, or 18 to 152 of the ImageNet family
    width: int = 64  # channels of the first stage
    sync_batch_norm: bool = False  # normalises by the whole global batch, and not by each replica's part of it

    @property
    def reduces_inside(self) -> bool:
        return self.sync_batch_norm

    def __post_init__(self) -> None:
        if self.depth not in resnet.DEPTHS:
            depths = ", ".join(map(str, resnet.DEPTHS))
            raise UsageError(
                f"there is no ResNet of depth {self.depth}", where="task.depth", fix=f"use one of {depths}"
            )
        super().__post_init__()

    def cost(self):
        return resnet.footprint(self.depth, width=self.width, **self.shape())

    def build_model(self):
        return resnet.build(self.depth, width=self.width, synchronized=self.sync_batch_norm, **self.shape())
