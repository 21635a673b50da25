"""A model as exported in bfloat16 beside float32: bytes of its SavedModel, and processor time of a call, in turns.

python -m benchmarks.bfloat16_export --rows 8 +recipe=vit
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.attention import seconds

_CLASSES, _SIZE = "num_classes=1000", "image_size=224"
PUBLISHED = ("data=synthetic", *(f"{part}.{word}" for part in ("data", "task") for word in (_CLASSES, _SIZE)))


def saved(model: Any) -> tuple[int, Any]:
    """(bytes of the model's SavedModel, the function loaded from it, of the tensors that the model takes)."""
    import tensorflow as tf

    specs = [tf.TensorSpec([None, *one.shape[1:]], one.dtype) for one in model.inputs]
    module = tf.Module()
    module.held = [variable.value for variable in model.variables]
    call = tf.function(lambda *given: model(list(given), training=False), autograph=False)
    module.call = call.get_concrete_function(*specs)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        loaded = tf.saved_model.load(folder)
    return size, loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "words", nargs="*", help="of training; without: ResNet-50 and DeiT-S, 224 pixels, 1,000 classes"
    )
    parser.add_argument("--rows", type=int, default=8, help="examples of a call")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=2)
    asked = parser.parse_args()
    published = [[f"+recipe={name}", *PUBLISHED] for name in ("resnet50_imagenet", "deit_s_imagenet")]
    for words in [asked.words] if asked.words else published:
        measure(words, asked)


def measure(words: list[str], asked: argparse.Namespace) -> None:
    import tensorflow as tf

    from tfscale.composition.hydra_compose import compose
    from tfscale.export.bfloat16_model import in_bfloat16

    config = compose(words)
    task = config.task.for_data(config.data.spec())
    exact = task.build_model()
    given = [tf.random.uniform([asked.rows, *one.shape[1:]], maxval=255) for one in exact.inputs]
    files = {name: saved(model) for name, model in (("float32", exact), ("bfloat16", in_bfloat16(task, exact)))}
    steps = {name: functools.partial(loaded.call, *given) for name, (_, loaded) in files.items()}
    took = seconds(steps, rounds=asked.rounds, calls=asked.calls)
    told = (f"{name} {size / 1e6:.1f} MB, {took[name] * 1e3:.1f} ms" for name, (size, _) in files.items())
    ratio = took["bfloat16"] / took["float32"]
    print(f"{words[0]}, {asked.rows} examples: {'; '.join(told)}; {ratio:.2f} times", flush=True)


if __name__ == "__main__":
    main()
