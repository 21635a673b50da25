"""Cluster: the processes of this run, and which of them this one is.

Owns the value and the order in which launchers are asked. Each launcher's dialect lives in a file of its own beside
this one. Refuses to know hardware, the plan and TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import tfscale.cluster.kubeflow as kubeflow
import tfscale.cluster.kubernetes as kubernetes
import tfscale.cluster.leader_worker_set as leader_worker_set
import tfscale.cluster.slurm as slurm
import tfscale.cluster.tf_config as tf_config
import tfscale.cluster.tpu as tpu
from tfscale.cluster.addresses import ROLES, Found
from tfscale.errors import ClusterConfigError

Find = Callable[[Mapping[str, str]], Found | None]

# A launcher's file has a function `find(environ) -> (addresses, role, index) or None`, and is added here. What people
# and manifests write wins over what launchers tell; of these the first that answers is taken.
_WRITTEN: tuple[tuple[str, Find], ...] = (("TF_CONFIG", tf_config.find), ("TFSCALE_CLUSTER", kubernetes.find))
_TOLD: tuple[tuple[str, Find], ...] = (
    ("TrainJob (torch)", kubeflow.find_torch),
    ("TrainJob (jax)", kubeflow.find_jax),
    ("LeaderWorkerSet", leader_worker_set.find),
    ("TPU", tpu.find),
    ("Slurm", slurm.find),
)


@dataclass(frozen=True)
class Cluster:
    """The processes of a run and this process's place among them.

    Args:
        source: "local", or what described the cluster: "TF_CONFIG", "TFSCALE_CLUSTER", or the launcher.
        addresses: "host:port" by role ("chief", "worker", "ps", "evaluator"), in order of index. An address that the
            launcher didn't tell this process is "" (see `is_complete`).
        role: this process's role.
        index: its index within the role.
    """

    source: str = "local"
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    role: str = "worker"
    index: int = 0

    @classmethod
    def resolve(cls, environ: Mapping[str, str] | None = None) -> Cluster:
        """Reads the cluster from the environment; where nothing describes one, a local cluster of one.

        Raises:
            ClusterConfigError: the description is broken (all problems of TF_CONFIG are in one error), two contradict
                each other, or there is only an index and none tells of how many.
        """
        environ = os.environ if environ is None else environ
        if environ.get("TFSCALE_CLUSTER", "").strip() == "local":
            return cls()
        written = [cls(source, *found) for source, find in _WRITTEN if (found := find(environ)) is not None]
        if written:
            _refuse_contradiction(written)
            return written[0]
        for source, find in _TOLD:
            found = find(environ)
            if found is not None:
                return cls(source, *found)
        kubernetes.refuse_index_alone(environ)
        return cls()

    @property
    def worker_addresses(self) -> tuple[str, ...]:
        """The training workers' addresses, the chief first, in order of `worker_index`; empty when local."""
        return self.addresses.get("chief", ()) + self.addresses.get("worker", ())

    @property
    def num_workers(self) -> int:
        """How many processes train together. 1 when local, and for an evaluator, which is a cluster of its own."""
        if self.source == "local" or self.role == "evaluator":
            return 1
        return len(self.worker_addresses)

    @property
    def worker_index(self) -> int:
        """This worker's rank: the chief is 0 and the workers follow it; 0 for an evaluator, which works alone.

        Raises:
            ValueError: a parameter server, which is no worker.
        """
        if self.role == "ps":
            raise ValueError("a parameter server has no worker index")
        if self.role == "evaluator":
            return 0
        return self.index + (len(self.addresses.get("chief", ())) if self.role == "worker" else 0)

    @property
    def is_chief(self) -> bool:
        """Whether this is the worker that writes: the chief, or worker 0 where there is no chief."""
        return self.role in ("chief", "worker") and self.worker_index == 0

    @property
    def is_multi_worker(self) -> bool:
        """Whether more than one process trains."""
        return self.num_workers > 1

    @property
    def is_complete(self) -> bool:
        """Whether every address is known. Kubeflow's enableDynamicWorker tells a worker its own and the ps' only."""
        return all(address for addresses in self.addresses.values() for address in addresses)

    def shared(self) -> dict[str, list[str]]:
        """What all workers must agree on, for a digest: the addresses by role, without this process's own place.

        Evaluators are left out, since the training workers never see them.
        """
        return {role: list(self.addresses[role]) for role in sorted(self.addresses) if role != "evaluator"}

    @property
    def job(self) -> str:
        """What names the job of several processes, the same for every attempt that a launcher makes of it; "" for one
        process."""
        return " ".join(str(each) for each in sorted(self.shared().items())) if self.is_multi_worker else ""

    def describe(self) -> str:
        """One line for people."""
        if self.source == "local":
            return "local, one worker"
        counts = ", ".join(f"{len(self.addresses[role])} {role}" for role in ROLES if role in self.addresses)
        return f"{self.role} {self.index} of {counts or 'no cluster'} (from {self.source})"


def _refuse_contradiction(written: list[Cluster]) -> None:
    """Raises ClusterConfigError where two descriptions that people wrote are not of the same cluster and place."""
    first = written[0]
    for other in written[1:]:
        if (other.shared(), other.role, other.index) != (first.shared(), first.role, first.index):
            raise ClusterConfigError(
                f"they describe two clusters: {first.describe()}; {other.describe()}",
                where=f"{first.source}, {other.source}",
                fix=f"remove {other.source}, or make both say the same",
            )


def is_chief(environ: Mapping[str, str] | None = None) -> bool:
    """Whether this process is the one that writes what all share: the chief or worker 0, and any process that is alone.

    Raises:
        ClusterConfigError: as `Cluster.resolve`.
    """
    return Cluster.resolve(environ).is_chief
