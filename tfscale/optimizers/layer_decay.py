"""Layer-wise learning rates: each layer learns more slowly the further it is from the model's end.

Owns what of a model is a layer there, and each one's share of the rate. Clark et al., "ELECTRA" (2020) and Bao et al.,
"BEiT" (2021) fine-tune so: the rate of a layer is the base rate times decay ** (layers above it).

    decay_by_layer(state, 0.75)     # once the model and the optimizer are built
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfscale.errors import UsageError
from tfscale.hooks.keras_hooks import scale_rates

if TYPE_CHECKING:
    from tfscale.state.train_state import TrainState

_log = logging.getLogger(__name__)

_CONTAINER = re.compile(r"(functional|sequential|model)(_\d+)?")  # as Keras names models in models
_DIMENSIONS = re.compile(r"[a-z]+\dd")  # conv2d, pooling1d: not a number of theirs


def decay_by_layer(state: TrainState, decay: float) -> None:
    """Multiplies the rate of every variable, and what weight decay takes of it, by its layer's share; says it.

    Raises:
        UsageError: the model has one layer, so that nothing would change.
    """
    if decay == 1:
        return
    paths = [variable.path for variable in state.model.variables if "seed_generator" not in variable.path]
    groups = layers_by_depth(paths)
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        raise UsageError(
            f"the model has one layer with weights ({names[0] if names else 'none'}), so that it changes nothing",
            where="optimizer.layer_decay",
            fix="leave it away",
        )
    share = {name: decay ** (len(names) - 1 - place) for place, name in enumerate(names)}
    by_path = dict(zip(paths, groups, strict=True))
    scale_rates(state.optimizer, [share[by_path[variable.path]] for variable in state.trained])
    _log.info(
        f"layer decay {decay:g}: {len(names)} layers, from {share[names[0]]:.3g} of the learning rate ({names[0]}) to 1"
        f" ({names[-1]})"
    )


def layers_by_depth(paths: Sequence[str]) -> list[str]:
    """The layer of each weight, by a name of its own; those that come first are lowest.

    A layer is what bears a number, with all that is in it: block_3, conv2_block1, transformer_layer_3. Those without
    one that follow each other, as the embeddings of a transformer do, or the last norm and the head, are one layer; of
    a model where none has a number each layer is one.

    Args:
        paths: of the model's variables, in its order, such as "block_3_dense/kernel".
    """
    numbered = [_numbered(path) for path in paths]
    plain = [path.rpartition("/")[0] or path for path in paths]
    if not any(numbered):
        return plain
    found: list[str] = []
    begun = ""  # the first of the layers without a number that follow each other
    for name, own in zip(numbered, plain, strict=True):
        begun = "" if name else begun or own
        found.append(name or begun)
    return found


def _numbered(path: str) -> str:
    """The outermost part of a path that bears a number, up to that number, and up to the block's where it has one."""
    for part in path.split("/")[:-1]:
        if _CONTAINER.fullmatch(part):
            continue
        tokens = part.split("_")
        ends = [
            place
            for place, token in enumerate(tokens, 1)
            if any(letter.isdigit() for letter in token) and not _DIMENSIONS.fullmatch(token)
        ]
        of_block = [end for end in ends if "block" in "_".join(tokens[max(0, end - 2) : end])]
        if ends:
            return "_".join(tokens[: (of_block or ends)[0]])
    return ""
