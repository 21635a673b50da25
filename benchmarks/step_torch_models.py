"""The models of `step_models.py` in PyTorch, each from the weights of the one in Keras.

Owns which weight goes where. Runs in an environment of its own, see step_torch.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.gpt_torch import through_block
from benchmarks.step_models import digits_blocks


class Weights:
    """A Keras model's weights by path ("dense/kernel"), in its order, each taken once."""

    def __init__(self, values: Mapping[str, Any]):
        self._left = dict(values)

    def next(self) -> Any:
        return self._left.pop(next(iter(self._left)))

    def pair(self, layer: str = "") -> tuple[Any, Any]:
        """The kernel and the bias of this layer, or of the next one."""
        if not layer:
            return self.next(), self.next()
        return self._left.pop(f"{layer}/kernel"), self._left.pop(f"{layer}/bias")

    def take(self, path: str) -> Any:
        return self._left.pop(path)

    def all_taken(self) -> None:
        """Raises ValueError where this model has fewer weights than the Keras model."""
        if self._left:
            raise ValueError(f"the Keras model has more weights than this one: {sorted(self._left)}")


def _linear(*pairs: tuple[Any, Any], width: int | None = None) -> Any:
    """One of several matrices [in, ...] side by side, and their biases.

    Args:
        width: of the input, where the matrices are [in, heads, part].
    """
    import torch

    matrix = torch.cat([kernel.reshape(width or len(kernel), -1) for kernel, _ in pairs], 1)
    made = torch.nn.Linear(*matrix.shape)
    return _filled(made, matrix.T, torch.cat([bias.flatten() for _, bias in pairs]))


def _filled(layer: Any, weight: Any, bias: Any) -> Any:
    import torch

    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def _convolution(kernel: Any, bias: Any = None, **how: Any) -> Any:
    import torch

    kernel = kernel.permute(3, 2, 0, 1)  # from [h, w, in, out]
    made = torch.nn.Conv2d(kernel.shape[1], len(kernel), tuple(kernel.shape[2:]), bias=bias is not None, **how)
    return _filled(made, kernel, bias)


def _norm(given: Weights, layer: str, epsilon: float) -> Any:
    """A BatchNorm, whose momentum is one minus Keras's."""
    import torch

    gamma, beta = given.take(f"{layer}/gamma"), given.take(f"{layer}/beta")
    return _filled(torch.nn.BatchNorm2d(len(gamma), eps=epsilon, momentum=0.01), gamma, beta)


def _block(given: Weights, sizes: Mapping[str, int], epsilon: float) -> Any:
    """What through_block goes through."""
    from torch import nn

    width = sizes["width"]

    def norm() -> Any:
        return _filled(nn.LayerNorm(width, eps=epsilon), *given.pair())

    block = nn.Module()
    block.before = norm()
    queries, keys, values, out = [given.pair() for _ in range(4)]
    block.projections = _linear(queries, keys, values, width=width)
    block.out = _linear((out[0].reshape(-1, width), out[1]))
    block.between = norm()
    block.wide, block.narrow = [_linear(given.pair()) for _ in range(2)]
    return block


def _transformer(given: Weights, sizes: Mapping[str, int]) -> Any:
    import torch
    from torch import nn

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = (nn.Embedding.from_pretrained(given.next(), freeze=False) for _ in range(2))
            self.blocks = nn.ModuleList(_block(given, sizes, 1e-3) for _ in range(sizes["layers"]))
            self.last = _filled(nn.LayerNorm(sizes["width"], eps=1e-3), *given.pair())
            self.answers = _linear(given.pair())

        def forward(self, tokens: Any) -> Any:
            x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
            for block in self.blocks:
                x = through_block(block, x, sizes["heads"])
            return self.answers(self.last(x))

    return Decoder()


def _vit(given: Weights, sizes: Mapping[str, int]) -> Any:
    from torch import nn

    class Vit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = _convolution(*given.pair(), stride=sizes["patch"])
            self.places = nn.Parameter(given.next())
            self.blocks = nn.ModuleList(_block(given, sizes, 1e-6) for _ in range(sizes["layers"]))
            self.last = _filled(nn.LayerNorm(sizes["width"], eps=1e-6), *given.pair())
            self.answers = _linear(given.pair())

        def forward(self, images: Any) -> Any:
            x = self.patches(images).flatten(2).transpose(1, 2) + self.places
            for block in self.blocks:
                x = through_block(block, x, sizes["heads"], causal=False)
            return self.answers(self.last(x).mean(1))

    return Vit()


