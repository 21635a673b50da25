"""The command that trains on a data set: what an import ends with.

Owns which recipe that is, and the batch and length that a small data set needs in the place of the recipe's.
"""

from __future__ import annotations

import shlex
from importlib import resources

from omegaconf import OmegaConf

from tfscale.importer.import_request import ImportRequest
from tfscale.importer.recognise import Kind
from tfscale.importer.record_files import ARRAY_RECORD

_FEW_STEPS = 8  # in an epoch: then a smaller batch is better
_SMALLEST = 8  # of fewer BatchNorm's moments say little
_ENOUGH = 400  # steps in all: a schedule's warm-up is over, and early ends have something to compare


def what_trains(kind: Kind, request: ImportRequest, examples: int) -> str:
    """ "train on it: tfscale train +recipe=tabular data.name=flights"; "" where no recipe trains on this kind.

    Args:
        examples: of the training split. Texts share rows, whose number nobody knows yet: there it doesn't count.
    """
    if request.format == ARRAY_RECORD:
        return f"read it by index: tfds.builder_from_directory({str(request.folder)!r}).as_data_source('train')"
    if not kind.recipe:
        return ""
    if kind.name == "table" and request.label is None:
        return "without a label no recipe trains on it: say data.label=COLUMN, and fresh=true"
    words = [f"tfscale train +recipe={kind.recipe}", kind.words, f"data.name={request.name}"]
    if request.dir != "data":
        words.append(f"data.dir={shlex.quote(request.dir)}")
    recipe = OmegaConf.load(str(resources.files("tfscale.configs") / "recipe" / f"{kind.recipe}.yaml")).train
    batch, epochs = recipe.global_batch, int(recipe.until.removesuffix("ep"))
    if kind.name != "text" and 0 < examples < _FEW_STEPS * batch:
        batch = _power(max(examples // (2 * _FEW_STEPS), min(_SMALLEST, examples)))
        words.append(f"train.global_batch={batch}")
        if (needed := -(-_ENOUGH // (examples // batch))) > epochs:
            words.append(f"train.until={needed}ep")
    return f"train on it: {' '.join(word for word in words if word)}"


def _power(most: int) -> int:
    """The largest power of two up to it."""
    return 1 << (most.bit_length() - 1)
