"""Pictures in class folders: data=image_folder data.path=photos.

Owns the verification of the files, what is remembered of it, and reading by index. Refuses to know how pictures are cut
and augmented: they stay encoded until the task's preprocess.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from tfscale.data.folder_tree import Picture, Tree, read_flat, read_tree
from tfscale.data.index_file import one_writer, read_index, write_index, write_text
from tfscale.data.pictures import MAX_PIXELS, size_of_file
from tfscale.data.source import READING, Source
from tfscale.errors import DataCorrupt, DataMissing, UsageError
from tfscale.files import digest_of
from tfscale.hardware import probe

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

_log = logging.getLogger(__name__)

_LOOKED_AT = 1000  # pictures whose headers tell the size before they are verified
_TOLD = 10  # bad files in the error's text


@dataclass
class ImageFolder(Source):
    """Class folders directly under `path`, or folders of splits (train, test, validation by any of their usual names)
    with class folders.

    Without folders of splits, `test_share` of every class is held out, chosen by a hash of the file's name. A picture
    is what has such an ending or such a content; links are followed. Every picture is decoded once before training;
    what was found is remembered under `dir` and checked again only for files that changed.
    """

    places: ClassVar[tuple[str, ...]] = ("dir", "path")

    path: str = "???"  # the folder of class folders, or of folders of splits with these
    dir: str = "data"  # the folder that remembers which pictures were verified
    train_split: str = "train"  # the folder that is trained on, by any of its usual names
    # the folder that is evaluated; null: what is named test, else validation, else none
    test_split: Optional[str] = None
    test_share: float = 0.2  # share of every class that is held out without folders of splits; from 0, less than 1
    classes: Optional[list[str]] = None  # the class folders in order of their label; null: sorted
    channels: int = 3  # what pictures are read as: 1 (grey), 3 (RGB) or 4 (RGBA)
    verify: bool = True  # whether every picture is decoded once before training
    max_pixels: int = MAX_PIXELS  # the most a picture may have; a larger one counts as one that can't be decoded
    skip_bad: bool = False  # leaves out pictures that can't be decoded, instead of stopping

    # -- without TensorFlow

    def check(self) -> None:
        if not 0 <= self.test_share < 1:
            raise UsageError(
                f"{self.test_share} is no share of a class", where="data.test_share", fix="use a number from 0 to 0.9"
            )
        if self.channels not in (1, 3, 4):
            raise UsageError(
                f"no picture has {self.channels} channels",
                where="data.channels",
                fix="use 1 (grey), 3 (RGB) or 4 (RGBA)",
            )
        assert self._tree

    @cached_property
    def _tree(self) -> Tree:
        return read_tree(
            Path(self.path),
            train_split=self.train_split,
            test_split=self.test_split,
            test_share=self.test_share,
            classes=self.classes,
            before=self.reading < READING,
        )

    def spec(self) -> dict[str, int]:
        spec = {"num_classes": len(self._tree.classes)} if self._tree.classes else {}
        good = self._index()["good"]
        sizes = {tuple(good.get(picture.name, [0, 0, 0, 0])[2:]) for picture in self._good("train")}
        height, width = sizes.pop() if len(sizes) == 1 else (0, 0)
        return {**spec, "channels": self.channels, **({"image_size": height} if height == width > 0 else {})}

    def foreseen(self) -> dict[str, int]:
        spec, index = self.spec(), self._index()
        if not self._unverified(index):
            return spec
        sizes = {size_of_file(self._tree.root / picture.name) for picture in self._tree.splits["train"][:_LOOKED_AT]}
        height, width = sizes.pop() if len(sizes) == 1 else (0, 0)
        return {**spec, **({"image_size": height} if height == width > 0 else {})}

    def decoded_size(self) -> tuple[int, int] | None:
        index = self._index()
        if not self.verify or self._unverified(index):
            return None
        sizes = [index["good"][one.name][2:] for split in self._tree.splits for one in self._good(split)]
        return len(sizes), sum(height * width * self.channels for height, width in sizes)

    def class_names(self) -> tuple[str, ...] | None:
        return self._tree.classes or None

    def example_names(self, split: str) -> list[str]:
        return [picture.name for picture in self._good(split)]

    def count_bad(self, split: str) -> int:
        return len(self._tree.splits.get(split, [])) - len(self._good(split))

    def locate(self, split: str, place: int) -> str:
        return str(self._tree.root / self._good(split)[place].name)

    def num_examples(self, split: str) -> int:
        return len(self._good(split))

    def identity(self) -> dict[str, Any]:
        files = sorted((os.fsencode(p.name).hex(), p.size) for p in self._tree.pictures())
        reading = {} if self.reading == 1 else {"reading": self.reading}  # it had no name when there was only one
        return {**super().identity(), **reading, "files": digest_of(files)}

    def former(self) -> Source | None:
        if self.reading == 1:
            return None
        former = dataclasses.replace(self)
        former.reading = 1
        return former

    def contents(self) -> dict[str, Path]:
        return {p.name: self._tree.root / p.name for p in self._tree.pictures()} if self.verify else {}

    def remarks(self) -> list[str]:
        tree = self._tree
        found = [f"the class folders are those of {tree.entered}"] if tree.entered else []
        if {"train", "test"} == set(tree.splits) and not tree.by_split:
            found.append(f"the test split is held out of every class (data.test_share={self.test_share:g})")
        bad = sum(self.count_bad(split) for split in tree.splits)
        left_out = [*tree.left_out, *([f"{bad} picture{'s' * (bad > 1)} that can't be decoded"] if bad else [])]
        return found + ([f"left out: {', '.join(left_out)}"] if left_out else [])

    def unlabelled(self, path: str) -> Source:
        return UnlabelledPictures(
            path=path,
            dir=self.dir,
            channels=self.channels,
            verify=self.verify,
            max_pixels=self.max_pixels,
            skip_bad=self.skip_bad,
        )

    def is_prepared(self) -> bool:
        index = self._index()
        bad = any(picture.name in index["bad"] for picture in self._tree.pictures())
        return not self._unverified(index) and (self.skip_bad or not bad)

    # -- the index: {"good": {name: [size, modified, height, width]}, "bad": {name: [size, modified, reason]}}

    @property
    def _index_file(self) -> Path:
        root = self._tree.root.resolve()
        read_as = [
            os.fsencode(root).hex(),
            self.channels,
            self.max_pixels,
            *([] if self.reading == 1 else [self.reading]),
        ]
        name = f"{root.name}-{digest_of(read_as)[:12]}.index.json"
        return Path(self.dir) / name

    def _index(self) -> dict[str, dict[str, list]]:
        """What is known of the pictures; kept once it is complete, since a child process completes it."""
        if "_kept" not in self.__dict__:
            index = {"good": {}, "bad": {}, **(read_index(self._index_file) if self.verify else {})}
            if self._unverified(index):
                return index
            self.__dict__["_kept"] = index
        return self.__dict__["_kept"]

    def _unverified(self, index: dict[str, dict[str, list]]) -> list[Picture]:
        """The pictures of which nothing is known, or that have changed since."""
        if not self.verify or index is self.__dict__.get("_kept"):
            return []
        known = {name: entry[:2] for entries in index.values() for name, entry in entries.items()}
        return [p for p in self._tree.pictures() if known.get(p.name) != [p.size, p.modified]]

    def _good(self, split: str) -> list[Picture]:
        bad = self._index()["bad"]
        return [picture for picture in self._tree.splits.get(split, []) if picture.name not in bad]

    def __getstate__(self) -> dict[str, Any]:
        # another process looks for itself
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    # -- with TensorFlow

    def prepare(self) -> None:
        for kept in ("_kept", "_tree"):  # the child process or another run may have written since
            self.__dict__.pop(kept, None)
        if self._unverified(self._index()):
            with one_writer(Path(self.dir), self._index_file.name):
                index = self._index()
                pictures = self._unverified(index)  # another process may have verified them while we waited
                if pictures:
                    self._verify(pictures, index)
        self._report_bad()

    def _verify(self, pictures: list[Picture], index: dict[str, dict[str, list]]) -> None:
        """Decodes the pictures and writes the index, with the bad ones too: next time they are known at once."""
        from tfscale.data.pictures import verify_pictures

        threads = max(1, int(probe().cores))
        files = [self._tree.root / picture.name for picture in pictures]
        read_as: dict[str, int] = {"channels": self.channels, "max_pixels": self.max_pixels, "reading": self.reading}
        found = verify_pictures(files, threads=threads, **read_as)
        for picture, result in zip(pictures, found, strict=True):
            good = not isinstance(result, str)
            index["bad" if good else "good"].pop(picture.name, None)
            entry = [picture.size, picture.modified, *result] if good else [picture.size, picture.modified, result]
            index["good" if good else "bad"][picture.name] = entry
        write_index(self._index_file, index)

    def _report_bad(self) -> None:
        """Raises for pictures that can't be decoded, or says that they are left out."""
        index = self._index()
        bad = {p.name: index["bad"][p.name][2] for p in self._tree.pictures() if p.name in index["bad"]}
        if not bad:
            return
        told = "; ".join(f"{name} ({reason})" for name, reason in list(bad.items())[:_TOLD])
        more = f"; and {len(bad) - _TOLD} more" if len(bad) > _TOLD else ""
        left = all(self._good(split) for split in self._tree.splits)
        if not self.skip_bad or not left:
            raise DataCorrupt(
                f"{len(bad)} of {len(self._tree.pictures())} pictures can't be used: {told}{more}",
                where=str(self._tree.root),
                fix="remove them, or data.skip_bad=true" if left else "replace them",
            )
        listed = self._index_file.with_name(f"{self._index_file.name.removesuffix('.json')}.bad_files.txt")
        write_text(listed, "".join(f"{name}\t{reason}\n" for name, reason in bad.items()))
        if not self.__dict__.get("_said"):
            _log.warning(f"{len(bad)} pictures can't be used and are left out: {listed}")
            self.__dict__["_said"] = True

    def class_labels(self, split: str) -> np.ndarray | None:
        import numpy as np

        return np.array([p.label for p in self._good(split)], np.int64) if self._tree.classes else None

    def stored_bytes(self, split: str) -> np.ndarray | None:
        import numpy as np

        return np.array([picture.size for picture in self._good(split)], np.int64)

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        import tensorflow as tf

        from tfscale.autograph import no_autograph

        pictures = self._good(split)
        with tf.device("CPU:0"):  # an accelerator's memory is for the model
            labels = tf.constant([picture.label for picture in pictures], tf.int64)
            files = tf.constant([os.fsencode(self._tree.root / picture.name) for picture in pictures])
        if sum(picture.size for picture in pictures) <= ram_bytes:
            key, column = "image", self._load_all(split, files)
        else:
            key, column = "file", files  # read by parse, which the pipeline runs in parallel

        @no_autograph
        def at(some):
            label = {"label": tf.gather(labels, some)} if self._tree.classes else {}
            return {key: tf.gather(column, some), **label}

        return indices.map(at).unbatch()

    def _load_all(self, split: str, files: tf.Tensor) -> tf.Tensor:
        """The encoded bytes of all files: string [files]; kept, since evaluation comes again and again."""
        import tensorflow as tf

        held = self.__dict__.setdefault("_held", {})
        if split not in held:
            threads = max(2, int(probe().cores))  # reading waits for the disk
            dataset = tf.data.Dataset.from_tensor_slices(files).map(tf.io.read_file, threads, deterministic=True)
            try:
                held[split] = next(iter(dataset.batch(len(files))))
            except tf.errors.OpError as error:
                raise DataMissing(
                    f"a picture can't be read: {str(error).splitlines()[0]}",
                    where=str(self._tree.root),
                    fix="the folder changed since it was verified: start again",
                ) from None
        return held[split]

    def parse(self, raw: Any) -> dict[str, Any]:
        import tensorflow as tf

        example = dict(raw)
        if "file" in example:
            example["image"] = tf.io.read_file(example.pop("file"))
        return example


@dataclass
class UnlabelledPictures(ImageFolder):
    """All pictures of a folder, nested or flat, as the split "test"; their field "label" is absent."""

    def class_names(self) -> None:
        return None

    @cached_property
    def _tree(self) -> Tree:
        return read_flat(Path(self.path), before=self.reading < READING)
