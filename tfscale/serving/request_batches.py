"""Requests put together: while the model computes, those that wait become its next batch.

Owns the queue, its bound, and the sizes of batches. Refuses to know protocols, and TensorFlow.

    batches = Batches(model, Limits(rows=64, queue=256, threads=2))
    await batches.warm_up()
    answers = await batches.answer({"image": array}, rows=3, timeout=30.0)
    await batches.drained()

A batch of a compiled model is filled up to one of few sizes, powers of two, with copies of its last example, so that
TensorFlow meets no more than these. Nothing waits for company: who comes while a place is free is computed at once. The
largest size is that which the model computes within the latency budget, as measured while it warms up. A request that
is alone, of a size that such a model computed faster than threads take turns, is computed by the event loop itself.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus

import numpy as np

from tfscale.errors import first_line
from tfscale.serving.loaded_model import LoadedModel
from tfscale.serving.refusal import Refusal

_log = logging.getLogger(__name__)
Arrays = Mapping[str, np.ndarray]
_BRIEF = 0.002  # seconds for which nobody else need be answered; a change of threads costs a tenth of it, or much more


@dataclass(frozen=True)
class Limits:
    """Of one model.

    Attributes:
        rows: the largest batch.
        queue: examples that may wait.
        threads: batches that are computed at once.
        latency: seconds that a batch may take; the sizes that take longer aren't used.
    """

    rows: int = 64
    queue: int = 512
    threads: int = 2
    latency: float = 0.1


@dataclass(eq=False)
class _Waiting:
    """A request, or a part of a large one."""

    arrays: Arrays
    rows: int
    shapes: tuple
    done: asyncio.Future = field(repr=False)


class Batches:
    """One version of a model, as many requests use it.

    Args:
        seen: is told the size and the seconds of every batch.

    Attributes:
        waiting_rows: examples in the queue.
    """

    def __init__(self, model: LoadedModel, limits: Limits, *, seen: Callable[[int, float], None] | None = None):
        self.model, self._limits = model, limits
        self._seen = seen or (lambda rows, seconds: None)
        self._waiting: deque[_Waiting] = deque()
        self.waiting_rows = 0
        self._at_once = limits.threads if model.is_parallel else 1
        self._threads = ThreadPoolExecutor(self._at_once, thread_name_prefix="model")
        self._computing: set[asyncio.Future] = set()
        # Replaced as a whole, also by a thread that computes; () where requests are computed alone.
        self._sizes = tuple(sizes_up_to(limits.rows)) if model.is_row_wise else ()
        self._brief: set[int] = set()  # sizes that have always been computed as fast as that

    @property
    def sizes(self) -> list[int]:
        """Of the batches, in their order."""
        return list(self._sizes or (self.model.fixed_rows or 1,))

    @property
    def is_at_work(self) -> bool:
        """Whether a batch is computed."""
        return bool(self._computing)

    async def warm_up(self) -> dict[int, float]:
        """Computes a batch of every size, with the examples of the export or with zeros.

        Returns:
            Seconds by size, of the second time; empty where zeros aren't what the model takes.
        """
        loop, times = asyncio.get_running_loop(), dict[int, float]()
        for rows in self.sizes:
            arrays = self._example(rows)
            if arrays is None:
                return {}
            try:
                times[rows] = await loop.run_in_executor(self._threads, self._timed, arrays)
            except Exception as error:  # zeros that are no examples
                if self.model.examples:
                    raise
                place = self.model.version.folder
                _log.info(f"{place} isn't warmed up: it holds no examples, and of zeros {first_line(error)}")
                return {}
            if not self._sizes:
                break
            if times[rows] > self._limits.latency and rows != self._sizes[0]:
                self._sizes = tuple(size for size in self._sizes if size < rows)
                break
        if self.model.is_compiled:  # code of people's own may take its time at any moment
            self._brief = {rows for rows, seconds in times.items() if seconds < _BRIEF and rows in self._sizes}
        return times

    def _timed(self, arrays: Arrays) -> float:
        rows = len(next(iter(arrays.values())))
        if any(answer.ndim == 0 or len(answer) != rows for answer in self.model(arrays).values()):
            self._sizes = ()
        began = time.monotonic()
        self.model(arrays)
        return time.monotonic() - began

    def _example(self, rows: int) -> Arrays | None:
        if self.model.examples:
            return {name: np.resize(array, (rows, *array.shape[1:])) for name, array in self.model.examples.items()}
        if not self._sizes:
            return None
        specs = self.model.inputs.values()
        if any(size is None for spec in specs for size in spec.shape[1:]):
            return None
        return {
            spec.name: np.full(
                [rows, *(size or 1 for size in spec.shape[1:])],
                b"" if spec.dtype == "string" else 0,
                spec.numpy_dtype,
            )
            for spec in specs
        }

    def check_room(self, rows: int = 1) -> None:
        """Raises Refusal (429) where so many more may not wait, also before a body is read."""
        if self.waiting_rows + rows > self._limits.queue:
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"{self.waiting_rows} examples wait already; come again later")

    async def answer(self, arrays: Arrays, rows: int, *, timeout: float) -> dict[str, np.ndarray]:
        """What the model says about a request's examples.

        Raises:
            Refusal: too many wait (429), it took too long (504), or the model refuses the examples (422).
        """
        if rows > self._limits.queue:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request may have {self._limits.queue} examples")
        self.check_room(rows)
        loop = asyncio.get_running_loop()
        parts = []
        for own, count in self._cut(arrays, rows):
            shapes = tuple((name, own[name].shape[1:]) for name in self.model.inputs if name in own)
            parts.append(_Waiting(own, count, shapes, loop.create_future()))
        self._waiting.extend(parts)
        self.waiting_rows += rows
        try:
            await asyncio.sleep(0)  # others who came at this moment are of the same batch
            self._start()
            async with asyncio.timeout(timeout):
                answers = [await part.done for part in parts]
        except TimeoutError:
            raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, f"the model didn't answer within {timeout:g} s") from None
        finally:
            for part in parts:
                part.done.cancel()
                if part in self._waiting:
                    self._waiting.remove(part)
                    self.waiting_rows -= part.rows
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def _cut(self, arrays: Arrays, rows: int) -> Iterator[tuple[Arrays, int]]:
        """A request in parts that fit a batch, and how many examples each has."""
        if not (sizes := self._sizes):
            yield arrays, rows
            return
        for first in range(0, rows, sizes[-1]):
            part = slice(first, first + sizes[-1])
            yield {name: array[part] for name, array in arrays.items()}, min(sizes[-1], rows - first)

    async def drained(self) -> None:
        """Waits for all that was begun."""
        while self._waiting or self._computing:
            await asyncio.sleep(0.01)
        self._threads.shutdown(wait=False)

    # -- one batch

    def _start(self) -> None:
        while self._waiting and len(self._computing) < self._at_once:
            batch = self._next()
            if not self._waiting and not self._computing and len(batch) == 1 and batch[0].rows in self._brief:
                self._answered(batch, self._compute(batch))
                continue
            computing = asyncio.get_running_loop().run_in_executor(self._threads, self._compute, batch)
            self._computing.add(computing)
            computing.add_done_callback(functools.partial(self._finished, batch))

    def _next(self) -> list[_Waiting]:
        """The first that wait, as many as fit together."""
        batch = [self._waiting.popleft()]
        rows, sizes = batch[0].rows, self._sizes
        while sizes and self._waiting and self._waiting[0].shapes == batch[0].shapes:
            if rows + self._waiting[0].rows > sizes[-1]:
                break
            batch.append(self._waiting.popleft())
            rows += batch[-1].rows
        self.waiting_rows -= rows
        return batch

    def _compute(self, batch: list[_Waiting]) -> list[dict[str, np.ndarray] | Exception]:
        """The answer of each request, in a thread. Where the batch fails, each is tried alone: one request's broken
        picture is no matter of the others."""
        try:
            return [*self._split(batch)]
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [one for alone in batch for one in self._compute([alone])]

    def _split(self, batch: list[_Waiting]) -> list[dict[str, np.ndarray]]:
        rows, sizes = sum(one.rows for one in batch), self._sizes
        if not sizes:
            return [self._called(one.arrays, one.rows) for one in batch]
        size = next(size for size in sizes if size >= rows) if self.model.is_compiled else rows
        arrays = {}
        for name in batch[0].arrays:
            each = [one.arrays[name] for one in batch]
            if size > rows:
                each.append(np.repeat(each[-1][-1:], size - rows, axis=0))
            arrays[name] = each[0] if len(each) == 1 else np.concatenate(each)
        answers = self._called(arrays, rows)
        if any(len(answer) != size for answer in answers.values()):  # not one for each example, whatever it promised
            self._sizes = ()
            return [self._called(one.arrays, one.rows) for one in batch]
        found, first = [], 0
        for one in batch:
            found.append({name: answer[first : first + one.rows] for name, answer in answers.items()})
            first += one.rows
        return found

    def _called(self, arrays: Arrays, rows: int) -> dict[str, np.ndarray]:
        began = time.monotonic()
        answers = self.model(arrays)
        seconds = time.monotonic() - began
        if seconds > 10 * _BRIEF:
            self._brief.discard(rows)
        self._seen(rows, seconds)
        return answers

    def _finished(self, batch: list[_Waiting], done: asyncio.Future) -> None:
        self._computing.discard(done)
        self._answered(batch, done.result())
        self._start()

    def _answered(self, batch: list[_Waiting], answers: list[dict[str, np.ndarray] | Exception]) -> None:
        for one, answer in zip(batch, answers, strict=True):
            if one.done.done():
                continue  # who asked is gone
            if isinstance(answer, Exception):
                one.done.set_exception(_refusal(self.model, answer))
            else:
                one.done.set_result(answer)


def sizes_up_to(rows: int) -> list[int]:
    """Powers of two, and the number itself: 1, 2, 4, ..., 64."""
    return sorted({*(2**i for i in range(rows.bit_length()) if 2**i <= rows), rows})


def _refusal(model: LoadedModel, error: Exception) -> Refusal:
    """What the model says of examples that it can't compute with; of its other errors no more than that."""
    if model.is_about_examples(error):
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"the model can't take these examples: {first_line(error)}")
    _log.error(f"the model failed: {type(error).__name__}: {first_line(error)}")
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the model failed; the server's log says how")
