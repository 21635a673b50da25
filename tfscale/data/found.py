"""What a run found in its data: classes, examples of every split, and what counts for nothing.

Owns that text, and the refusal of too few. Refuses to find anything: sources do.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from tfscale.config.schema import RunConfig
from tfscale.data.source import Source
from tfscale.errors import DataMissing, UsageError

_NAMED = 5  # classes in the text
_WIDTH = 80


def found(source: Source) -> str:
    """One line, folded where it is wide, of a source that is prepared."""
    counts = {split: source.num_examples(split) for split in ("train", "test")}
    parts = [f"{counts['train']} to train, {counts['test'] or 'none'} to test"]
    names, number = source.class_names(), source.spec().get("num_classes")
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        parts.insert(0, f"{_counted(len(names))} ({', '.join(names[:_NAMED])}{more})")
    elif number:
        parts.insert(0, _counted(number))
    return _folded([", ".join(parts), *source.remarks()])


def with_found(text: str, source: Source) -> str:
    """A text for people with `found` below it, where that is known before the data are read."""
    if not source.is_prepared():
        return f"{text}\n{_folded(['not prepared yet: what is in their examples is looked at as the run starts'])}"
    return f"{text}\n{found(source)}" if source.by_index else text


def refuse_too_few(config: RunConfig) -> None:
    """Raises UsageError where one step would repeat an example, DataMissing where there is none."""
    batch = config.train.global_batch
    count = config.data.num_examples("train") if config.data.by_index else batch
    if not count:
        raise DataMissing("the train split has no examples", where="data", fix="give examples to train on")
    if count < batch and not config.data.whole_epochs:
        raise UsageError(
            f"the train split has {count} examples, fewer than one global batch of {batch}",
            where="train.global_batch",
            fix=f"use train.global_batch={count} or less",
        )


def remarks(source: Source) -> str:
    """The same without numbers; "" where there is nothing to say."""
    said = source.remarks()
    return _folded(said) if said else ""


def _folded(parts: Sequence[str]) -> str:
    text = "data: " + "; ".join(parts)
    return textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _counted(classes: int) -> str:
    return "1 class" if classes == 1 else f"{classes} classes"
