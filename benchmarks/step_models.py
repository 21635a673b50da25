"""Models that people write in Keras, with data and the first weights, the same for every contestant of `step.py`.

    inputs, labels = data("transformer")          # of STEPS batches
    model = compiled("transformer")               # under the policy that is set; its weights depend on nothing else

"transformer@quick" is the same model in a size that takes no time, "transformer@gpu" in one for a GPU. Needs NumPy
alone until a model is built, since PyTorch's contestants read the data here, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

STEPS = 20  # batches of data, whose losses prove equal work
QUICK, GPU = "@quick", "@gpu"
DECAY, EPSILON = 0.004, 1e-7  # AdamW's
MOMENTUM, ACCUMULATOR = 0.9, 0.1  # SGD's, and what Adagrad begins with


@dataclass(frozen=True)
class Spec:
    """One model.

    Attributes:
        epoch: steps of an epoch, which a contestant does at a time; divides STEPS.
        loss: "classes" and "binary" take logits; "probabilities" takes what a softmax gives.
        optimizer: "adamw", "sgd" or "adagrad", at `rate`.
        sizes: what the model is built from, by name.
        quick: what is smaller in the quick one: sizes, and "batch".
        gpu: what is larger in the one for a GPU: sizes, and "batch"; empty where it isn't measured there.
        tolerance: of the mean loss of STEPS steps in float32.
        xla: whether Keras under XLA is a peer on a CPU: convolutions are several times slower under it there.
    """

    title: str
    batch: int
    epoch: int
    loss: str
    optimizer: str
    rate: float
    sizes: Mapping[str, int]
    quick: Mapping[str, int]
    xla: bool = True
    tolerance: float = 1e-3
    notes: tuple[str, ...] = ()
    gpu: Mapping[str, int] = field(default_factory=dict)


_NO_XLA = "Keras under XLA is left out: on a CPU its convolutions take several times as long."
SPECS = {
    "transformer": Spec(
        "a causal transformer of Keras layers: 4 layers, 4 heads, 256 wide, 128 tokens",
        16, 10, "classes", "adamw", 1e-3,
        {"width": 256, "layers": 4, "heads": 4, "length": 128, "vocabulary": 259},
        {"width": 16, "layers": 1, "heads": 2, "length": 8, "batch": 4},
        gpu={"width": 768, "layers": 12, "heads": 12, "length": 1024, "vocabulary": 50257, "batch": 8},
    ),
    "vit": Spec(
        "ViT-S/16 at 96 px of Keras layers, with the mean over patches",
        16, 5, "classes", "adamw", 1e-4,
        {"width": 384, "layers": 12, "heads": 6, "patch": 16, "side": 96, "classes": 1000},
        {"width": 16, "layers": 1, "heads": 2, "side": 32, "classes": 10, "batch": 4},
        gpu={"side": 224, "batch": 256},
    ),
    "resnet50": Spec(
        "keras.applications.ResNet50 at 128 px, as a user brings it",
        16, 5, "probabilities", "sgd", 1e-3,
        {"side": 128, "classes": 1000},
        {"side": 32, "classes": 10, "batch": 4},
        xla=False,
        tolerance=1e-2,
        notes=(
            _NO_XLA,
            "Losses may be 1e-2 apart: rounding alone turns its first gradients by 3 %, PyTorch's own in float32"
            " from those in float64, too, and Keras's own by 2 % where images are multiplied by 1.000001.",
            "PyTorch's has the biases and the strides of keras.applications, and channels_last.",
        ),
        gpu={"side": 224, "batch": 256},
    ),
    "digits": Spec(
        "a ResNet-20 of Keras layers: 28 px, 1 channel, 16 to 64 wide",
        64, 20, "classes", "sgd", 1e-3,
        {"side": 28, "channels": 1, "width": 16, "blocks": 3, "classes": 10},
        {"side": 8, "width": 4, "blocks": 1, "batch": 4},
        xla=False,
        notes=(_NO_XLA,),
    ),
    "lstm": Spec(
        "an LSTM of 256 over 100 tokens",
        32, 20, "classes", "adamw", 1e-3,
        {"width": 256, "embedded": 128, "length": 100, "vocabulary": 20_000, "classes": 2},
        {"width": 8, "embedded": 8, "length": 8, "vocabulary": 50, "batch": 4},
        notes=("PyTorch's LSTM has a second bias, which is zero and isn't trained.",),
    ),
    "wide_and_deep": Spec(
        "wide and deep: 8 ids in a table of 1 M rows of 16, 13 numbers, 256 and 128 wide",
        512, 20, "binary", "adagrad", 1e-2,
        {"rows": 1_000_000, "embedded": 16, "ids": 8, "numbers": 13, "wide": 256, "narrow": 128},
        {"rows": 1000, "embedded": 4, "wide": 16, "narrow": 8, "batch": 16},
        notes=("Adagrad, whose gradients of tables may be sparse without changing what is computed.",),
    ),
}  # fmt: skip


def kind_of(name: str) -> str:
    """The model's name, without its size."""
    return name.partition("@")[0]


