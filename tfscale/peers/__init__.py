"""How the processes of one job meet, hear each other, and end together."""

from tfscale.peers.membership import Peers, joined

__all__ = ["Peers", "joined"]
