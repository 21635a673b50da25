"""Contestants of `step.py` in PyTorch: the same models, from the same first weights, by the same AdamW.

Runs in an environment of its own, hence it imports nothing of tfscale, nor Keras: the weights come from a file, in the
order of the Keras model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.gpt_torch import through_block
from benchmarks.side_by_side import Work
from benchmarks.step_models import (
    BATCHES,
    DECAY,
    EPSILON,
    HEADS,
    LAYERS,
    RATE,
    STEPS,
    WIDTH,
    data,
)  # fmt: skip


def work(name: str, weights: str, precision: str, how: str) -> Work:
    """Args: weights: a .npz file of the Keras model's trainable weights, 0, 1, ...; precision: float32 or bfloat16;
    how: eager or compiled."""
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    with np.load(weights) as file:
        given = iter([torch.from_numpy(file[str(i)]) for i in range(len(file))])
    model: Any = {"transformer": _transformer}[name](given).train()
    if next(given, None) is not None:
        raise ValueError("the Keras model has more weights than this one")
    x, y = (torch.from_numpy(array).long() for array in data(name))
    optimizer = torch.optim.AdamW(model.parameters(), RATE, eps=EPSILON, weight_decay=DECAY, fused=True)
    run_model = torch.compile(model) if how == "compiled" else model
    batch, losses = BATCHES[name], []

    def step(first: int) -> Any:
        part = slice(first, first + batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = run_model(x[part])
        loss = functional.cross_entropy(logits.float().flatten(0, 1), y[part].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def run(steps: int) -> None:
        for _ in range(steps // STEPS):
            losses.append(float(sum(step(i * batch) for i in range(STEPS)) / STEPS))
            assert np.isfinite(losses[-1]), "the loss is no longer finite"

    run(STEPS)
    parameters = sum(p.numel() for p in model.parameters())
    told = (
        f"torch {torch.__version__}, {how}, {precision}, fused AdamW and attention, {torch.get_num_threads()} threads"
    )
    return Work(run, STEPS, {"parameters": parameters, "loss": losses[0], "how": told})


def _transformer(given: Iterator[Any]) -> Any:
    import torch
    from torch import nn

    def linear(*pairs: tuple[Any, Any]) -> Any:
        """One of several matrices [in, ...] side by side, and their biases."""
        matrix = torch.cat([kernel.reshape(WIDTH if kernel.ndim == 3 else len(kernel), -1) for kernel, _ in pairs], 1)
        made = nn.Linear(*matrix.shape)
        with torch.no_grad():
            made.weight.copy_(matrix.T)
            made.bias.copy_(torch.cat([bias.flatten() for _, bias in pairs]))
        return made

    def norm() -> Any:
        made = nn.LayerNorm(WIDTH, eps=1e-3)
        with torch.no_grad():
            made.weight.copy_(next(given))
            made.bias.copy_(next(given))
        return made

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = norm()
            queries, keys, values, out = [(next(given), next(given)) for _ in range(4)]
            self.projections = linear(queries, keys, values)
            self.out = linear((out[0].reshape(-1, WIDTH), out[1]))
            self.between = norm()
            self.wide, self.narrow = [linear((next(given), next(given))) for _ in range(2)]

        def forward(self, x: Any) -> Any:
            return through_block(self, x, HEADS)

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = (nn.Embedding.from_pretrained(next(given), freeze=False) for _ in range(2))
            self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
            self.last = norm()
            self.answers = linear((next(given), next(given)))

        def forward(self, tokens: Any) -> Any:
            x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
            return self.answers(self.last(self.blocks(x)))

    return Decoder()
