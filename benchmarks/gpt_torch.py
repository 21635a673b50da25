"""PyTorch's process beside +recipe=gpt: the same decoder and AdamW, as nanoGPT (github.com/karpathy/nanoGPT) has them.

Runs in an environment of its own, hence it imports nothing of tfscale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.side_by_side import Work

VOCABULARY, LENGTH, LAYERS, WIDTH, HEADS, BATCH = 259, 64, 4, 128, 4, 12
PLACES = LENGTH + 1  # as many as the recipe has, whose rows hold the next byte, too
LEARNING_RATE, BETAS, DECAY, CLIP = 2e-3, (0.9, 0.99), 0.1, 1.0


def work(path: str, how: str, precision: str) -> Work:
    """Args: how: eager or compiled; precision: float32, or bfloat16 by autocast."""
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    text = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8).long()
    text = text[: int(0.9 * len(text))]
    model: Any = _decoder().train()
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, LEARNING_RATE, BETAS, fused=True)
    parameters = sum(p.numel() for p in model.parameters())
    run_model = torch.compile(model) if how == "compiled" else model

    def run(steps: int) -> None:
        total = torch.zeros(())
        for _ in range(steps):
            starts = torch.randint(len(text) - LENGTH - 1, (BATCH, 1)) + torch.arange(LENGTH + 1)
            rows = text[starts]
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                logits = run_model(rows[:, :-1].contiguous())
            loss = functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            total += loss.detach()
        assert torch.isfinite(total), "the loss is no longer finite"

    told = (
        f"torch {torch.__version__}, {how}, {precision}, fused AdamW and attention, {torch.get_num_threads()} threads"
    )
    return Work(run, 20, {"parameters": parameters, "precision": precision, "how": told})


def through_block(block: Any, x: Any, heads: int, *, causal: bool = True) -> Any:
    """What a transformer's block makes of x [rows, length, width]: attention, then two products.

    Args:
        block: has `before` and `between` (norms), `projections` (queries, keys and values at once), `out`, `wide` and
            `narrow`.
    """
    from torch.nn import functional

    rows, length, width = x.shape
    parts = block.projections(block.before(x)).split(width, dim=2)
    parts = [one.view(rows, length, heads, width // heads).transpose(1, 2) for one in parts]
    seen = functional.scaled_dot_product_attention(*parts, is_causal=causal)
    x = x + block.out(seen.transpose(1, 2).reshape(rows, length, width))
    return x + block.narrow(functional.gelu(block.wide(block.between(x))))


def _decoder() -> Any:
    import torch
    from torch import nn
    from torch.nn import functional

    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(WIDTH))

        def forward(self, x: Any) -> Any:
            return functional.layer_norm(x, (WIDTH,), self.weight, None, 1e-5)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = Norm(), Norm()
            self.projections = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
            self.out = nn.Linear(WIDTH, WIDTH, bias=False)
            self.wide = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
            self.narrow = nn.Linear(4 * WIDTH, WIDTH, bias=False)

        def forward(self, x: Any) -> Any:
            return through_block(self, x, HEADS)

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(PLACES, WIDTH)
            self.blocks, self.last = nn.Sequential(*(Block() for _ in range(LAYERS))), Norm()
            for name, weights in self.named_parameters():
                if weights.dim() > 1:
                    ends = name.endswith(("out.weight", "narrow.weight"))
                    nn.init.normal_(weights, 0.0, 0.02 / (2 * LAYERS) ** 0.5 if ends else 0.02)

        def forward(self, tokens: Any) -> Any:
            x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
            return self.last(self.blocks(x)) @ self.tokens.weight.T

    return Decoder()
