"""What is requested of the plan, and how its decisions are collected with their reasons.

Owns the request and the collector that the plan's parts share. Refuses to decide anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tfscale.config import optimizer_keys as optimizers
from tfscale.config.schema import PlanConfig, RunConfig
from tfscale.task import Footprint

GIB = 2**30


@dataclass(frozen=True)
class PlanRequest:
    """What the run requests of the plan.

    Attributes:
        global_batch: examples per step over all replicas.
        accumulate: micro-batches per step, or None to let memory decide.
        optimizer_slots: variables that the optimizer keeps per parameter.
        footprint: the recipe's cost, or None if it isn't known.
        precision: the dtype policy that the model was built with, or None: it follows the plan's.
        keeps_precision: it is a user's own Keras model, whose precision plan.precision alone changes.
        counted: the footprint was counted from the built model, and not declared.
        reduces_inside: the model itself reduces over replicas, as synchronised BatchNorm does.
        forced: the `plan.*` overrides.
        decoded: how many pictures the data have, and the bytes that all of them take decoded; None: it isn't known.
        uneven: a step need not divide by the replicas.
    """

    global_batch: int
    accumulate: int | None = None
    optimizer_slots: int = 1
    footprint: Footprint | None = None
    precision: str | None = None
    keeps_precision: bool = False
    counted: bool = False
    reduces_inside: bool = False
    forced: PlanConfig = field(default_factory=PlanConfig)
    uneven: bool = False
    decoded: tuple[int, int] | None = None

    @classmethod
    def of(cls, config: RunConfig, task: Any, *, footprint: Footprint | None, forced: PlanConfig) -> PlanRequest:
        """What a run requests with this configuration and its task (a tfscale.Task)."""
        return cls(
            global_batch=config.train.global_batch,
            accumulate=config.train.accumulate,
            optimizer_slots=optimizers.slots(vars(config.optimizer)),
            footprint=footprint,
            precision=task.fixed_precision,
            keeps_precision=task.keeps_precision,
            counted=footprint is not None and task.footprint() is None,
            reduces_inside=task.reduces_inside,
            forced=forced,
            uneven=config.data.shares_unevenly,
            decoded=config.data.decoded_size(),
        )


@dataclass(frozen=True)
class Advised:
    """What the plan leaves to the user, because it changes numbers or memory.

    Attributes:
        override: that does it.
        times: how many times as fast matrix products become at most; None where it saves something else.
    """

    override: str
    times: float | None = None


class Decisions:
    """Collects values with their reasons; a forced value always wins and says so.

    Attributes:
        advised: by the name of what is decided, what would be better where the user wants it.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}
        self.advised: dict[str, Advised] = {}

    def set(self, name: str, value: Any, reason: str) -> Any:
        self.values[name], self.reasons[name] = value, reason
        return value

    def choose(self, name: str, forced: Any, decide: Callable[[], tuple[Any, str]]) -> Any:
        if forced is not None:
            return self.set(name, forced, f"forced by plan.{name}")
        return self.set(name, *decide())


def show(name: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if "bytes" in name:
        return f"{value / GIB:.2f} GiB" if value >= GIB else f"{value / 2**20:.1f} MiB"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
