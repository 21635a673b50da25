"""What the contestants of `accuracy.py` train, and how a training is told: when it had which accuracy.

Owns the sizes, and the way of numbers from a contestant's process. Needs the standard library alone.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

MOMENTUM, WEIGHT_DECAY, SMOOTHING = 0.9, 5e-4, 0.1  # those of +recipe=resnet
BATCH, LEARNING_RATE = 32, 0.05  # half of the recipe's, so that fewer epochs have as many steps


@dataclass(frozen=True)
class Trial:
    """A ResNet on the digits, evaluated again and again.

    Attributes:
        evaluations: how many there are, the last one behind the last step.
        steps: between two of them; 0: an epoch.
        bar: the accuracy of the test split that is to be reached.
    """

    depth: int
    width: int
    evaluations: int
    steps: int
    bar: float

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    def until(self, evaluations: int) -> str:
        """So many evaluations as a duration of tfscale's."""
        return f"{evaluations * self.steps}st" if self.steps else f"{evaluations}ep"


FULL = Trial(depth=20, width=16, evaluations=10, steps=0, bar=0.98)
QUICK = Trial(depth=8, width=4, evaluations=2, steps=2, bar=0.0)


@dataclass(frozen=True)
class Curve:
    """One training.

    Attributes:
        points: (seconds since its first step began, accuracy of the test split) of each evaluation.
        parameters: trainable ones.
    """

    points: tuple[tuple[float, float], ...]
    parameters: int
    precision: str
    how: str

    @property
    def final(self) -> float:
        return self.points[-1][1]

    @property
    def best(self) -> float:
        return max(accuracy for _, accuracy in self.points)

    def seconds_to(self, bar: float) -> float | None:
        """Until the end of the first evaluation that was so good; None where none was."""
        return next((seconds for seconds, accuracy in self.points if accuracy >= bar), None)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Curve:
        told = json.loads(text)
        return cls(**{**told, "points": tuple(map(tuple, told["points"]))})
