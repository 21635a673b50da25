"""Contestants of `step.py` in PyTorch: the same models, from the same first weights, by the same optimizers.

Runs in an environment of its own, hence it imports nothing of tfscale, nor Keras: the weights come from a file, under
the names that the Keras model has for them. The models are in step_torch_models.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.side_by_side import Work
from benchmarks.step_models import ACCUMULATOR, DECAY, EPSILON, MOMENTUM, STEPS, data, kind_of, spec
from benchmarks.step_torch_models import BUILDERS, Weights


def work(name: str, weights: str, precision: str, how: str, device: str = "cpu") -> Work:
    """Args: weights: a .npz file of the Keras model's trainable weights, by their paths; precision: float32 or
    bfloat16; how: eager or compiled; device: PyTorch's name of it."""
    import torch

    torch.manual_seed(0)
    found = spec(name)
    with np.load(weights) as file:
        given = Weights({key: torch.from_numpy(file[key]) for key in file.files})
    model: Any = BUILDERS[kind_of(name)](given, found.sizes).train()
    given.all_taken()
    inputs, labels = data(name)
    x = [_tensor(one) for one in (inputs if isinstance(inputs, tuple) else (inputs,))]
    y = torch.from_numpy(labels) if found.loss == "binary" else torch.from_numpy(labels).long()
    flops = _flops(model, [one[: found.batch] for one in x])
    model.to(device)
    if device != "cpu":  # so that copies go on beside the step
        x, y = [one.pin_memory() for one in x], y.pin_memory()
    optimizer = _optimizer(model, name)
    run_model = torch.compile(model) if how == "compiled" else model
    losses: list[float] = []  # of epochs
    turn = STEPS // found.epoch

    def step(first: int) -> Any:
        part = slice(first, first + found.batch)
        batch = [one[part].to(device, non_blocking=True) for one in (*x, y)]
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = run_model(*batch[:-1])
        loss = _loss(found.loss, logits.float(), batch[-1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def run(steps: int) -> None:
        for _ in range(steps // found.epoch):
            begin = len(losses) % turn * found.epoch
            losses.append(float(sum(step((begin + i) * found.batch) for i in range(found.epoch)) / found.epoch))
            assert np.isfinite(losses[-1]), "the loss is no longer finite"

    run(STEPS)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    told = f"torch {torch.__version__}, {how}, {precision}, {_name(optimizer)}, {torch.get_num_threads()} threads"
    loss = sum(losses) / len(losses)
    facts = {"parameters": parameters, "loss": loss, "precision": precision, "flops": flops, "how": told}
    return Work(run, found.epoch, facts)


def _tensor(array: np.ndarray) -> Any:
    """Tokens as int64; images [n, h, w, channels] as [n, channels, h, w] that lie in memory as before."""
    import torch

    tensor = torch.from_numpy(array)
    if array.ndim == 4:
        return tensor.permute(0, 3, 1, 2)
    return tensor if tensor.is_floating_point() else tensor.long()


def _loss(kind: str, logits: Any, labels: Any) -> Any:
    from torch.nn import functional

    if kind == "binary":
        return functional.binary_cross_entropy_with_logits(logits, labels)
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def _optimizer(model: Any, name: str) -> Any:
    import torch

    found = spec(name)
    weights = [p for p in model.parameters() if p.requires_grad]
    if found.optimizer == "adamw":
        return torch.optim.AdamW(weights, found.rate, eps=EPSILON, weight_decay=DECAY, fused=True)
    if found.optimizer == "sgd":
        return torch.optim.SGD(weights, found.rate, MOMENTUM, fused=True)
    return torch.optim.Adagrad(weights, found.rate, initial_accumulator_value=ACCUMULATOR, eps=EPSILON)


def _name(optimizer: Any) -> str:
    fused = "fused " if optimizer.defaults.get("fused") else ""
    return f"{fused}{type(optimizer).__name__}"


def _flops(model: Any, inputs: list[Any]) -> int | None:
    """Of one example's forward pass, 2 per multiply-add; None where PyTorch's counter doesn't know an LSTM's."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    if any(isinstance(one, torch.nn.LSTM) for one in model.modules()):
        return None
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(*inputs)
    model.train()
    return counter.get_total_flops() // len(inputs[0]) or None
