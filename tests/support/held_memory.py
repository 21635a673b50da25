"""How a process's memory grows while decoded pictures are held, several times over: to be run as a program.

    python -m support.held_memory FOLDER     # of COUNT pictures, SIDE pixels a side; prints bytes, a JSON list

A process of its own, since pages that earlier tests gave back would be taken first, and would not be seen.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfscale.data.held_pictures import HeldPictures
    from tfscale.data.image_folder import ImageFolder

COUNT, SIDE, HELD, TIMES = 40, 768, 30, 4
SIZE = SIDE * SIDE * 3  # bytes of a picture


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def fill(source: ImageFolder, pictures: int) -> HeldPictures:
    import tensorflow as tf

    from tfscale.data.held_pictures import HeldPictures

    held = HeldPictures(source, 3, pictures * SIZE)
    parse, places = held.parse("train"), tf.data.Dataset.range(COUNT).map(lambda i: {"index": i})
    raw = source.read("train", tf.data.Dataset.range(COUNT).batch(COUNT), ram_bytes=0)
    examples = tf.data.Dataset.zip((places, raw)).map(parse, num_parallel_calls=2)
    assert sum(1 for _ in examples.map(lambda example: example["image"][0, 0])) == COUNT
    assert f"{pictures} of {COUNT} of train" in held.summary()
    return held


def main(folder: str) -> None:
    from tfscale.data.image_folder import ImageFolder

    source = ImageFolder(path=folder, dir=f"{folder}/dir", test_share=0.0, verify=False)
    fill(source, 2).release()
    before, grown = resident(), []
    for _ in range(TIMES):
        held = fill(source, HELD)
        grown.append(resident() - before)
        held.release()
    print(json.dumps(grown))


if __name__ == "__main__":
    main(sys.argv[1])