def spec(name: str) -> Spec:
    """Of the model, or of its quick size or that for a GPU."""
    found = SPECS[kind_of(name)]
    if kind_of(name) == name:
        return found
    other = found.quick if name.endswith(QUICK) else found.gpu
    sizes = {key: other.get(key, value) for key, value in found.sizes.items()}
    epoch = STEPS if name.endswith(QUICK) else found.epoch
    return dataclasses.replace(found, batch=other["batch"], epoch=epoch, sizes=sizes)


def data(name: str) -> tuple[Any, np.ndarray]:
    """(inputs, labels) of STEPS whole batches; inputs are an array, or a tuple of them."""
    found, random = spec(name), np.random.default_rng(0)
    rows, sizes = STEPS * found.batch, found.sizes
    kind = kind_of(name)
    if kind == "transformer":
        tokens = random.integers(0, sizes["vocabulary"], (rows, sizes["length"] + 1)).astype(np.int32)
        return tokens[:, :-1], tokens[:, 1:]
    if kind == "wide_and_deep":
        numbers = random.standard_normal((rows, sizes["numbers"]), np.float32)
        ids = random.integers(0, sizes["rows"], (rows, sizes["ids"])).astype(np.int32)
        return (numbers, ids), random.integers(0, 2, (rows, 1)).astype(np.float32)
    labels = random.integers(0, sizes["classes"], rows).astype(np.int32)
    if kind == "lstm":
        return random.integers(0, sizes["vocabulary"], (rows, sizes["length"])).astype(np.int32), labels
    shape = (rows, sizes["side"], sizes["side"], sizes.get("channels", 3))
    return random.standard_normal(shape, np.float32), labels


def compiled(name: str, **how: Any) -> Any:
    """The Keras model with its optimizer and its loss.

    Args:
        how: further arguments of `compile`.
    """
    import keras

    found = spec(name)
    optimizer: Any = {
        "adamw": lambda: keras.optimizers.AdamW(found.rate, weight_decay=DECAY, epsilon=EPSILON),
        "sgd": lambda: keras.optimizers.SGD(found.rate, MOMENTUM),
        "adagrad": lambda: keras.optimizers.Adagrad(found.rate, ACCUMULATOR, EPSILON),
    }[found.optimizer]()
    loss: Any = {
        "classes": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "probabilities": lambda: "sparse_categorical_crossentropy",
        "binary": lambda: keras.losses.BinaryCrossentropy(from_logits=True),
    }[found.loss]()
    model = build(name)
    model.compile(optimizer, loss=loss, **how)
    return model


def build(name: str) -> Any:
    """The Keras model."""
    import keras

    keras.utils.set_random_seed(0)
    builders: dict[str, Callable[[Mapping[str, int]], Any]] = {
        "transformer": _transformer,
        "vit": _vit,
        "resnet50": _resnet50,
        "digits": _digits,
        "lstm": _lstm,
        "wide_and_deep": _wide_and_deep,
    }
    return builders[kind_of(name)](spec(name).sizes)


def _transformer(sizes: Mapping[str, int]) -> Any:
    import keras
    from keras import layers

    inputs = keras.Input([sizes["length"]], dtype="int32")
    x = layers.Embedding(sizes["vocabulary"], sizes["width"])(inputs)
    x = x + layers.Embedding(sizes["length"], sizes["width"])(_places(inputs))
    for _ in range(sizes["layers"]):
        x = _block(x, sizes, epsilon=1e-3, use_causal_mask=True)
    return keras.Model(inputs, layers.Dense(sizes["vocabulary"])(layers.LayerNormalization()(x)))


