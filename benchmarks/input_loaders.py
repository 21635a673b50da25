"""The contestants of input.py: each reads photos of a folder, and gives batches of random-resized crops, on one core.

Every function runs in a process of its own and takes that folder. Those of the peers import nothing of tfscale, since
they run in an environment of their own (input_peers.txt). Nothing is prefetched, which brings nothing on one core:
it would be made between two windows, and be in neither's time.
"""

from __future__ import annotations

import importlib.metadata
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import Work

BATCH, SIZE = 32, 224
CHUNK = 4  # steps between two looks at the clock
LEAST_AREA, MIRRORED = 0.08, 0.5


def _confined(folder: str) -> list[str]:
    """The photos; confines this process to one core, before anything counts cores."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    return sorted(str(file) for file in Path(folder).rglob("*.jpg"))


def _work(batches: Iterator[Any], how: str) -> Work:
    def run(steps: int) -> None:
        for _ in range(steps):
            next(batches)

    return Work(run, CHUNK, {"how": how})


def ours(folder: str) -> Work:
    """What +recipe=resnet50_imagenet reads, with scaled decoding and by the plan for one core; from files each time, as
    the others do."""
    return _work(our_batches(folder, prefetch=0), "uint8; resized_crop, flip drawn for the device")


def our_batches(folder: str, *, prefetch: int | None = None) -> Iterator[Any]:
    """Args: prefetch: None: as the plan says."""
    _confined(folder)
    import dataclasses
    import tempfile

    from tfscale.recipes.resnet import ResNet

    from tfscale.cluster import Cluster
    from tfscale.data.image_folder import ImageFolder
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset
    from tfscale.hardware import probe
    from tfscale.plan.execution_plan import make_plan
    from tfscale.plan.request import PlanRequest
    from tfscale.runtime import global_state as runtime

    source = ImageFolder(path=folder, dir=tempfile.mkdtemp(), verify=False, test_share=0.0)
    task = ResNet(
        depth=50, image_size=SIZE, channels=3, num_classes=10, augment=[{"resized_crop": {"scaled": True}}, "flip"]
    )
    plan = make_plan(probe(), Cluster(), PlanRequest(global_batch=BATCH, footprint=task.footprint()))
    runtime.apply(plan, seed=0)
    plan = dataclasses.replace(plan, input_ram_bytes=0, prefetch=plan.prefetch if prefetch is None else prefetch)
    return iter(build_dataset(source, task, Portion("train", Shard(BATCH), training=True), plan))


def plain(folder: str) -> Work:
    """tf.data as TensorFlow's guides write it: whole pictures decoded, cropped and resized as float32."""
    files = _confined(folder)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    dataset = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files)).repeat()
    dataset = dataset.map(lambda file: plain_crop(file, SIZE, LEAST_AREA), num_parallel_calls=1).batch(
        BATCH, drop_remainder=True
    )
    return _work(iter(dataset), "float32; decode_jpeg, sample_distorted_bounding_box, slice, resize, flip")


def plain_crop(file: Any, size: int, least_area: float) -> Any:
    """A random-resized crop of the photo, mirrored or not, float32 [size, size, 3], by TensorFlow's own functions."""
    import tensorflow as tf

    image = tf.io.decode_jpeg(tf.io.read_file(file), channels=3)
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([1, 0, 4]),
        min_object_covered=0.0,
        area_range=(least_area, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        use_image_if_no_bounding_boxes=True,
    )
    image = tf.image.resize(tf.slice(image, begin, extent), [size, size])
    return tf.ensure_shape(tf.image.random_flip_left_right(image), [size, size, 3])


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def _torch_loader(files: list[str], load: Any) -> Iterator[Any]:
    import torch

    torch.set_num_threads(1)

    class Photos(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, place: int) -> Any:
            return load(files[place])

    return _endless(torch.utils.data.DataLoader(Photos(), BATCH, shuffle=True, drop_last=True))


def torch_pillow(folder: str) -> Work:
    """DataLoader with Pillow, as torchvision's references have it: in this process, since there is one core."""
    files = _confined(folder)
    import numpy as np
    import torch
    from PIL import Image

    rng = np.random.default_rng(0)

    def load(file: str) -> Any:
        image = Image.open(file).convert("RGB")
        top, left, height, width = _window(image.height, image.width, rng)
        box = (left, top, left + width, top + height)
        image = image.crop(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < MIRRORED else image
        return torch.from_numpy(np.array(image))

    return _work(_torch_loader(files, load), f"{_version('torch')}; uint8; {_version('pillow')}, no worker process")


def torch_opencv(folder: str) -> Work:
    """DataLoader with what is fastest of what it can be given."""
    files = _confined(folder)
    import numpy as np
    import torch

    load, rng = _with_opencv(), np.random.default_rng(0)
    batches = _torch_loader(files, lambda file: torch.from_numpy(np.ascontiguousarray(load(file, rng))))
    return _work(batches, f"{_version('torch')}; uint8; simplejpeg, OpenCV, no worker process")


def _with_opencv() -> Callable[[str, Any], Any]:
    """Whole pictures by libjpeg-turbo, crops resized by OpenCV, both faster than Pillow."""
    import cv2
    import simplejpeg

    cv2.setNumThreads(1)

    def load(file: str, rng: Any) -> Any:
        image = simplejpeg.decode_jpeg(Path(file).read_bytes())
        top, left, height, width = _window(image.shape[0], image.shape[1], rng)
        crop = cv2.resize(image[top : top + height, left : left + width], (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        return crop[:, ::-1] if rng.random() < MIRRORED else crop

    return load


def _version(name: str) -> str:
    return f"{name} {importlib.metadata.version(name)}"


def grain(folder: str) -> Work:
    """Grain with the same, in its thread."""
    files = _confined(folder)
    import grain.python as pygrain

    photos = pygrain.MapDataset.source(files).seed(0).shuffle().repeat().random_map(_with_opencv())
    batches = photos.to_iter_dataset(pygrain.ReadOptions(num_threads=1, prefetch_buffer_size=1)).batch(BATCH)
    return _work(iter(batches), f"{_version('grain')}; uint8; simplejpeg, OpenCV, one thread")


def _window(height: int, width: int, rng: Any) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop.get_params."""
    for _ in range(10):
        area = height * width * rng.uniform(LEAST_AREA, 1.0)
        ratio = 2.718281828 ** rng.uniform(-0.2876820724517809, 0.2876820724517809)
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def libjpeg(folder: str) -> Work:
    """The limit: libjpeg-turbo decodes whole pictures, and nothing else is done."""
    files = _confined(folder)
    import simplejpeg

    random.Random(0).shuffle(files)
    contents = [Path(file).read_bytes() for file in files[:1000]]

    def batches() -> Iterator[None]:
        place = 0
        while True:
            for _ in range(BATCH):
                simplejpeg.decode_jpeg(contents[place % len(contents)])
                place += 1
            yield None

    return _work(batches(), f"{_version('simplejpeg')}: whole pictures decoded, no more")
