"""The peers of one run: met for it alone, or those that the program met before it began.

Owns what the processes of a run must have alike. Refuses to know sockets and training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tfscale.cluster import Cluster
from tfscale.config.schema import RunConfig, identity
from tfscale.errors import ClusterConfigError, TfscaleError, foreseen
from tfscale.peers.membership import Peers
from tfscale.peers.rendezvous import meet
from tfscale.peers.standing import standing_peers
from tfscale.plan.execution_plan import ExecutionPlan

_TRAINING = ("until", "log_every", "stop_patience", "max_rollbacks", "rollback_factor")


@contextlib.contextmanager
def joined(
    config: RunConfig,
    plan: ExecutionPlan,
    cluster: Cluster,
    *,
    on_exit: Callable[[TfscaleError], None],
    on_stop: Callable[[TfscaleError], None] = lambda error: None,
) -> Iterator[Peers]:
    """Meets all processes of the job, and tells them how this one ended.

    Raises:
        ClusterFault: a peer is missing, or was lost while the context was open.
        ClusterConfigError: the processes don't agree about cluster, plan or configuration.
    """
    ours, timeout = facts(config, plan), config.cluster.start_timeout
    if (met := standing_peers()) is not None:
        with met.training(on_exit=on_exit, on_stop=on_stop):
            met.agree(ours, ClusterConfigError)
            yield met
        return
    asynchronous = plan.strategy == "parameter_server"  # whose workers come and go
    meeting = meet(cluster, ours, timeout=timeout, again=asynchronous)
    peers = Peers(
        meeting,
        silence=config.cluster.silence,
        needed=lambda name: not (asynchronous and name.startswith("worker:")),
        on_exit=on_exit,
        on_stop=on_stop,
    )
    try:
        yield peers
    except BaseException as error:
        cause = peers.explain(error)
        peers.begin_end()
        meeting.end(foreseen(cause).as_dict())
        if cause is error:
            raise
        raise cause from error
    peers.begin_end()
    meeting.end(None)


def facts(config: RunConfig, plan: ExecutionPlan) -> dict[str, Any]:
    """What all processes must have alike. A parameter server's machine may differ, so its plan isn't asked."""
    trains = {key: getattr(config.train, key) for key in _TRAINING}
    agreed = {
        "config": {
            **identity(config),
            "durations": trains,
            "eval": dict(vars(config.eval)),
            "checkpoint": dict(vars(config.checkpoint)),
            "export": {"at_end": config.export.at_end},  # in which every worker takes part
            "resume": config.resume.mode,
        },
        "tensorflow": _version(),
    }
    if plan.strategy != "parameter_server":
        agreed["plan"] = plan.agreed()
    return agreed


def _version() -> str:
    from importlib.metadata import version

    return version("tensorflow")
