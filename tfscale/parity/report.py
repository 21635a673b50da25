"""What a parity check found: relative differences, which of them are judged, and the table that shows them.

Owns the tolerances and the verdict. Refuses to know how the numbers were made.

    row = compare(reference, run, layout="2", title="2 replicas", precision="float64")
    report = Report(..., rows=(row,))
    report.holds, report.table()
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.console import columns, table

if TYPE_CHECKING:
    import numpy as np

_NOTHING = 1e-6  # root mean square of a variable that counts as zero, such as a bias in front of BatchNorm


@dataclass(frozen=True)
class Tolerance:
    """The largest relative differences that hold; None is not judged."""

    loss: float
    norm: float | None = None
    variables: float | None = None

    def __str__(self) -> str:
        told = dataclasses.asdict(self).items()
        return ", ".join(f"{name} {value:g}" for name, value in told if value is not None)


# Of a right answer, over 20 steps. Rounding differs between layouts, since sums are taken in another order.
TOLERANCES = {"float64": Tolerance(1e-10, 1e-8, 1e-8), "float32": Tolerance(1e-5)}


@dataclass(frozen=True)
class Run:
    """The numbers of one layout in one precision.

    Attributes:
        losses, norms: of every step, float64 [steps]; the norm is that of the reduced gradients before clipping.
        variables: of the model after the last step, in its order.
        names: theirs.
        traces: how often each compiled function was traced.
        batch_norm: names of the BatchNorm layers.
        start: a fingerprint of the variables before the first step.
        problem: (what, fix) where the model can't be compared, and nothing was trained; else empty.
    """

    losses: np.ndarray
    norms: np.ndarray
    variables: list[np.ndarray]
    names: list[str]
    traces: dict[str, int]
    batch_norm: list[str]
    start: str
    problem: list[str]

    @classmethod
    def read(cls, file: Path) -> Run:
        """What a worker wrote."""
        import numpy as np

        with np.load(file, allow_pickle=False) as stored:
            facts = json.loads(str(stored["facts"]))
            variables = [stored[f"v{i}"] for i in range(len(facts["names"]))]
            return cls(losses=stored["losses"], norms=stored["norms"], variables=variables, **facts)


@dataclass(frozen=True)
class Row:
    """One layout in one precision, against one replica in the same precision.

    Attributes:
        loss, norm: the largest relative difference over the steps.
        variables: the largest relative L2 difference of a variable at the end, and `variable`, its name.
        traces: how often each compiled function was traced; more than once fails the row.
        same_start: whether both began with the same bits.
        tolerance: None where the numbers are shown and not judged.
        why_not: why they aren't.
        is_reference: whether this is the one replica.
    """

    layout: str
    title: str
    precision: str
    loss: float
    norm: float
    variables: float
    variable: str
    traces: dict[str, int]
    same_start: bool = True
    tolerance: Tolerance | None = None
    why_not: str = ""
    is_reference: bool = False

    @property
    def failures(self) -> list[str]:
        """What doesn't hold, in words."""
        found = [] if self.same_start else ["the first weights differ: train.seed doesn't seed what draws them"]
        found += [f"{name} was traced {count} times" for name, count in self.traces.items() if count > 1]
        if self.tolerance is not None:
            for name in ("loss", "norm", "variables"):
                value, most = getattr(self, name), getattr(self.tolerance, name)
                if most is not None and not value <= most:
                    where = f" in {self.variable}" if name == "variables" else ""
                    found.append(f"{name} differs by {value:.1e}{where}, more than {most:g}")
        return found

    @property
    def verdict(self) -> str:
        if self.failures:
            return "FAILS"
        if self.is_reference:
            return "reference"
        if self.tolerance is not None:
            return "holds"
        return "not comparable" if self.why_not else "shown"


@dataclass(frozen=True)
class Report:
    """What a parity check found.

    Attributes:
        steps, global_batch: what was trained.
        rows: the reference of each precision, and the layouts.
        notes: what people should know of it.
        problem: (what, fix) where the model can't be compared at all; else empty.
    """

    recipe: str
    steps: int
    global_batch: int
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    problem: tuple[str, ...] = field(default=())

    @property
    def holds(self) -> bool:
        """Whether something was judged and all of it holds."""
        return not self.problem and not self.failures and any(row.tolerance for row in self.rows)

    @property
    def failures(self) -> list[str]:
        return [f"{row.title} in {row.precision}: {text}" for row in self.rows for text in row.failures]

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.problem:
            return f"not comparable: {self.problem[0]}"
        if self.failures:
            return f"{len(self.failures)} differences: {self.failures[0]}"
        judged = sum(row.tolerance is not None for row in self.rows)
        return f"all {judged} judged rows hold" if judged else "nothing could be judged"

    def to_dict(self) -> dict[str, Any]:
        rows = [{**dataclasses.asdict(row), "verdict": row.verdict, "failures": row.failures} for row in self.rows]
        return {**dataclasses.asdict(self), "rows": rows, "holds": self.holds, "verdict": self.verdict}

    def table(self) -> str:
        """For people: the rows, the notes, the verdict and what else doesn't hold."""
        rows = []
        for row in self.rows:
            numbers = ["-" if row.is_reference else f"{value:.1e}" for value in (row.loss, row.norm, row.variables)]
            rows.append((row.title, row.precision, *numbers, row.verdict))
        heads = ("layout", "precision", "loss", "norm", "variables", "verdict")
        title = f"parity of {self.recipe}: {self.steps} steps of {self.global_batch} examples against 1 replica"
        judged = dict.fromkeys(row.precision for row in self.rows if row.tolerance)
        told = [f"tolerance in {precision}: {TOLERANCES[precision]}" for precision in judged]
        told += [*(f"note: {note}" for note in self.notes), self.verdict, *self.failures[1:]]
        shown = [table(rows, heads, title=title, whole=range(1, 6))] if rows else []
        return "\n".join([*shown, *(textwrap.fill(line, columns()) for line in told)]) + "\n"


def compare(reference: Run, run: Run, **about: Any) -> Row:
    """The row of a run against the reference; `about`: further fields of Row."""
    import numpy as np

    def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            difference = np.where(ours == theirs, 0.0, np.abs(ours - theirs) / np.abs(theirs))
        return float(np.max(np.nan_to_num(difference, nan=np.inf)))

    worst, name = 0.0, "-"
    for ours, theirs, path in zip(run.variables, reference.variables, reference.names, strict=True):
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        size = max(float(np.linalg.norm(theirs)), _NOTHING * theirs.size**0.5)
        difference = float(np.nan_to_num(np.linalg.norm(ours - theirs) / size, nan=np.inf))
        if difference > worst:
            worst, name = difference, path
    return Row(
        loss=relative(run.losses, reference.losses),
        norm=relative(run.norms, reference.norms),
        variables=worst,
        variable=name,
        traces=run.traces,
        same_start=run.start == reference.start,
        **about,
    )