def _resnet50(given: Weights, sizes: Mapping[str, int]) -> Any:
    import torch
    from torch import nn
    from torch.nn import functional

    def part(name: str, **how: Any) -> Any:
        return nn.Sequential(_convolution(*given.pair(f"{name}_conv"), **how), _norm(given, f"{name}_bn", 1.001e-5))

    class Bottleneck(nn.Module):
        def __init__(self, name: str, stride: int, *, first: bool) -> None:
            super().__init__()
            self.shortcut = part(f"{name}_0", stride=stride) if first else nn.Identity()
            self.parts = nn.Sequential(
                part(f"{name}_1", stride=stride), nn.ReLU(), part(f"{name}_2", padding=1), nn.ReLU(), part(f"{name}_3")
            )

        def forward(self, x: Any) -> Any:
            return functional.relu(self.shortcut(x) + self.parts(x))

    stages = [(2, 3, 1), (3, 4, 2), (4, 6, 2), (5, 3, 2)]  # of keras.applications: its number, blocks, stride
    blocks = [
        Bottleneck(f"conv{stage}_block{i + 1}", 1 if i else stride, first=not i)
        for stage, count, stride in stages
        for i in range(count)
    ]
    begin = [part("conv1", stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), _linear(given.pair("predictions"))]
    return nn.Sequential(*begin, *blocks, *end).to(memory_format=torch.channels_last)


def _digits(given: Weights, sizes: Mapping[str, int]) -> Any:
    import torch
    from torch import nn
    from torch.nn import functional

    def part(name: str, stride: int = 1) -> Any:
        kernel = given.take(f"{name}_conv/kernel")
        wide = len(kernel) == 3
        even = wide and stride == 2  # where Keras's "same" adds a row and a column at the end alone
        convolution = _convolution(kernel, stride=stride, padding=1 if wide and not even else 0)
        pad = [nn.ZeroPad2d((0, 1, 0, 1))] if even else []
        return nn.Sequential(*pad, convolution, _norm(given, f"{name}_bn", 1e-3))

    class Block(nn.Module):
        def __init__(self, name: str, stride: int, *, changes: bool) -> None:
            super().__init__()
            self.shortcut = part(f"{name}_0", stride) if changes else nn.Identity()
            self.parts = nn.Sequential(part(f"{name}_1", stride), nn.ReLU(), part(f"{name}_2"))

        def forward(self, x: Any) -> Any:
            return functional.relu(self.shortcut(x) + self.parts(x))

    blocks = [Block(name, stride, changes=changes) for name, _, stride, changes in digits_blocks(sizes)]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), _linear(given.pair("answers"))]
    return nn.Sequential(part("begin"), nn.ReLU(), *blocks, *end).to(memory_format=torch.channels_last)


def _lstm(given: Weights, sizes: Mapping[str, int]) -> Any:
    import torch
    from torch import nn

    class Lstm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding.from_pretrained(given.next(), freeze=False)
            self.lstm = nn.LSTM(sizes["embedded"], sizes["width"], batch_first=True)
            with torch.no_grad():  # the gates are in Keras's order
                self.lstm.weight_ih_l0.copy_(given.next().T)
                self.lstm.weight_hh_l0.copy_(given.next().T)
                self.lstm.bias_ih_l0.copy_(given.next())
                self.lstm.bias_hh_l0.zero_()
            self.lstm.bias_hh_l0.requires_grad_(False)
            self.answers = _linear(given.pair())

        def forward(self, tokens: Any) -> Any:
            return self.answers(self.lstm(self.tokens(tokens))[0][:, -1])

    return Lstm()


def _wide_and_deep(given: Weights, sizes: Mapping[str, int]) -> Any:
    import torch
    from torch import nn

    class WideAndDeep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            deep, wide = _tables(given, sizes)
            self.deep, self.wide = (
                nn.Embedding.from_pretrained(one, freeze=False, sparse=True) for one in (deep, wide)
            )
            layers = [_linear(given.pair(name)) for name in ("dense", "dense_1", "dense_2")]
            self.layers = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

        def forward(self, numbers: Any, ids: Any) -> Any:
            x = torch.cat([self.deep(ids).flatten(1), numbers], 1)
            return self.layers(x) + self.wide(ids).sum(1)

    return WideAndDeep()


def _tables(given: Weights, sizes: Mapping[str, int]) -> tuple[Any, Any]:
    """(the deep one, the wide one), which are told apart by how wide they are."""
    tables = {one.shape[1]: one for one in (given.take("embedding/embeddings"), given.take("embedding_1/embeddings"))}
    assert math.prod(tables[1].shape) == sizes["rows"]
    return tables[sizes["embedded"]], tables[1]


BUILDERS: dict[str, Callable[[Weights, Mapping[str, int]], Any]] = {
    "transformer": _transformer,
    "vit": _vit,
    "resnet50": _resnet50,
    "digits": _digits,
    "lstm": _lstm,
    "wide_and_deep": _wide_and_deep,
}
