"""What all workers of a synchronous run must have alike once their data are open and their models are built.

Owns the comparison of counts and the state that training begins with, which is the chief's on every worker, whatever a
worker finds on its own disk: nothing, an older checkpoint that a lagging file system shows, or one of another attempt.
Refuses to know files and the wire. What is known before TensorFlow starts is compared earlier, by peers/.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tfscale.errors import CheckpointUnusable, DataCorrupt
from tfscale.files import sha256_of
from tfscale.state.kept_state import parts_of

if TYPE_CHECKING:
    from tfscale.assembly.parts import Parts

_log = logging.getLogger(__name__)


def check_data(parts: Parts) -> None:
    """Compares how many examples the workers have: they decide how many steps there are.

    Raises:
        DataCorrupt: on every worker, where they differ.
    """
    agreement = parts.agreement
    if agreement is None:
        return
    splits = tuple(dict.fromkeys(("train", parts.config.eval.split)))
    mine = [float(parts.config.data.num_examples(split)) for split in splits]
    chiefs = [agreement.value_of_chief(count) for count in mine]
    if others := agreement.those(mine != chiefs):
        here = "" if agreement.worker == 0 else f"; {_counted(splits, mine)} here"
        raise DataCorrupt(
            f"{_named(others)} {'have' if others[1:] else 'has'} other data than the chief, which has "
            f"{_counted(splits, chiefs)}{here}",
            where="data",
            fix="give every worker the same data",
        )


def restore(parts: Parts) -> int | None:
    """Puts the newest good checkpoint of the chief into the state, on other workers as far as they have it.

    Returns:
        Its step on every worker, or None where the chief has no checkpoint. `share_state` must follow.

    Raises:
        CheckpointUnusable, SecurityRefused: as `Checkpointer.restore`; a worker's own checkpoints raise nothing.
    """
    agreement, checkpointer, state = parts.agreement, parts.checkpointer, parts.state
    if agreement is None or agreement.worker == 0:
        step = checkpointer.restore(state)
    else:
        step = None
        with contextlib.suppress(CheckpointUnusable, OSError):
            step = checkpointer.restore(state)
    if agreement is None:
        return step
    chiefs = int(agreement.value_of_chief(-1 if step is None else step))
    if chiefs not in (-1, step):
        checkpointer.restore_step(chiefs, state)
    return None if chiefs == -1 else chiefs


def share_state(parts: Parts) -> None:
    """Gives the chief's state to all workers where that of any differs; all must call it, with equal models."""
    agreement = parts.agreement
    if agreement is None:
        return
    digest = float(_digest(parts))
    differs = digest != agreement.value_of_chief(digest)
    others = agreement.those(differs)
    if not others:
        return
    received = agreement.bytes_of_chief(b"".join(_pieces(parts)) if agreement.worker == 0 else b"")
    if differs:
        _put(parts, received)
    _log.info(f"{_named(others)} had another state than the chief's of step {parts.state.step}, and got that one")


def _local(parts: Parts) -> Iterator[tuple[Any, ...]]:
    for variable in parts.state.variables().values():
        yield parts_of(variable, parts.strategy)


def _pieces(parts: Parts) -> Iterator[bytes]:
    """All of the state as bytes: what it remembers, then its variables in their order."""
    state = parts.state
    remembered = json.dumps([state.step, state.memory], sort_keys=True).encode()
    yield len(remembered).to_bytes(8, "big") + remembered
    for local in _local(parts):
        yield local[0].numpy().tobytes()


def _digest(parts: Parts) -> int:
    """48 bits, which a float64 holds."""
    return int(sha256_of(_pieces(parts))[:12], 16)


def _put(parts: Parts, received: bytes) -> None:
    import numpy as np

    at = 8 + int.from_bytes(received[:8], "big")
    parts.state.step, parts.state.memory = json.loads(received[8:at])
    for local in _local(parts):
        before = local[0].numpy()
        value = np.frombuffer(received, before.dtype, before.size, at).reshape(before.shape)
        at += before.nbytes
        for part in local:
            part.assign(value)


def _named(workers: list[int]) -> str:
    return ", ".join(f"worker {worker}" for worker in workers)


def _counted(splits: tuple[str, ...], counts: list[float]) -> str:
    names = ("training" if split == "train" else split for split in splits)
    return " and ".join(f"{count:g} {name}" for name, count in zip(names, counts, strict=True)) + " examples"
