"""What reductions are compared with: PyTorch's gloo, and what the bytes alone take between two sockets.

Runs in an environment of PyTorch's own, hence it imports nothing of tfscale.

    python -m benchmarks.allreduce_peers gloo MEMBER       # started by scaling_processes.py
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.allreduce_member import Member, obey

BYTES = 4  # of a number
_FIRST, _BUCKET = 2**20, 25 * 2**20  # bytes of DistributedDataParallel's first bucket and of the others
_PATIENCE = 60.0  # seconds until the other process listens


def buckets(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Which tensors travel together, as DistributedDataParallel has it: the last ones first, since backward ends with
    the first; a bucket is full once it has its bytes."""
    found: list[int] = []
    limit, held = _FIRST, 0
    for place in reversed(range(len(sizes))):
        found.append(place)
        held += BYTES * sizes[place]
        if held >= limit:
            yield found
            found, held, limit = [], 0, _BUCKET
    if found:
        yield found


def gloo(member: Member) -> tuple[Callable[[int], None], dict[str, Any]]:
    """All-reduces of buckets in which the gradients lie, so that nothing is copied (gradient_as_bucket_view)."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    world = len(member.addresses)
    dist.init_process_group("gloo", init_method=f"tcp://{member.addresses[0]}", rank=member.rank, world_size=world)
    places = list(buckets(member.sizes))
    flat = [torch.cat([torch.full([member.sizes[i]], float(member.value(i))) for i in one]) for one in places]

    def reduce() -> None:
        if member.wire == "full":
            for work in [dist.all_reduce(bucket, async_op=True) for bucket in flat]:
                work.wait()
            return
        sent = [bucket.to(torch.bfloat16) for bucket in flat]  # as bf16_compress_hook does it
        for work in [dist.all_reduce(one, async_op=True) for one in sent]:
            work.wait()
        for bucket, one in zip(flat, sent, strict=True):
            bucket.copy_(one)

    reduce()
    for one, bucket in zip(places, flat, strict=True):
        for place, part in zip(one, bucket.split([member.sizes[i] for i in one]), strict=True):
            assert bool((part == member.wanted(place)).all()), f"the sum of tensor {place} is wrong"
        bucket.zero_()  # it grows by every sum, which DistributedDataParallel divides

    def run(steps: int) -> None:
        for _ in range(steps):
            reduce()

    how = f"torch {torch.__version__}, gloo, {len(flat)} buckets of {_BUCKET >> 20} MiB, wire {member.wire}"
    return run, {"how": how}


def sockets(member: Member) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Each process sends and receives as many bytes as in an all-reduce of two, at the same time; nothing is summed."""
    connection = _connected(member)
    size = BYTES * sum(member.sizes)
    out, into = bytes(size), memoryview(bytearray(size))
    sender = ThreadPoolExecutor(1)

    def run(steps: int) -> None:
        for _ in range(steps):
            sent = sender.submit(connection.sendall, out)
            got = 0
            while got < size:
                count = connection.recv_into(into[got:])
                assert count, "the other process has ended"
                got += count
            sent.result()

    run(1)
    return run, {"how": f"sendall and recv_into of {size:,} bytes, each way"}


def _connected(member: Member) -> socket.socket:
    host, port = member.addresses[0].split(":")
    if member.rank == 0:
        with socket.create_server((host, int(port))) as server:
            server.settimeout(_PATIENCE)
            connection, _ = server.accept()
            connection.settimeout(None)
            return connection
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return socket.create_connection((host, int(port)))
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    obey({"gloo": gloo, "sockets": sockets})