def _vit(sizes: Mapping[str, int]) -> Any:
    import keras
    from keras import layers

    inputs, width = keras.Input([sizes["side"], sizes["side"], 3]), sizes["width"]
    patches = (sizes["side"] // sizes["patch"]) ** 2
    x = layers.Reshape([patches, width])(layers.Conv2D(width, sizes["patch"], sizes["patch"])(inputs))
    x = x + layers.Embedding(patches, width)(_places(x[:, :, 0]))
    for _ in range(sizes["layers"]):
        x = _block(x, sizes, epsilon=1e-6)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(inputs, layers.Dense(sizes["classes"])(x))


def _places(rows: Any) -> Any:
    """0, 1, 2, ... of every row [rows, length]."""
    from keras import ops

    return ops.cumsum(ops.ones_like(rows, dtype="int32"), axis=1) - 1


def _block(x: Any, sizes: Mapping[str, int], *, epsilon: float, **attention: Any) -> Any:
    from keras import layers

    width, heads = sizes["width"], sizes["heads"]
    seen = layers.LayerNormalization(epsilon=epsilon)(x)
    x = x + layers.MultiHeadAttention(heads, width // heads)(seen, seen, **attention)
    seen = layers.LayerNormalization(epsilon=epsilon)(x)
    return x + layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(seen))


def _resnet50(sizes: Mapping[str, int]) -> Any:
    import keras

    shape = (sizes["side"], sizes["side"], 3)
    return keras.applications.ResNet50(weights=None, input_shape=shape, classes=sizes["classes"])


def _digits(sizes: Mapping[str, int]) -> Any:
    import keras
    from keras import layers

    def part(x: Any, width: int, kernel: int, stride: int, name: str) -> Any:
        x = layers.Conv2D(width, kernel, stride, "same", use_bias=False, name=f"{name}_conv")(x)
        return layers.BatchNormalization(name=f"{name}_bn")(x)

    inputs = keras.Input([sizes["side"], sizes["side"], sizes["channels"]])
    x = layers.ReLU()(part(inputs, sizes["width"], 3, 1, "begin"))
    for name, width, stride, changes in digits_blocks(sizes):
        seen = layers.ReLU()(part(x, width, 3, stride, f"{name}_1"))
        seen = part(seen, width, 3, 1, f"{name}_2")
        x = layers.ReLU()(seen + (part(x, width, 1, stride, f"{name}_0") if changes else x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(sizes["classes"], name="answers")(x))


def digits_blocks(sizes: Mapping[str, int]) -> list[tuple[str, int, int, bool]]:
    """(name, width, stride, whether its shortcut is a convolution) of the blocks of the ResNet-20."""
    return [
        (f"block{stage}{i}", sizes["width"] << stage, 2 if stage and not i else 1, bool(stage and not i))
        for stage in range(3)
        for i in range(sizes["blocks"])
    ]


def _lstm(sizes: Mapping[str, int]) -> Any:
    import keras
    from keras import layers

    inputs = keras.Input([sizes["length"]], dtype="int32")
    x = layers.LSTM(sizes["width"])(layers.Embedding(sizes["vocabulary"], sizes["embedded"])(inputs))
    return keras.Model(inputs, layers.Dense(sizes["classes"])(x))


def _wide_and_deep(sizes: Mapping[str, int]) -> Any:
    import keras
    from keras import layers, ops

    numbers, ids = keras.Input([sizes["numbers"]]), keras.Input([sizes["ids"]], dtype="int32")
    wide = ops.sum(layers.Embedding(sizes["rows"], 1)(ids), axis=1)
    x = layers.Flatten()(layers.Embedding(sizes["rows"], sizes["embedded"])(ids))
    x = layers.Concatenate()([x, numbers])
    for width in (sizes["wide"], sizes["narrow"]):
        x = layers.Dense(width, activation="relu")(x)
    return keras.Model([numbers, ids], layers.Dense(1)(x) + wide)
