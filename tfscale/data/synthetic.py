"""Random images, for measuring and for tests that need no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfscale.data.source import Source

if TYPE_CHECKING:
    import tensorflow as tf

_POOL = 64  # distinct images held in memory, so that reading costs next to nothing


@dataclass
class Synthetic(Source):
    """data=synthetic: the image and label of an index never change; nothing can be learnt from them."""

    image_size: int = 224  # pixels of a side
    channels: int = 3  # channels of a picture
    num_classes: int = 1000  # how many labels there are
    train_examples: int = 1281167  # examples of the training split
    test_examples: int = 50000  # examples of the test split

    def spec(self) -> dict[str, int]:
        return {"num_classes": self.num_classes, "image_size": self.image_size, "channels": self.channels}

    def num_examples(self, split: str) -> int:
        return self.train_examples if split == "train" else self.test_examples

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        import numpy as np
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        shape = (_POOL, self.image_size, self.image_size, self.channels)
        pool = tf.constant(np.random.RandomState(0).randint(0, 256, shape, np.uint8))

        @no_autograph
        def at(some):
            return {"image": tf.gather(pool, some % _POOL), "label": some % self.num_classes}

        return indices.map(at).unbatch()

    def parse(self, raw: Any) -> dict[str, Any]:
        return dict(raw)
