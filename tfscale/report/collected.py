"""What a run says about a split, in one pass, as what it is: classes with probabilities, or numbers; else refused.

Owns which kinds of answers a report is of. Refuses to know what is computed of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfscale.errors import DataCorrupt, UsageError
from tfscale.report.report_request import WHERE
from tfscale.trained.predictions import AnsweredStep, answered_steps, refuse_bad
from tfscale.trained.restored_run import RestoredRun

# By the name of an answer: what the task does, and what tells of it in the place of a report.
_OTHERS = {
    "labels": ("gives each example several labels", "tfscale evaluate by itself has their F1 and AUC"),
    "boxes": ("finds boxes", "tfscale evaluate by itself has the mean average precision"),
    "mask": ("draws masks", "tfscale evaluate by itself has the IoU"),
    "tokens": ("is a language model", "tfscale evaluate by itself has its loss and perplexity"),
    "token_ids": ("is a language model", "tfscale evaluate by itself has its loss and perplexity"),
    "image": ("makes pictures", "look at those in the folder shown/ of the run"),
}


class NoReport(UsageError):
    """A report isn't of what this task answers."""


@dataclass(frozen=True)
class Classified:
    """Classes.

    Attributes:
        places: of the examples in the split: int64 [examples].
        names: of the classes.
        label, answer: classes: int64 [examples].
        probabilities: float [examples, classes].
    """

    places: np.ndarray
    names: list[str]
    label: np.ndarray
    answer: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Measured:
    """Numbers.

    Attributes:
        places: of the examples in the split: int64 [examples].
        label, answer: float64 [examples].
    """

    places: np.ndarray
    label: np.ndarray
    answer: np.ndarray


def collect(run: RestoredRun, split: str, where: str = WHERE) -> Classified | Measured:
    """One pass over a split.

    Args:
        where: the option that asks for it, for errors.

    Raises:
        NoReport: a report isn't of what this task answers; found in the first step.
        UsageError: the data have no labels.
        DataMissing, DataCorrupt: the split, its examples or their labels.
    """
    run.num_examples(split)
    refuse_bad(run, split)
    pieces: list[dict[str, np.ndarray]] = []
    for step in answered_steps(run, split):
        fields = plain_fields(run, step, where)
        if len(step.places):
            pieces.append({"places": step.places, **fields})
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    _refuse_not_finite(joined)
    if "probabilities" not in joined:
        return Measured(**{name: joined[name] for name in ("places", "label", "answer")})
    count = joined["probabilities"].shape[1]
    names = [str(name) for name in run.class_names or range(count)]
    if len(names) != count:
        names = [str(number) for number in range(count)]
    found = Classified(names=names, **joined)
    if wrong := set(np.unique(found.label)) - set(range(count)):
        raise DataCorrupt(
            f"{min(wrong)} is a label, and the model knows the classes 0 to {count - 1}",
            where="data",
            fix="leave such examples out, or number their classes as the training's data did",
        )
    return found


def plain_fields(run: RestoredRun, step: AnsweredStep, where: str) -> dict[str, np.ndarray]:
    """Label and answer, of classes with probabilities."""
    answers = step.answers
    for name, (does, instead) in _OTHERS.items():
        if name in answers:
            raise NoReport(f"{_task(run)} {does}, of which there is no report or comparison", where=where, fix=instead)
    probabilities = _probabilities(run, answers)
    value = answers.get("value", answers.get("output")) if "class" not in answers else None
    value = _single(value)
    if probabilities is None and value is None:
        raise NoReport(
            f"{_task(run)} answers {', '.join(answers)}, and a report or comparison is of one class or one number",
            where=where,
            fix='answer "class" and "probabilities" in predict(model, batch), or "value", for one number',
        )
    if step.label is None:
        raise UsageError(
            "the data have no labels to compare the answers with, or several fields with them",
            where=where,
            fix="use data with one label for each example; tfscale predict needs none",
        )
    if probabilities is not None:
        label = _class_of(step.label, probabilities.shape[1], where)
        return {"label": label, "answer": answers["class"].astype(np.int64), "probabilities": probabilities}
    return {"label": _number_of(run, step.label, where), "answer": np.asarray(value, np.float64)}


def _probabilities(run: RestoredRun, answers: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """[examples, classes]; of a Keras model with one output for two classes by what its loss takes that for."""
    if "class" not in answers or answers["class"].ndim != 1:
        return None
    given = answers.get("probabilities")
    if given is not None:
        return given if given.ndim == 2 else None  # as they come: of a thousand classes they are many
    second = _single(answers.get("output"))
    if second is None:
        return None
    from tfscale.hooks.keras_hooks import arguments_of

    second = second.astype(np.float64)
    if arguments_of(run.state.model.loss).get("from_logits", False):
        second = 1 / (1 + np.exp(-second))
    return np.stack([1 - second, second], axis=1)


def _single(values: np.ndarray | None) -> np.ndarray | None:
    """One number for each example, or None."""
    if values is None or values.dtype.kind not in "fiub":
        return None
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    return values if values.ndim == 1 else None


def _class_of(label: np.ndarray, classes: int, where: str) -> np.ndarray:
    """The class of each example: of numbers, or of vectors with a one at its place."""
    one = _single(label)
    if one is None and label.ndim == 2 and label.shape[1] == classes:
        sure = ((label == 0) | (label == 1)).all() and (label.sum(1) == 1).all()
        one = label.argmax(1) if sure else None
    if one is None or (one != np.floor(one)).any():
        raise UsageError(
            "the labels are shares of several classes, or several for each example",
            where=where,
            fix="use data with one class for each example",
        )
    return one.astype(np.int64)


def _number_of(run: RestoredRun, label: np.ndarray, where: str) -> np.ndarray:
    """The number that each label stands for: a table's label may be kept as a class whose name is the number."""
    one = _single(label)
    if one is None:
        raise UsageError("the labels are no single numbers", where=where, fix="use data with one number as label")
    if one.dtype.kind in "iu" and run.class_names:
        return np.asarray([float(name) for name in run.class_names])[one]
    return one.astype(np.float64)


def _refuse_not_finite(fields: Mapping[str, np.ndarray]) -> None:
    for name, values in fields.items():
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(1)
        if bad.any():
            what = "a label" if name == "label" else "an answer"
            raise DataCorrupt(
                f"{bad.sum()} of {len(bad)} examples have {what} that is no finite number",
                where="data" if name == "label" else "checkpoint",
                fix="mend the data" if name == "label" else "evaluate an earlier checkpoint=STEP",
            )


def _task(run: RestoredRun) -> Any:
    return type(run.task).__name__
