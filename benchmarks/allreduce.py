"""What reducing a model's gradients takes between two processes of one core each: ours beside PyTorch's gloo.

    python -m benchmarks allreduce --json results.json

Measured is the reduction alone, with all gradients there at once: in a training it begins while the backward pass still
computes. The limit is what the same bytes take between two sockets, which nobody sums.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.allreduce_member import Member
from benchmarks.asking import Asking, NotAsked
from benchmarks.input import peers_python
from benchmarks.outcomes import Outcome, of_measured
from benchmarks.scaling_processes import free_addresses, started
from benchmarks.side_by_side import Measured, Question, in_blocks
from tfscale.models.resnet import layout

PROCESSES = 2
_MIB = 2**20
_LARGE = 25_000_000  # numbers of the one tensor


@dataclass(frozen=True)
class Party:
    """A contestant: two processes, of one core each."""

    name: str
    command: tuple[str, ...] = ("benchmarks.allreduce_ours", "reducer")
    bytes_per_pack: int | None = None
    wire: str = "full"
    peers_python: bool = False


OURS, AGAIN = Party("ours"), Party("ours again")
OF_OURS = (
    Party("ours, one pack", bytes_per_pack=0),
    Party("ours, packs of 2 MiB", bytes_per_pack=2 * _MIB),
    Party("ours, packs of 32 MiB", bytes_per_pack=32 * _MIB),
)
BFLOAT16 = Party("ours, bfloat16 wire", wire="bfloat16")
ONE_BFLOAT16 = Party("ours, bfloat16 wire, one pack", bytes_per_pack=0, wire="bfloat16")
_PEERS = "benchmarks.allreduce_peers"
GLOO = Party("gloo", (_PEERS, "gloo"), peers_python=True)
GLOO_BFLOAT16 = Party("gloo, bfloat16 wire", (_PEERS, "gloo"), wire="bfloat16", peers_python=True)
SOCKETS = Party("sockets", (_PEERS, "sockets"))
PARTIES = (OURS, AGAIN, *OF_OURS, BFLOAT16, ONE_BFLOAT16, GLOO, GLOO_BFLOAT16, SOCKETS)
PAIRS = (
    (OURS, GLOO),
    *((OURS, one) for one in (*OF_OURS, BFLOAT16)),
    *((BFLOAT16, one) for one in (ONE_BFLOAT16, GLOO_BFLOAT16)),
)
NOTES = (
    "Seconds until both processes have the sum of both, each process on a core of its own. All tensors are there at the"
    " beginning; in a training the first ones travel while the backward pass computes the rest. Every contestant has"
    " checked a sum before.",
    "Gloo reduces buckets of 25 MiB, as DistributedDataParallel cuts them, in which the gradients already lie. Its"
    " bfloat16 is that of bf16_compress_hook.",
    "Sockets are the limit: sendall and recv of the bytes that two processes must exchange in float32, without a sum.",
)


def sizes(part: str, *, quick: bool = False) -> tuple[int, ...]:
    """Float32 numbers of every tensor: those of a ResNet-50's trainable variables, or of one large one."""
    if part == "tensor":
        return (_LARGE // 1000 if quick else _LARGE,)
    return tuple(_of_resnet(8, 4, 10) if quick else _of_resnet(50, 64, 1000))


def _of_resnet(depth: int, width: int, classes: int) -> Iterator[int]:
    stem, blocks = layout(depth, width=width, image_size=224, channels=3)
    for conv in [stem, *(conv for block in blocks for conv in (*block.chain, block.shortcut) if conv)]:
        yield conv.kernel**2 * conv.channels_in * conv.channels_out
        yield from (conv.channels_out, conv.channels_out)  # of BatchNorm
    features = blocks[-1].chain[-1].channels_out
    yield from (features * classes, classes)


def outcomes(part: str, asking: Asking) -> list[Outcome]:
    """Raises NotAsked, ContestantFailed."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < PROCESSES:
        raise NotAsked(f"it gives each of {PROCESSES} processes a core, which takes Linux and as many cores")
    python = None if asking.quick else peers_python(asking.say)
    parties = [OURS, SOCKETS] if asking.quick else [one for one in PARTIES if python or not one.peers_python]
    found = measured(parties, sizes(part, quick=asking.quick), python, asking)
    pairs = [(ours.name, other.name) for ours, other in PAIRS]
    return [of_measured(f"allreduce:{part}", found, pairs=pairs, limits=[SOCKETS.name])]


def measured(parties: list[Party], tensors: tuple[int, ...], python: Path | None, asking: Asking) -> Measured:
    """Raises ContestantFailed."""
    commands = {
        one.name: ([str(python) if one.peers_python else sys.executable, "-m", *one.command], _members(one, tensors))
        for one in parties
    }
    with started(commands, asking.say) as groups:
        facts = {group.name: group.facts for group in groups}
        per_step, cpu = in_blocks(
            groups, blocks=asking.blocks, seconds=asking.seconds, seed=asking.seed, say=asking.say
        )
    numbers = sum(tensors)
    question = Question(
        title=f"the sum of {numbers:,} float32 numbers in {len(tensors)} tensor(s), of two processes",
        unit="s",
        contestants=(),
        claims=(),
        control=(AGAIN.name, OURS.name),
        baseline=OURS.name,
        batch=1,
        notes=NOTES,
    )
    return Measured(question, per_step, cpu, facts, asking.seed)


def _members(party: Party, tensors: tuple[int, ...]) -> list[Member]:
    cores, addresses = sorted(os.sched_getaffinity(0)), free_addresses(PROCESSES)
    return [
        Member(tensors, rank, cores[rank], addresses, party.bytes_per_pack, party.wire) for rank in range(PROCESSES)
    ]
