"""The roster: who takes part in a meeting, and where each listens. Refuses to know how they meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tfscale.cluster.cluster import Cluster
from tfscale.errors import ClusterConfigError


@dataclass(frozen=True)
class Roster:
    """Who is who: names are "role:index", and `addresses` are all processes' in rank order."""

    me: str
    leader: str
    addresses: Mapping[str, str]

    @classmethod
    def of(cls, cluster: Cluster) -> Roster:
        roles = [role for role in ("chief", "worker", "ps") if cluster.addresses.get(role)]
        names = {f"{role}:{i}": a for role in roles for i, a in enumerate(cluster.addresses[role])}
        unknown = [name for name, address in names.items() if not address]
        if unknown or not roles or roles[0] == "ps":
            raise ClusterConfigError(
                f"the address of {', '.join(unknown)} is not known here, so the processes can't meet"
                if unknown
                else "the cluster has neither a chief nor a worker to lead it",
                where=cluster.source,
                fix="tell every process all addresses (TFJob: enableDynamicWorker: false)",
            )
        return cls(f"{cluster.role}:{cluster.index}", f"{roles[0]}:0", names)

    @property
    def port(self) -> int:
        """This process's own."""
        return int(self.addresses[self.me].rpartition(":")[2])

    def with_addresses(self, names: list[str]) -> str:
        """Names and addresses for a message, not too many."""
        shown = ", ".join(f"{name} ({self.addresses[name]})" for name in names[:20])
        return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
