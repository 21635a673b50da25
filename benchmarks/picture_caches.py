"""What pictures that are held decoded, or were made smaller at their import, cost to read: CPU time of one thread.

    python -m benchmarks.picture_caches clothing10-256px.tar --report benchmarks/results/DATE-picture-caches.md

64 photos, as they are and enlarged to 1024 px (input.py), are cropped at random to 8-100 % of their area and
resized to 224 px, in batches of 32, by one process. Windows of one epoch of all ways follow each other in random order,
so that whatever else the machine does slows all of them, and nothing is prefetched, so that none pays for another;
figures are medians.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.input import photos_of
from benchmarks.input_loaders import BATCH, SIZE

PHOTOS, STEPS = 64, 2  # an epoch
OFF, FIRST, LATER = "not held", "held, first epoch", "held, later"
SCALED = "not held, scaled: true"


def main(words: Sequence[str] | None = None) -> int:
    made = argparse.ArgumentParser("python -m benchmarks.picture_caches", description=(__doc__ or "").splitlines()[0])
    made.add_argument("photos", type=Path)
    made.add_argument("--blocks", type=int, default=7, help="windows of each way")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--report", type=Path)
    options = made.parse_args(words)
    with tempfile.TemporaryDirectory() as scratch:
        ways: dict[tuple[str, str], Callable[[], float]] = {}
        for side in (0, 1024):
            folder = few(photos_of(options.photos, side, Path(scratch)), Path(scratch) / f"few{side}")
            ways |= ways_of(f"{side or 256} px", of_folder(folder))
        ways |= ways_of("1024 px, imported with shorter_side=512", imported(folder, 512))
        seconds = measured(ways, rounds=options.blocks, seed=options.seed)
    rows = [
        [photos, *(f"{BATCH * STEPS / seconds[photos, way]:,.0f}" for way in (OFF, SCALED, FIRST, LATER)),
         f"{seconds[photos, OFF] / seconds[photos, LATER]:.2f}"]
        for photos in dict.fromkeys(photos for photos, _ in ways)
    ]  # fmt: skip
    table = report.Table("Images per CPU second", ("photos", OFF, SCALED, FIRST, LATER, "later / not held"), rows)
    facts = [*report.surroundings(), f"method: {options.blocks} windows of {STEPS} steps of {BATCH} of each, medians"]
    report.publish(report.Report("Caches of pictures", facts, [table]), options.report)
    return 0


def few(folder: Path, target: Path) -> Path:
    for file in sorted(folder.rglob("*.jpg"))[:: max(1, len(list(folder.rglob("*.jpg"))) // PHOTOS)][:PHOTOS]:
        place = target / "train" / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    return target


def of_folder(folder: Path) -> Any:
    from tfscale.data.image_folder import ImageFolder

    return ImageFolder(path=str(folder), dir=str(folder / "dir"), verify=False, test_share=0.0)


def imported(folder: Path, side: int) -> Any:
    from tfscale.data.prepared import Prepared
    from tfscale.importer.dataset import import_data
    from tfscale.importer.import_request import ImportRequest
    from tfscale.importer.picture_sizes import PictureOptions

    asked = {"name": f"photos{side}", "dir": str(folder.parent / "data")}
    kept = ImportRequest(
        path=str(folder), split={"train": 1.0}, duplicates="keep", picture=PictureOptions(side), **asked
    )
    import_data(kept)
    source = Prepared(**asked)
    source.prepare()
    return source


def ways_of(photos: str, source: Any) -> dict[tuple[str, str], Callable[[], float]]:
    """What runs one epoch in each way, and returns its CPU seconds."""
    import tensorflow as tf
    from tfscale.recipes.resnet import ResNet

    from tfscale.cluster import Cluster
    from tfscale.data.held_pictures import HeldPictures
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import batches as batches_of
    from tfscale.hardware import probe
    from tfscale.plan.execution_plan import make_plan
    from tfscale.plan.request import PlanRequest

    plan = make_plan(probe(), Cluster(), PlanRequest(global_batch=BATCH))
    plan = dataclasses.replace(plan, input_threads=1, input_ram_bytes=0)

    def batches(held: HeldPictures | None, *, scaled: bool = False) -> Any:
        augment = [{"resized_crop": {"scaled": scaled}}, "flip"]
        task = ResNet(depth=50, image_size=SIZE, channels=3, num_classes=10, augment=augment)
        asked = dataclasses.replace(plan, decoded_ram_bytes=2**31 if held else 0)
        options = tf.data.Options()
        options.autotune.enabled = False  # it would prefetch
        options.threading.private_threadpool_size = 1
        dataset = batches_of(source, task, Portion("train", Shard(BATCH), training=True), asked, held)
        return iter(dataset.with_options(options))

    def epoch(of: Any, before: Callable[[], None] = lambda: None) -> Callable[[], float]:
        def run() -> float:
            before()
            began = time.process_time()
            for _ in range(STEPS):
                next(of)
            return time.process_time() - began

        return run

    fresh, full = HeldPictures(source, 3, 2**31), HeldPictures(source, 3, 2**31)
    found = {
        OFF: epoch(batches(None)),
        SCALED: epoch(batches(None, scaled=True)),
        FIRST: epoch(batches(fresh), fresh.release),
        LATER: epoch(batches(full)),
    }
    return {(photos, way): run for way, run in found.items()}


def measured(ways: dict[tuple[str, str], Callable[[], float]], *, rounds: int, seed: int) -> dict[Any, float]:
    """The median of the CPU seconds of each, after one epoch that is not counted."""
    order, seconds = random.Random(seed), {name: list[float]() for name in ways}
    for number in range(rounds + 1):
        for name in order.sample(list(ways), len(ways)):
            spent = ways[name]()
            if number:
                seconds[name].append(spent)
    return {name: statistics.median(spent) for name, spent in seconds.items()}


if __name__ == "__main__":
    raise SystemExit(main())
