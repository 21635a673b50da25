"""Every recipe made so small that it trains a few steps in seconds, with the data that it needs.

A new recipe has its line in `SMALL` (tests/recipes/test_recipes.py asks for it); the tests there do the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.tables import import_table
from tfscale.importer.dataset import import_data
from tfscale.importer.import_request import parse_request

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Small:
    """How a recipe is run small.

    Attributes:
        overrides: small widths, few examples.
        quiet: what turns off the noise that each replica draws for itself (dropout and its like), which parity can't
            compare.
        unknown: what only data that are there tell, for a plan without them.
        data: prepares data below the folder that all tests share, as their users would.
        published: it is another one's task at the size of a paper: its overrides keep the full depth, and two steps are
            all that is trained.
        too_large: golden machines that hold no such model.
    """

    overrides: tuple[str, ...]
    quiet: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    data: Callable[[Path], object] | None = None
    published: bool = False
    too_large: tuple[str, ...] = ()


def _import_table(folder: Path) -> None:
    import_table(folder, {"train": _TABLE, "test": _TABLE}, {"x": "number"}, name="small_table")


def _import_text(folder: Path) -> None:
    import_data(parse_request([str(ROOT / "README.md"), "name=small_text", f"dir={folder}", "processes=1"]))


_ROWS = 260  # more than the examples on which exports are compared
_TABLE = {
    "x": [i / 7 for i in range(_ROWS)],
    "of": ["abcde"[i % 5] for i in range(_ROWS)],
    "label": [i % 2 for i in range(_ROWS)],
}
_TINY_TEXT = ("task.width=16", "task.heads=2", "task.layers=1", "data.length=17")
_TINY_PICTURES = (
    "data=synthetic", "data.train_examples=40", "data.test_examples=5", "data.image_size=40", "task.image_size=32",
    "data.num_classes=10", "task.num_classes=10",
)  # fmt: skip

SMALL = {
    "resnet": Small(("task.width=4", "task.depth=8")),
    "resnet50_imagenet": Small((*_TINY_PICTURES, "task.width=4"), published=True),
    "vit": Small(("task.width=16", "task.depth=2", "task.heads=2", "task.patch=7"), quiet=("task.drop_path=0.0",)),
    "deit_s_imagenet": Small(
        (*_TINY_PICTURES, "task.width=24", "train.global_batch=4"), quiet=("task.drop_path=0.0",), published=True
    ),
    "convnext": Small(("task.depths=[1,1]", "task.widths=[8,16]"), quiet=("task.drop_path=0.0",)),
    "convnext_t_imagenet": Small(
        (*_TINY_PICTURES, "task.widths=[4,8,8,16]", "train.global_batch=4"), quiet=("task.drop_path=0.0",), published=True
    ),
    "tabular": Small(
        ("data.name=small_table",),
        quiet=("task.dropout=0.0",),
        unknown=("data.name=any", "task.columns={label:{name:y,kind:class,classes:[a,b]},columns:{x:{type:number}}}"),
        data=_import_table,
    ),
    "text": Small(
        ("data.name=small_text", *_TINY_TEXT),
        unknown=("data.name=any", "task.length=256", "task.vocabulary=4096"),
        data=_import_text,
    ),
    "gpt": Small(
        (*_TINY_TEXT, f"data.path={ROOT / 'README.md'}", "data.test_share=0.2", "eval.global_batch=4096"),
        unknown=("train.global_batch=32",),  # its 12 aren't shared by eight
    ),
    "gpt2_124m": Small(
        ("data.name=small_text", "task.width=24", "data.length=17"),
        unknown=("task.length=1024", "task.vocabulary=50257"),
        data=_import_text,
        published=True,
        too_large=("container-2core-4gib.json",),
    ),
    "bert": Small((*_TINY_TEXT, f"data.path={ROOT / 'README.md'}", "data.test_share=0.2", "eval.global_batch=4096")),
    "bert_base": Small(
        ("data.name=small_text", "task.width=24", "data.length=17"),
        quiet=("task.dropout=0.0",),
        unknown=("task.length=512", "task.vocabulary=30521"),
        data=_import_text,
        published=True,
    ),
    "keras_hub": Small(("task.lora_rank=2",)),
    "dlrm": Small(("data.tables=[30,7]", "data.train_examples=600", "data.test_examples=300", "eval.global_batch=300")),
    "dlrm_criteo": Small(
        ("data.name=small_table", "task.tables=[5]"),
        data=_import_table,
        published=True,
        too_large=("container-2core-4gib.json",),
    ),
    "diffusion": Small(("task.widths=[4]", "task.image_size=8", "task.sampling_steps=2")),
    "unet": Small(
        ("data.train_examples=40", "data.test_examples=259", "data.image_size=32", "task.image_size=32", "task.width=2",
         "task.levels=2", "optimizer.layer_decay=0.75"),
    ),
    "detection": Small(
        ("data.train_examples=40", "data.test_examples=259", "data.image_size=32", "task.image_size=32", "task.max_level=2",
         "task.filters=[64]", "task.blocks=[1]"),
    ),
    "unet_paper": Small(
        ("data=canvas", "data.train_examples=16", "data.test_examples=3", "data.image_size=32", "task.image_size=284",
         "task.width=2", "task.channels=3", "task.num_classes=11"),
        quiet=("task.dropout=0.0",),
        unknown=("data.name=any", "train.global_batch=8"),  # its one picture isn't shared by eight
        published=True,
    ),
}  # fmt: skip
