"""How the processes of one job meet, hear each other, and end together."""

from tfscale.peers.membership import Peers
from tfscale.peers.of_run import joined

__all__ = ["Peers", "joined"]
