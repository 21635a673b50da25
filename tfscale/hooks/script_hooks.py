"""Keras and TensorFlow in a script that knows nothing of us: what is done the moment that it imports them, and its fit.

when_imported("tensorflow", lambda: ...)        # behind the script's own settings of the environment
replace_fit(lambda keras_fit: mine)             # of every model, whoever imports Keras
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_TRAINER = "keras.src.backend.tensorflow.trainer"


def when_imported(name: str, call: Callable[[], None]) -> None:
    """Calls this right behind the import of a module; at once where it is imported already."""
    if name in sys.modules:
        call()
    else:
        sys.meta_path.insert(0, _Waiting(name, call))


def replace_fit(make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[], None]:
    """Puts what this makes of Keras's `fit` in its place, also for subclasses that call super().fit(). It is never
    asked where Keras runs on another backend than TensorFlow. Returns what puts Keras's own back.

    Keras 3.15: keras/src/backend/tensorflow/trainer.py, `TensorFlowTrainer.fit`, the only one there is; its traceback
    is without the frames inside of Keras, by keras/src/utils/traceback_utils.py, `filter_traceback`.
    """

    def replace() -> None:
        from keras.src.utils.traceback_utils import filter_traceback

        trainer = sys.modules[_TRAINER].TensorFlowTrainer
        former.append(trainer.fit)
        trainer.fit = filter_traceback(make(trainer.fit))

    def undo() -> None:
        while former:
            sys.modules[_TRAINER].TensorFlowTrainer.fit = former.pop()

    former: list[Any] = []
    when_imported(_TRAINER, replace)
    return undo


def train_alone(guard: Callable[[Callable[..., Any], str, str], Callable[..., Any]]) -> None:
    """Puts what `guard(call, what, instead)` makes of them in the place of the ways to train a Keras model besides its
    `fit`: `train_on_batch`, and an optimizer that a loop of one's own calls.

    Keras 3.15: keras/src/backend/tensorflow/trainer.py, `TensorFlowTrainer.train_on_batch`;
    keras/src/optimizers/base_optimizer.py, `BaseOptimizer.apply`, which `apply_gradients` calls.
    """
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    fit = "train by model.fit, with a train_step of your own where the step is special; or run on one worker"
    TensorFlowTrainer.train_on_batch = guard(TensorFlowTrainer.train_on_batch, "train_on_batch", fit)
    BaseOptimizer.apply = guard(BaseOptimizer.apply, "a loop that applies gradients itself", fit)


def guard_downloads(guard: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Puts what this makes of them in the place of what downloads: Keras's `get_file`, also where Keras's own data sets
    hold it, and `tfds.load` and what prepares a
    builder's data, once that is imported.

    Keras 3.15: keras/src/utils/file_utils.py, `get_file`, which keras/src/datasets/*.py import by name.
    """
    from keras.src.utils import file_utils

    former = file_utils.get_file
    guarded = guard(former)
    for name, module in list(sys.modules.items()):
        if name.startswith("keras.") and getattr(module, "get_file", None) is former:
            setattr(module, "get_file", guarded)  # noqa: B010  # of a module, whatever it is

    def tfds() -> None:
        module = sys.modules["tensorflow_datasets"]
        setattr(module, "load", guard(module.load))  # noqa: B010
        builder = module.core.DatasetBuilder
        builder.download_and_prepare = guard(builder.download_and_prepare)

    when_imported("tensorflow_datasets", tfds)


def before_folders(call: Callable[[], None]) -> None:
    """Calls this right before Keras lists a folder of examples, as `image_dataset_from_directory` does.

    Keras 3.15: keras/src/utils/dataset_utils.py, `index_directory`, which image_dataset_utils.py, text_dataset_utils.py
    and audio_dataset_utils.py call.
    """
    from keras.src.utils import dataset_utils

    former = dataset_utils.index_directory

    @functools.wraps(former)
    def listed(*args: Any, **kwargs: Any) -> Any:
        call()
        return former(*args, **kwargs)

    dataset_utils.index_directory = listed


class _Waiting(importlib.abc.MetaPathFinder):
    """Waits for one module, whose own loader loads it."""

    def __init__(self, name: str, call: Callable[[], None]):
        self._name, self._call = name, call

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader, self._call)
        return spec


class _Then(importlib.abc.Loader):
    """A loader that calls something behind what it loads; all else is the loader's that it stands for."""

    def __init__(self, loader: Any, call: Callable[[], None]):
        self._loader, self._call = loader, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._call()
