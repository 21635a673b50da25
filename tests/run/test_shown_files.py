"""What a task leaves for people at the end of a run: `Task.leaves`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from support.tiny_run import Classify, fit_tiny

from tfscale.tracking.tracker import NullTracker


@dataclass
class Leaving(Classify):
    def leaves(self, model):
        return {"bias.npy": np.asarray(model.get_layer("out").bias).tobytes(), "about.txt": b"two files"}


@dataclass
class Keeping:
    """A tracker that keeps the names of what it is given."""

    artifacts: list[Path] = field(default_factory=list)

    def check(self):
        pass

    def open(self, *, run_dir, root, name):
        tracker = NullTracker()
        tracker.artifact = self.artifacts.append
        return tracker

    def deliver(self, *, run_dir, root):
        pass


def test_files_of_the_averaged_weights_are_left_and_tracked(tf, tmp_path):
    tracker = Keeping()
    _, said, folder = fit_tiny(tmp_path / "averaged", task=Leaving(), tracker=tracker, train={"ema": 0.9})
    files = [folder / "shown" / name for name in ("bias.npy", "about.txt")]
    assert f"shown: {files[0]}, {files[1]}" in said
    assert set(files) < set(tracker.artifacts)
    assert files[1].read_bytes() == b"two files"
    same, raw = (
        fit_tiny(tmp_path / name, task=Leaving(), train={"ema": ema})[2] for name, ema in (("same", 0.0), ("raw", None))
    )
    left = [np.frombuffer((one / "shown" / "bias.npy").read_bytes(), np.float32) for one in (folder, same, raw)]
    assert (left[1] == left[2]).all() and (left[0] != left[2]).all()  # averages change nothing of a training


def test_a_run_that_leaves_nothing_has_no_such_folder(tf, tmp_path):
    _, said, folder = fit_tiny(tmp_path, train={"until": "2st"})
    assert not (folder / "shown").exists() and "shown:" not in said
