"""What a report holds: figures, examples and what was compared, before they are a page.

Owns what of it is told as JSON. Refuses to know how figures are computed and what a page looks like.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tfscale.report.bootstrap import LEVEL, RESAMPLES
from tfscale.report.class_figures import ClassFigures
from tfscale.report.comparison import Comparison
from tfscale.report.language_figures import LanguageFigures
from tfscale.report.number_figures import NumberFigures
from tfscale.report.permutation_importance import Importance
from tfscale.report.raw_examples import Shown
from tfscale.report.slice_figures import Slices


@dataclass
class Error:
    """One of the worst errors.

    Attributes:
        facts: "label", "answer" and, of classes, their probabilities and the loss, or the residual.
    """

    name: str
    place: int
    facts: dict[str, Any]
    shown: Shown = field(default_factory=Shown)


@dataclass
class Report:
    """All that is told.

    Attributes:
        examples: of the split.
        figures: None where a comparison is all that is asked for.
        right: of pictures some that are answered right, beside whose saliency that of the errors can be seen.
        samples: what a language model writes: "prompt" and "text".
        remarks: what people should know of it, a sentence each.
    """

    names: list[str]
    examples: int
    figures: ClassFigures | NumberFigures | LanguageFigures | None
    worst: list[Error]
    slices: Slices | None = None
    importance: Importance | None = None
    comparison: Comparison | None = None
    remarks: list[str] = field(default_factory=list)
    right: list[Error] = field(default_factory=list)
    samples: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Its numbers, without what examples look like; JSON."""
        worst = [{"name": one.name, "place": one.place, **one.facts} for one in self.worst]
        bootstrap = {"resamples": RESAMPLES, "level": LEVEL, "seed": 0}
        figures = self.figures.to_dict() if self.figures else {}
        slices = {"slices": self.slices.to_dict()} if self.slices else {}
        told = {"examples": self.examples, **figures, "bootstrap": bootstrap, "worst": worst}
        importance = {"importance": self.importance.to_dict()} if self.importance else {}
        samples = {"samples": self.samples} if self.samples else {}
        return {**told, **slices, **importance, **samples, **self.compared()}

    def compared(self) -> dict[str, Any]:
        """ "against" of the JSON, where there is a comparison."""
        return {"against": self.comparison.to_dict()} if self.comparison else {}
