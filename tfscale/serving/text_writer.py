"""A language model of a run that writes texts, several at once, a token of each in turn.

Owns the thread in which it writes, and how many texts are written at once. Refuses to know HTTP. An export says only
how likely a given text is: what writes is the run itself, in the checkpoint that was exported.

    writer = await TextWriter.open(Path("runs/gpt/563a34baa8"), step=1500)
    pieces = writer.write("To be", Sampling(tokens=50))
    await anext(pieces)             # a text; the last piece is what `tfscale.text.generation.Written` tells
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tfscale.errors import UsageError
from tfscale.serving.refusal import Refusal, bad_request
from tfscale.text.sampling import Sampling

if TYPE_CHECKING:
    from tfscale.text.generation import Language, Passes, Written

AT_ONCE = 8  # texts: each holds keys and values of all that it has read
_Found = TypeVar("_Found")


class TextWriter:
    """Of one version of a model."""

    def __init__(self) -> None:
        # Keras's policy, which is the run's, is of a thread: all that touches its layers is done in this one
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="texts")
        self._held = contextlib.ExitStack()
        self._language: Language
        self._model: Any
        self._passes: Passes
        self._writing = 0

    @classmethod
    async def open(cls, run_dir: Path, *, step: int) -> TextWriter:
        """Reads the run again, and writes a token so that the next one comes soon.

        Raises:
            TfscaleError: the run has no such checkpoint, or is no causal language model.
        """
        found = cls()
        await found.begin(run_dir, step=step)
        return found

    async def begin(self, run_dir: Path, *, step: int) -> None:
        """What `open` does."""
        try:
            await self._do(self._open, run_dir, step)
        except BaseException:
            self.close()
            raise

    def _open(self, run_dir: Path, step: int) -> None:
        from tfscale.generate import opened
        from tfscale.text.generation import Passes
        from tfscale.text.text_task import Text

        run = self._held.enter_context(opened(run_dir, checkpoint=step, overrides=["plan.deterministic=false"]))
        assert isinstance(run.task, Text)
        self._language, self._model = run.task.language(), run.state.model
        self._passes = Passes(self._language, self._model)
        for _ in self._made("a", Sampling(tokens=2)):
            pass

    def _made(self, prompt: str, sampling: Sampling) -> Any:
        from tfscale.text.generation import Writer

        writer = Writer(self._language, self._model, sampling, self._passes)
        for _, piece in writer.write([prompt]):
            yield piece
        yield writer.texts[0]

    async def write(self, prompt: str, sampling: Sampling) -> AsyncGenerator[str | Written, None]:
        """Pieces of the text as they are made, and at last the whole of it. Nothing is made of it once nobody asks on.

        Raises:
            Refusal: too many texts are written already (429), or the prompt or the sampling can't be (400).
        """
        if self._writing >= AT_ONCE:
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"{self._writing} texts are written already; come again later")
        self._writing += 1
        try:
            made = self._made(prompt, sampling)
            while (piece := await self._do(next, made, None)) is not None:  # others have their turn between two
                yield piece
        except UsageError as error:
            raise bad_request(f"{error.where}: {error.what}") from None
        finally:
            self._writing -= 1

    async def _do(self, work: Callable[..., _Found], *arguments: Any) -> _Found:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    @property
    def is_at_work(self) -> bool:
        """Whether a text is being written."""
        return self._writing > 0

    async def ended(self) -> None:
        """Closes it once nothing is written any more."""
        while self.is_at_work:
            await asyncio.sleep(0.05)
        self.close()

    def close(self) -> None:
        """Gives the run up."""
        self._thread.submit(self._held.close)
        self._thread.shutdown(wait=False)
