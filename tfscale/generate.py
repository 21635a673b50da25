"""Entry point: `python -m tfscale.generate run.dir=PATH|URL prompt="..." [tokens=200]`, and its functions."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfscale.cli import Program, number, place, whole
from tfscale.console import write_line, write_result
from tfscale.console.messages import RESULT
from tfscale.data.source import Source
from tfscale.errors import OutputError, UsageError
from tfscale.files import dumps, replacing
from tfscale.text.sampling import Sampling

if TYPE_CHECKING:
    from tfscale.text.generation import Writer, Written
    from tfscale.trained.restored_run import RestoredRun

_log = logging.getLogger("tfscale.generate")
_AT_ONCE = 32  # prompts of a file


def main(argv: Sequence[str] | None = None) -> int:
    """Writes texts; returns the exit code."""
    program = Program(
        "generate",
        "A text that a trained language model writes, shown as it is made; or texts of a file of prompts.",
        example='tfscale generate run.dir=runs/gpt/563a34baa8 prompt="To be" tokens=100 temperature=0.8',
    )
    program.trained_run()
    given = Sampling()
    program.word("prompt", "TEXT", "what the text goes on from; without one it begins as texts of the training begin")
    program.word("input", "FILE", "in place of a prompt: a prompt per line, or JSON lines", type=place)
    program.word("output", "FILE.jsonl", "with input: where each prompt's text is written", type=place)
    program.word("tokens", "N", "how many are written at most", type=whole, default=given.tokens)
    program.word("temperature", "T", "below 1 likely tokens become likelier; 0: always the likeliest", type=number,
                 default=given.temperature)  # fmt: skip
    program.word("top_k", "K", "draw from the K likeliest tokens alone", type=whole)
    program.word("top_p", "P", "draw from the likeliest tokens that have this probability together", type=number)
    program.word("seed", "N", "the same one gives the same text again", type=whole, default=given.seed)
    program.word("stop", "TEXT", "the text ends before this")
    return program.run(argv, _generate)


def _generate(options: argparse.Namespace, _: dict) -> int:
    _refuse_places(options)
    stop = () if options.stop is None else (options.stop,)
    sampling = Sampling(options.tokens, options.temperature, options.top_k, options.top_p, options.seed, stop)
    more: dict[str, Any] = {"checkpoint": options.checkpoint, "overrides": options.overrides}
    with _writer(options.run_dir, sampling, config_dir=options.config_dir, **more) as (writer, run):
        began = time.monotonic()
        if options.input:
            texts = _write_file(writer, options.input, run.task.fields or ["text"], Path(options.output))
        else:
            write_result(options.prompt or "")
            for _place, piece in writer.write([options.prompt or ""]):
                write_result(piece)
            write_line("")
            texts = writer.texts
        seconds = time.monotonic() - began
        for notice in writer.notices:
            _log.log(RESULT, notice)
        made = sum(text.tokens for text in texts)
        where = f"{len(texts)} texts: {options.output}; " if options.input else ""
        _log.log(
            RESULT, f"{where}{made} tokens by step {run.state.step}, {made / seconds:.0f} a second with compilation"
        )
    return 0


def _refuse_places(options: argparse.Namespace) -> None:
    if options.input and options.prompt is not None:
        raise UsageError("prompts are given twice", where="input", fix="leave prompt or input away")
    if bool(options.input) != bool(options.output):
        raise UsageError(
            "input=FILE and output=FILE.jsonl belong together",
            where="output",
            fix="give both, or prompt=TEXT alone, whose text is shown",
        )
    if options.output and Path(options.output).suffix not in (".jsonl", ".ndjson"):
        raise UsageError(f"{options.output} is no .jsonl", where="output", fix="output=FILE.jsonl")


def _write_file(writer: Writer, path: str, fields: list[str], output: Path) -> list[Written]:
    """A JSON line for each prompt; the file appears whole."""
    from tfscale.text.given_texts import GivenTexts

    given = GivenTexts(path=path, fields=fields)
    given.check()
    prompts, texts = given.firsts, []
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as half, half.open("w", encoding="utf-8") as file:
            for first in range(0, len(prompts), _AT_ONCE):
                some = prompts[first : first + _AT_ONCE]
                for _ in writer.write([prompt for _, prompt in some]):
                    pass
                for (name, prompt), text in zip(some, writer.texts, strict=True):
                    about = {"name": name, "prompt": prompt, "text": text.text}
                    file.write(dumps({**about, "tokens": text.tokens, "ended": text.ended}) + "\n")
                texts += writer.texts
    except OSError as error:
        raise OutputError(
            f"{output} can't be written: {error.strerror or error}", where="output", fix="choose another output=FILE"
        ) from error
    return texts


def generate_text(
    run_dir: str | Path,
    prompt: str = "",
    sampling: Sampling | None = None,
    *,
    checkpoint: str | int = "best",
    overrides: Sequence[str] = (),
) -> Iterator[str]:
    """The text that a trained run writes behind a prompt, in pieces of whole characters, as they are made. TensorFlow's
    policy is the run's until the last piece.

    Args:
        run_dir: of the run, or its URL in a store.
        checkpoint: "best", "last" or a step.
        overrides: such as ["plan.precision=float32"].

    Raises:
        DataMissing, CheckpointUnusable: there is no such run, or no such checkpoint.
        UsageError: the run is no causal language model; sampling, prompt or overrides can't be.
    """
    with _writer(run_dir, sampling or Sampling(), checkpoint=checkpoint, overrides=overrides) as (writer, _):
        for _place, piece in writer.write([prompt]):
            yield piece


def generate_texts(
    run_dir: str | Path,
    prompts: Sequence[str],
    sampling: Sampling | None = None,
    *,
    checkpoint: str | int = "best",
    overrides: Sequence[str] = (),
) -> list[Written]:
    """The texts behind several prompts, made together; else as `generate_text`."""
    with _writer(run_dir, sampling or Sampling(), checkpoint=checkpoint, overrides=overrides) as (writer, _):
        for _piece in writer.write(prompts):
            pass
        return writer.texts


class _NoData(Source):
    """In the place of the run's data, which needn't be here."""

    def num_examples(self, split: str) -> int:
        return 0


@contextlib.contextmanager
def _writer(
    run_dir: str | Path,
    sampling: Sampling,
    *,
    checkpoint: str | int,
    overrides: Sequence[str],
    config_dir: str | None = None,
) -> Iterator[tuple[Writer, Any]]:
    """What writes, and the run opened again."""
    from tfscale.text.generation import Writer
    from tfscale.text.text_task import Text

    sampling.check()
    with opened(run_dir, checkpoint=checkpoint, overrides=overrides, config_dir=config_dir) as run:
        assert isinstance(run.task, Text)
        yield Writer(run.task.language(), run.state.model, sampling), run


@contextlib.contextmanager
def opened(
    run_dir: str | Path, *, checkpoint: str | int, overrides: Sequence[str], config_dir: str | None = None
) -> Iterator[RestoredRun]:
    """The run of a language model opened again; its data needn't be here. `run.task.language()` with
    `run.state.model` write texts, in the thread that has opened it.

    Raises:
        as `generate_text`.
    """
    from tfscale.run_dir.choice import parse_choice
    from tfscale.text.text_task import Text
    from tfscale.trained.restored_run import RestoredRun

    def nothing(config: Any) -> Source:
        if not isinstance(config.task, Text):
            raise UsageError(
                f"{type(config.task).__name__} is no language model, and writes no text",
                where="run.dir",
                fix="choose a run of task=text, such as one of +recipe=gpt",
            )
        config.task.language()
        return _NoData()

    which = parse_choice(str(checkpoint))
    with RestoredRun.open(run_dir, overrides, checkpoint=which, unlabelled=nothing, config_dir=config_dir) as run:
        yield run


if __name__ == "__main__":
    sys.exit(main())
