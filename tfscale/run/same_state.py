"""Alike: what all workers of a synchronous run must have alike once their data are open and their models are built.

Owns the comparison of counts and the state that training begins with, which is the chief's on every worker, whatever a
worker finds on its own disk: nothing, an older checkpoint that a lagging file system shows, or one of another attempt.
Refuses to know files and the wire. What is known before TensorFlow starts is compared earlier, in peers.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tfscale.errors import CheckpointUnusable, DataCorrupt

if TYPE_CHECKING:
    from tfscale.engine.reduce import Agreement
    from tfscale.run.session import Session


def check_data(session: Session) -> None:
    """Compares how many examples the workers have: they decide how many steps there are.

    Raises:
        DataCorrupt: on every worker, where they differ.
    """
    agreement = _agreement(session)
    if agreement is None:
        return
    splits = tuple(dict.fromkeys(("train", session.config.eval.split)))
    mine = [float(session.config.data.num_examples(split)) for split in splits]
    chiefs = [agreement.told_by_chief(count) for count in mine]
    if others := agreement.those(mine != chiefs):
        here = "" if agreement.worker == 0 else f"; {_counted(splits, mine)} here"
        raise DataCorrupt(
            f"{_named(others)} {'have' if others[1:] else 'has'} other data than the chief, which has "
            f"{_counted(splits, chiefs)}{here}",
            where="data",
            fix="give every worker the same data",
        )


def restore(session: Session) -> int | None:
    """Puts the newest good checkpoint of the chief into the state, on other workers as far as they have it.

    Returns:
        Its step on every worker, or None where the chief has no checkpoint. `share_state` must follow.

    Raises:
        CheckpointUnusable, SecurityRefused: as `Checkpointer.restore`; of a worker's own checkpoints nothing is said.
    """
    agreement, checkpointer, state = _agreement(session), session.checkpointer, session.state
    if agreement is None or agreement.worker == 0:
        step = checkpointer.restore(state)
    else:
        step = None
        with contextlib.suppress(CheckpointUnusable, OSError):
            step = checkpointer.restore(state)
    if agreement is None:
        return step
    chiefs = int(agreement.told_by_chief(-1 if step is None else step))
    if chiefs not in (-1, step):
        checkpointer.restore_step(chiefs, state)
    return None if chiefs == -1 else chiefs


def share_state(session: Session) -> None:
    """Gives the chief's state to all workers where that of any differs; all must call it, with equal models."""
    agreement = _agreement(session)
    if agreement is None:
        return
    digest = float(_digest(session))
    differs = digest != agreement.told_by_chief(digest)
    others = agreement.those(differs)
    if not others:
        return
    told = agreement.bytes_of_chief(b"".join(_pieces(session)) if agreement.worker == 0 else b"")
    if differs:
        _put(session, told)
    session.say(f"{_named(others)} had another state than the chief's of step {session.state.step}, and got that one")


def _agreement(session: Session) -> Agreement | None:
    return session.trainer.agreement if session.plan.strategy == "multi_worker" else None


def _parts(session: Session) -> Iterator[tuple[Any, ...]]:
    """This worker's own parts of each variable, one for each of its devices: to read them no worker waits for another,
    and where reading adds over workers it is the parts that must be alike."""
    for variable in session.state.variables().values():
        held = getattr(variable, "value", variable)  # of TensorFlow's own variables, such as averages, it is a method
        yield session.strategy.experimental_local_results(variable if callable(held) else held)


def _pieces(session: Session) -> Iterator[bytes]:
    """All of the state as bytes: what it remembers, then its variables in their order."""
    state = session.state
    remembered = json.dumps([state.step, state.memory], sort_keys=True).encode()
    yield len(remembered).to_bytes(8, "big") + remembered
    for parts in _parts(session):
        yield parts[0].numpy().tobytes()


def _digest(session: Session) -> int:
    """48 bits, which a float64 holds."""
    digest = hashlib.sha256()
    for piece in _pieces(session):
        digest.update(piece)
    return int.from_bytes(digest.digest()[:6], "big")


def _put(session: Session, told: bytes) -> None:
    import numpy as np

    at = 8 + int.from_bytes(told[:8], "big")
    session.state.step, session.state.memory = json.loads(told[8:at])
    for parts in _parts(session):
        before = parts[0].numpy()
        value = np.frombuffer(told, before.dtype, before.size, at).reshape(before.shape)
        at += before.nbytes
        for part in parts:
            part.assign(value)


def _named(workers: list[int]) -> str:
    return ", ".join(f"worker {worker}" for worker in workers)


def _counted(splits: tuple[str, ...], counts: list[float]) -> str:
    names = ("training" if split == "train" else split for split in splits)
    return " and ".join(f"{count:g} {name}" for name, count in zip(names, counts, strict=True)) + " examples"
