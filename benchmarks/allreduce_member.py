"""One process of a contestant of `allreduce.py`, from its own side: what it is told, and how it obeys.

Needs the standard library only, since PyTorch's contestants run it in an environment of their own. Each way is a
function of a Member that returns (run, facts) for `scaling_member.serve`; it has checked a sum by then.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from benchmarks.scaling_member import confine, serve

Way = Callable[["Member"], tuple[Callable[[int], None], dict[str, Any]]]


@dataclass(frozen=True)
class Member:
    """One process of a contestant.

    Attributes:
        sizes: how many float32 numbers each tensor has, in the order of the model's layers.
        core: the only one that it may use.
        addresses: "host:port" of all the contestant's processes, in order of rank; one of them is this process.
        bytes_per_pack: of an all-reduce of tfscale's; None leaves it to the plan.
        wire: the precision in which the numbers travel: full or bfloat16.
    """

    sizes: tuple[int, ...]
    rank: int
    core: int
    addresses: tuple[str, ...]
    bytes_per_pack: int | None = None
    wire: str = "full"

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Member:
        values = json.loads(text)
        return cls(**{**values, "sizes": tuple(values["sizes"]), "addresses": tuple(values["addresses"])})

    def value(self, place: int) -> int:
        """What the tensor of this place is full of; exact in every precision, and so are sums."""
        return (self.rank + 1) * (1 + place % 5)

    def wanted(self, place: int) -> int:
        """What its sum over all processes is full of."""
        return sum(rank + 1 for rank in range(len(self.addresses))) * (1 + place % 5)


def obey(ways: dict[str, Way]) -> NoReturn:
    """The command line is the way's name, and the Member as JSON."""
    member = Member.from_json(sys.argv[2])
    confine([member.core])
    run, facts = ways[sys.argv[1]](member)
    serve(run, {"parameters": sum(member.sizes), **facts})
