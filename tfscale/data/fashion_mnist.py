"""Fashion-MNIST from the files of Debian's package dataset-fashion-mnist, or from TFDS where they are absent.

Owns reading of the idx files and their checksums (Xiao, Rasul & Vollgraf, 2017: 60,000 + 10,000 pictures of clothes).
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.data.tfds import Tfds, _import_tfds
from tfscale.errors import DataCorrupt, first_line
from tfscale.files import sha256_of

if TYPE_CHECKING:
    import numpy as np

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_FILES = {"train": "train", "test": "t10k"}
# SHA-256 of the unpacked files: packers differ in the bytes of the archive.
_SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_PIXELS = {2049: (), 2051: (28, 28)}  # idx's magic number says how many dimensions follow


@dataclass
class FashionMnist(Tfds):
    """data=fashion_mnist: 28 x 28 pixels in grey, ten classes; packed once into `dir`.

    `path` holds the four idx files, as `apt-get install dataset-fashion-mnist` puts them; where they are absent, TFDS
    downloads them.
    """

    places: ClassVar[tuple[str, ...]] = ("dir", "download", "path")

    name: str = "fashion_mnist"  # name of the data set as it is kept in dir
    path: str = "/usr/share/datasets/fashion-mnist"  # the folder of the four idx files, as Debian installs them

    def spec(self) -> dict[str, int]:
        return {"num_classes": 10, "image_size": 28, "channels": 1}

    def class_names(self) -> tuple[str, ...]:
        return CLASSES

    def _write(self) -> None:
        folder = Path(self.path)
        if not all((folder / name).is_file() for name in _SHA256):
            super()._write()
            return
        splits = {split: _examples(folder, prefix) for split, prefix in _FILES.items()}
        tfds = _import_tfds()
        image = tfds.features.Image(shape=(28, 28, 1), encoding_format="png")
        tfds.dataset_builders.store_as_tfds_dataset(
            name=self.name.split(":")[0],
            version="3.0.1",
            features=tfds.features.FeaturesDict({"image": image, "label": tfds.features.ClassLabel(num_classes=10)}),
            split_datasets=splits,
            description="Fashion-MNIST, from the files of Zalando Research.",
            data_dir=self.dir,
            disable_shuffling=True,
        )


def _examples(folder: Path, prefix: str) -> list[tuple[int, dict[str, Any]]]:
    images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    return [(i, {"image": images[i][..., None], "label": int(labels[i])}) for i in range(len(labels))]


def _read_idx(file: Path) -> np.ndarray:
    """uint8 [examples, ...]; raises DataCorrupt."""
    import numpy as np

    try:
        raw = gzip.decompress(file.read_bytes())
        digest = sha256_of(raw)
    except (OSError, EOFError, zlib.error) as error:
        digest, raw = first_line(error), b""
    if digest != _SHA256[file.name]:
        raise DataCorrupt(
            f"the unpacked file has the SHA-256 checksum {digest} and should have {_SHA256[file.name]}",
            where=str(file),
            fix="install dataset-fashion-mnist again, or point data.path at an undamaged copy",
        )
    magic, count = np.frombuffer(raw, ">i4", 2)
    shape = _PIXELS[int(magic)]
    return np.frombuffer(raw, np.uint8, offset=8 + 4 * len(shape)).reshape(int(count), *shape)
