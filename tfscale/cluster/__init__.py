"""Who takes part in this run: Cluster, read from the environment that a launcher gave us.

Owns the facts about peers. Refuses to know hardware, strategies or what the workers will do.
"""

from __future__ import annotations

from tfscale.cluster.cluster import Cluster, is_chief

__all__ = ["Cluster", "is_chief"]
