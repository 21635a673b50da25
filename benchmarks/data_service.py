"""How long a trainer waits for batches that data workers make, with one data worker and with two.

    python -m benchmarks.data_service --blocks 8 --steps 60

The source waits before each batch, as for remote storage, and computes next to nothing, so that two cores don't stand
in the way: what a second data worker adds is what it reads beside the first. The trainer takes batches as fast as they
come; the wait of a step is the time between two of them. Real processes on 127.0.0.1: a dispatcher with one data
worker, and another with two. Blocks alternate (ABBA); the ratio is that of the medians of neighbouring blocks, its
interval a bootstrap's. A step without a service is beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from tfscale.cluster import Cluster
from tfscale.data.order import Portion, Shard
from tfscale.data.pipeline import build_dataset
from tfscale.data.served import DataService
from tfscale.data.source import Source
from tfscale.hardware import probe
from tfscale.plan.execution_plan import make_plan
from tfscale.plan.request import PlanRequest
from tfscale.task import Task

BATCH, WARM_UP = 32, 8
ROW = "| {:<28} | {:>12} | {:>22} |"


@dataclass
class Remote(Source):
    """Examples that come after a wait for each step, as from remote storage."""

    wait: float = 0.1  # seconds

    def num_examples(self, split: str) -> int:
        return 10_000

    def read(self, split: str, indices: tf.data.Dataset, *, ram_bytes: int) -> tf.data.Dataset:
        after = tf.raw_ops.SleepDataset(
            input_dataset=tf.data.experimental.to_variant(indices),
            sleep_microseconds=tf.constant(int(self.wait * 1e6), tf.int64),
            output_types=[tf.int64],
            output_shapes=[[BATCH]],
        )
        return tf.data.experimental.from_variant(after, indices.element_spec).unbatch()

    def parse(self, raw: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"x": tf.fill([64, 64, 3], tf.cast(raw % 255, tf.float32)), "label": raw % 10}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=8, help="of each kind")
    parser.add_argument("--steps", type=int, default=60, help="of a block")
    parser.add_argument("--wait", type=float, default=0.1, help="seconds before each batch")
    options = parser.parse_args(words)
    plan = make_plan(probe(), Cluster(), PlanRequest(BATCH))
    source, portion = Remote(options.wait), Portion("train", Shard(BATCH), True)
    own = _waits(build_dataset(source, Task(), portion, plan), options.steps)
    blocks: dict[int, list[float]] = {1: [], 2: []}
    with _served(1) as one, _served(2) as two:
        addresses = {1: one, 2: two}
        for number in range(options.blocks):
            for count in (1, 2) if number % 2 == 0 else (2, 1):
                service = DataService(addresses[count], timeout=120.0)
                blocks[count].append(_waits(service.dataset(source, Task(), portion, plan), options.steps))
    ratios = np.asarray(blocks[2]) / np.asarray(blocks[1])
    draws = np.random.RandomState(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    print(ROW.format("batches made by", "ms a step", "to one data worker"))
    print(ROW.format("---", "---", "---"))
    print(ROW.format("the trainer itself", f"{1000 * own:.1f}", ""))
    for count, waits in blocks.items():
        ratio = f"{np.median(ratios):.3f} [{low:.3f}, {high:.3f}]" if count == 2 else ""
        print(ROW.format(f"data workers: {count}", f"{1000 * statistics.median(waits):.1f}", ratio))


def _waits(dataset: tf.data.Dataset, steps: int) -> float:
    """The mean seconds of a step, behind the first ones."""
    batches = iter(dataset)
    for _ in range(WARM_UP):
        next(batches)
    began = time.monotonic()
    for _ in range(steps):
        next(batches)
    return (time.monotonic() - began) / steps


@contextlib.contextmanager
def _served(workers: int) -> Iterator[str]:
    """The address of a dispatcher with so many data workers."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    address, serve = f"127.0.0.1:{port}", [sys.executable, "-m", "tfscale.data_service", "host=127.0.0.1"]
    words = [[f"port={port}"], *([[f"dispatcher={address}"]] * workers)]
    processes = [subprocess.Popen([*serve, *more]) for more in words]
    try:
        while not _has(address, workers):
            time.sleep(0.5)
        yield address
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _has(address: str, workers: int) -> bool:
    """Whether as many data workers have come: each makes its own copy of a data set without sharding."""
    service = tf.data.experimental.service
    DataService(address, timeout=120.0).wait()
    copies = tf.data.Dataset.range(1).apply(
        service.distribute(service.ShardingPolicy.OFF, f"grpc://{address}", compression=None, target_workers="ANY")
    )
    return sum(1 for _ in copies) == workers


if __name__ == "__main__":
    main()
