"""PyTorch's process in the scaling benchmark: the same ResNets, alone or under DistributedDataParallel with gloo.

Runs in an environment of its own, hence it imports nothing of tfscale; REQUIREMENT is what that must hold.

    python -m benchmarks.scaling_torch MEMBER       # started by scaling_processes.py
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from benchmarks.scaling_member import LEARNING_RATE, MOMENTUM, POOL, Member, Workload, serve, start

REQUIREMENT = "torch==2.13.0+cpu"
_BUCKET_MB = 25  # PyTorch's default


def main() -> NoReturn:
    member = start(sys.argv[1])
    os.environ["OMP_NUM_THREADS"] = str(len(member.cores))
    import torch

    torch.set_num_threads(len(member.cores))
    torch.manual_seed(0)
    model = _resnet(member.workload).to(memory_format=torch.channels_last).train()
    parameters = sum(p.numel() for p in model.parameters())
    how = f"torch {torch.__version__}, eager, float32, channels_last, fused SGD, {torch.get_num_threads()} thread(s)"
    if member.world > 1:
        model = _distributed(member, model)
        how += f", DDP over gloo, buckets of {_BUCKET_MB} MB, gradient_as_bucket_view"
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM, fused=True)
    batches = _batches(member)
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        total = torch.zeros(())
        for _ in range(steps):
            images, labels = batches[done % POOL]
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.detach()
            done += 1
        assert torch.isfinite(total), "the loss is no longer finite"

    serve(run, {"parameters": parameters, "how": how})


def _distributed(member: Member, model: Any) -> Any:
    import torch

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://{member.addresses[0]}", rank=member.rank, world_size=member.world
    )
    return torch.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=_BUCKET_MB, gradient_as_bucket_view=True)


def _batches(member: Member) -> list[tuple[Any, Any]]:
    import torch

    workload, count = member.workload, member.workload.global_batch // member.world
    shape = (count, workload.channels, workload.image_size, workload.image_size)
    return [
        (
            torch.randint(0, 256, shape, dtype=torch.uint8).to(memory_format=torch.channels_last),
            torch.randint(0, workload.num_classes, (count,)),
        )
        for _ in range(POOL)
    ]


def _resnet(workload: Workload) -> Any:
    """The architectures of tfscale/models/resnet.py: the same convolutions, from pixels 0-255 to logits."""
    from torch import nn

    def conv_bn(before: int, after: int, kernel: int, stride: int = 1) -> list[Any]:
        conv = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)
        return [conv, nn.BatchNorm2d(after, eps=1e-5, momentum=0.1)]

    class Block(nn.Module):
        def __init__(self, before: int, width: int, stride: int, *, bottleneck: bool):
            super().__init__()
            after = 4 * width if bottleneck else width
            if bottleneck:
                parts = [*conv_bn(before, width, 1), nn.ReLU(inplace=True)]
                parts += [*conv_bn(width, width, 3, stride), nn.ReLU(inplace=True), *conv_bn(width, after, 1)]
            else:
                parts = [*conv_bn(before, width, 3, stride), nn.ReLU(inplace=True), *conv_bn(width, after, 3)]
            nn.init.zeros_(parts[-1].weight)
            self.chain = nn.Sequential(*parts)
            changes = stride != 1 or before != after
            self.skip = nn.Sequential(*conv_bn(before, after, 1, stride)) if changes else nn.Identity()

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.chain(x) + self.skip(x), inplace=True)

    class Pixels(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.float() / 64 - 1

    imagenet = workload.depth == 50
    width = workload.width
    parts = [Pixels(), *conv_bn(workload.channels, width, 7 if imagenet else 3, 2 if imagenet else 1)]
    parts.append(nn.ReLU(inplace=True))
    if imagenet:
        parts.append(nn.MaxPool2d(3, 2, padding=1))
    before = width
    for stage, blocks in enumerate((3, 4, 6, 3) if imagenet else ((workload.depth - 2) // 6,) * 3):
        for i in range(blocks):
            stride = 2 if stage and i == 0 else 1
            parts.append(Block(before, width << stage, stride, bottleneck=imagenet))
            before = (width << stage) * (4 if imagenet else 1)
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, workload.num_classes))


if __name__ == "__main__":
    main()
