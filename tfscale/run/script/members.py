"""What the workers that run one script agree on before each of its fits, and what its journal says to all of them.

Owns how they meet. Refuses to know how a script is executed, and Keras's calls.

    with joined_script(cluster, plan, "train.py", config.cluster, seeded=True) as members:
        members.agree_on_fit("train.py:31", "563a34baa8", model)
        entered = members.entered(ask_the_journal if members.is_chief else None)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfscale.cluster import Cluster
from tfscale.config.schema import ClusterSection
from tfscale.errors import TfscaleError
from tfscale.peers.standing import StandingPeers, standing
from tfscale.plan.execution_plan import ExecutionPlan
from tfscale.run.script.journal import Entered
from tfscale.run.script.program import place_of_call
from tfscale.runtime import global_state as runtime


class Members:
    """The workers that run one script.

    Attributes:
        rank: of this one; 0 is the chief's.
    """

    def __init__(self, peers: StandingPeers):
        self._peers, self.rank = peers, peers.cluster.worker_index

    @property
    def is_chief(self) -> bool:
        return self.rank == 0

    def meet(self, what: str) -> None:
        """Returns once all workers are about to do this: what each has written before it is whole.

        Raises:
            DataCorrupt: one is about to do something else.
        """
        self._peers.agree({"next": f"{what} at {place_of_call()}"})

    def agree_on_fit(self, place: str, digest: str, model: Any) -> None:
        """Returns once all workers are about to do this fit, with equal weights.

        Raises:
            DataCorrupt: one is at another line, or has another model, data, arguments or weights.
        """
        weights = _digest_of_weights(model) if model.built else "unbuilt"
        self._peers.agree({"next": f"model.fit at {place}"})
        self._peers.agree({"fit": digest, "weights": weights})

    def entered(self, enter: Callable[[], Entered] | None) -> Entered:
        """What the chief's journal says of a fit.

        Args:
            enter: asks it; None on the others.

        Raises:
            DataCorrupt: the fit is complete, and this worker can't see it.
        """
        told: Any = None
        if enter is not None:
            found = enter()
            complete = found.is_known and (found.folder / "result.json").exists()
            told = {**asdict(found), "folder": str(found.folder), "complete": complete}
        told = self._peers.of_chief(told)
        complete = told.pop("complete")
        entered = Entered(**{**told, "folder": Path(told["folder"])})
        seen = (entered.folder / "result.json").exists()
        self._peers.agree({"next": f"fit {entered.number}", "complete": complete and seen})
        return entered

    def of_chief(self, value: Any) -> Any:
        """What the chief gives, a JSON value, on every worker; all must call it."""
        return self._peers.of_chief(value)

    def leave(self, error: TfscaleError) -> None:
        """Tells the others that this worker ends, and why."""
        self._peers.begin_end()
        self._peers.meeting.end(error.as_dict())


@contextlib.contextmanager
def joined_script(
    cluster: Cluster, plan: ExecutionPlan, program: str, settings: ClusterSection, *, seeded: bool
) -> Iterator[Members]:
    """Meets the other workers, starts TensorFlow and joins them.

    Args:
        settings: how long others are waited for.
        seeded: give all of them the same random numbers; else the script must seed what it draws.

    Raises:
        ClusterFault: a worker is missing, or was lost while the context was open.
        ClusterConfigError: they run other scripts.
        DataCorrupt: they part ways.
    """
    # TensorFlow writes as errors what it finds in graphs of ours, and that the chief has left; real ones are raised.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    runtime.import_tensorflow(plan)
    facts = {"script": program, "plan": plan.agreed()}
    with standing(cluster, facts, timeout=settings.start_timeout, silence=settings.silence) as peers:
        runtime.apply(plan, seed=None)
        with peers.joining(settings.start_timeout):
            runtime.keep_strategy(runtime.build_strategy(plan, cluster))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # TensorFlow has put its own in its place
        if seeded:
            runtime.seed_program(int(peers.of_chief(int.from_bytes(os.urandom(3), "big"))))
        yield Members(peers)


def _digest_of_weights(model: Any) -> str:
    found = hashlib.sha256()
    for value in model.get_weights():
        found.update(repr(value.tolist()).encode() if value.dtype == object else value.tobytes())
    return found.hexdigest()[:16]
