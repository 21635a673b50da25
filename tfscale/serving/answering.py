"""One request: understood for the version that serves at this moment, and computed by it.

Owns what happens where a newer version takes its place meanwhile. Refuses to know HTTP, and what a body holds.

    found = await computed(models, ("resnet", None), body, understand, timeout=30.0)
    found.model, found.asked, found.arrays, found.answers
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from tfscale.serving.loaded_model import LoadedModel
from tfscale.serving.repository import Repository
from tfscale.serving.tensor_specs import check_rows

_LARGE = 200_000  # bytes of a body that takes milliseconds to understand
_Asked = TypeVar("_Asked")
Understand = Callable[[bytes, LoadedModel], tuple[_Asked, dict[str, np.ndarray]]]


@dataclass(frozen=True)
class Computed(Generic[_Asked]):
    """Attributes:
    asked: what the request asks besides its arrays.
    arrays, answers: by input, and by output.
    """

    model: LoadedModel
    asked: _Asked
    arrays: Mapping[str, np.ndarray]
    answers: Mapping[str, np.ndarray]


async def computed(
    models: Repository, named: tuple[str, str | None], body: bytes, understand: Understand[_Asked], *, timeout: float
) -> Computed[_Asked]:
    """Args: named: the model's name, and the version that is asked for; None: whichever serves.

    Raises:
        Refusal: what `understand` refuses, or the model.
    """
    while True:
        batches = models.batches(*named)
        work = functools.partial(understand, body, batches.model)
        if len(body) < _LARGE:
            asked, arrays = work()
        else:  # others are answered meanwhile
            asked, arrays = await asyncio.get_running_loop().run_in_executor(None, work)
        if models.batches(*named) is batches:
            break  # else another version has taken its place
    rows = check_rows(arrays, batches.model.inputs)
    return Computed(batches.model, asked, arrays, await batches.answer(arrays, rows, timeout=timeout))
