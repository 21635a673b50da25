"""Tracker: the interface, and the one that does nothing.

Trackers receive Python floats that are already reduced, never tensors. A worker that isn't the chief gets NullTracker,
so that no call needs to ask who calls.

    tracker = tracker_spec.open(run_dir=path, root=root, name="resnet/1a2b")
    tracker.params({"train.global_batch": 64})
    tracker.metrics({"loss": 0.3}, step=100)
    tracker.artifact(path)
    tracker.close("FINISHED")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """What the engine asks of a tracker. No method may block training or raise into it."""

    @property
    def run_id(self) -> str | None: ...

    def params(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def artifact(self, path: Path) -> None: ...

    def dataset(self, name: str, digest: str, *, source: str, profile: Mapping[str, Any]) -> None:
        """What the run is trained on: its kind, a digest that tells it from others, where it lies ("" where that says
        nothing) and how much of it there is."""
        ...

    def page(self) -> list[str]:
        """Lines for people that open the run; [] where there is nothing to open."""
        ...

    def close(self, status: str) -> None: ...


class NullTracker:
    """Takes everything and keeps nothing."""

    run_id: str | None = None

    def params(self, values: Mapping[str, Any]) -> None:
        pass

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        pass

    def artifact(self, path: Path) -> None:
        pass

    def dataset(self, name: str, digest: str, *, source: str, profile: Mapping[str, Any]) -> None:
        pass

    def page(self) -> list[str]:
        return []

    def close(self, status: str) -> None:
        pass


class TrackerSpec(Protocol):
    """The configured tracker: a dataclass that opens a Tracker."""

    def check(self) -> None: ...

    def open(self, *, run_dir: Path, root: Path, name: str) -> Tracker:
        """Args: the run's folder; a folder that runs share; the name of a new run, "" to join the run that this folder
        already has, beside the process that began it. Raises IOFailure where tracking is required and can't be had."""
        ...

    def deliver(self, *, run_dir: Path, root: Path) -> None:
        """Tells the tracker what a finished run could not; does nothing where nothing is owed."""
        ...


@dataclass
class NoTracker:
    """tracker=none"""

    def check(self) -> None:
        pass

    def open(self, *, run_dir: Path, root: Path, name: str) -> Tracker:
        return NullTracker()

    def deliver(self, *, run_dir: Path, root: Path) -> None:
        pass
