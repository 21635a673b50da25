"""Entry point: `tfscale runs compare RUN RUN [RUN ...] [--json]`: what sets runs apart, side by side."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfscale.cli import Parser, guard
from tfscale.config.override_syntax import plain_path
from tfscale.console import columns, table, write_result
from tfscale.errors import DataMissing, SecurityRefused, UsageError, nearest
from tfscale.files import dumps
from tfscale.run_dir.bottleneck import Verdict
from tfscale.run_folders.found_runs import find_runs
from tfscale.run_folders.run_record import RunRecord, is_run_folder, read_record
from tfscale.run_folders.runs_table import best_of, figure, plain, write_json

_ABSENT = "-"
_PLACES = ("run.", "log.", "debug.")  # where a run lies and how it speaks sets no training apart
_ROOM = 12  # columns that a run's cells need, else its values stand below each other
_FIGURES = {"epochs": "epochs", "examples_per_second": "examples/s", "parameters": "parameters", "mfu": "MFU"}
_TIMES = ("examples_per_second", "input_wait")  # which are the last report's, and told for the whole run
_SHOWN = 200  # characters of a value


def main(argv: Sequence[str] | None = None) -> int:
    """Compares; returns the exit code."""
    parser = Parser(
        "tfscale runs compare",
        "The configuration that sets runs apart, and what they came to, side by side.",
        usage="tfscale runs compare RUN RUN [RUN ...] [run.root=PATH] [--json]",
        epilog="RUN: a folder, or the name of one below run.root (default runs), such as\n"
        "resnet/563a34baa8, or 563a34baa8\n"
        "example: tfscale runs compare 563a34baa8 89c6f47174",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="RUN", help="two or more of them")
    parser.add_argument("--json", action="store_true", help="for programs")
    return guard(lambda seen: _compare(parser.parse(sys.argv[1:] if argv is None else argv), seen))


def _compare(options: argparse.Namespace, seen: dict[str, Any]) -> int:
    seen["traceback"] = "debug.traceback=true" in options.words
    root, names = Path("runs"), []
    for word in options.words:
        if word.startswith("run.root="):
            root = Path(plain_path(word.partition("=")[2]))
        elif word != "debug.traceback=true":
            names.append(plain_path(word))
    if len(names) < 2:
        raise UsageError("there is nothing to compare", where="command line", fix="name two runs: RUN RUN")
    runs = [_run(name, root) for name in names]
    keys, results = differing([_settings(run) for run in runs]), [results_of(run) for run in runs]
    if options.json:
        told = zip(runs, results, strict=True)
        write_json({"differing": keys, "runs": [{**run.as_dict(), "results": result} for run, result in told]})
    else:
        write_result(_text(runs, keys, results))
    return 0


def _run(name: str, root: Path) -> RunRecord:
    """The run of this name.

    Raises:
        DataMissing: there is none.
        UsageError: several have it.
        SecurityRefused: too little of it can be read.
    """
    if is_run_folder(Path(name)):
        return _readable(read_record(Path(name), name))
    found = find_runs(root).runs
    meant = [run for run in found if run.name == name] or [run for run in found if run.path.name == name]
    if len(meant) > 1:
        raise UsageError(
            f"{name} may be {' or '.join(plain(run.name) for run in meant)}",
            where=name,
            fix="name the recipe, too: RECIPE/NAME",
        )
    if not meant:
        close = nearest(name, [*(run.name for run in found), *(run.path.name for run in found)])
        raise DataMissing(f"there is no run {plain(name)} below {plain(root)}{close}", where=name, fix="tfscale runs")
    return _readable(meant[0])


def _readable(run: RunRecord) -> RunRecord:
    if run.state == "damaged" and not run.config and not run.result:
        raise SecurityRefused(
            f"nothing of {plain(run.name)} can be compared: {plain(run.detail)}",
            where=plain(run.path),
            fix="name another run",
        )
    return run


def _settings(run: RunRecord) -> dict[str, Any]:
    """What it was configured by; of models and data that were given as objects, what the run remembers of them."""
    config = {key: value for key, value in run.config.items() if value != "???"}
    sections = {key.partition(".")[0] for key in config}
    remembered = run.result.get("experiment")
    known = remembered.items() if isinstance(remembered, dict) else ()
    return {**{key: value for key, value in known if key.partition(".")[0] not in sections}, **config}


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys whose values aren't the same everywhere, with each run's value; None where it has none."""
    keys = sorted({key for one in settings for key in one if not key.startswith(_PLACES)})
    values = {key: [one.get(key) for one in settings] for key in keys}
    return {key: found for key, found in values.items() if any(dumps(one) != dumps(found[0]) for one in found)}


def results_of(run: RunRecord) -> dict[str, Any]:
    """What it came to, by name; what isn't known, or isn't as runs write it, is absent."""
    found: dict[str, Any] = {"state": run.state, "step": run.step}
    if run.best is not None:
        found[f"best {best_of(run)[1]}".strip()] = run.best["value"]
        found["best at step"] = run.best["step"]
    split = plain(run.config.get("eval.split") or "test")
    for part, title in (("metrics", split), ("train_metrics", "train")):
        told = run.result.get(part)
        for name, value in told.items() if isinstance(told, dict) else ():
            if isinstance(value, int | float) and name not in _TIMES:
                found[f"{title} {plain(name)}"] = value
    for name, title in _FIGURES.items():
        if isinstance(value := run.result.get(name), int | float):
            found[title] = value
    goodput = run.result.get("goodput")
    if isinstance(goodput, dict) and isinstance(goodput.get("wall_seconds"), int | float):
        found["seconds"] = goodput["wall_seconds"]
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError, ArithmeticError):
        found["verdict"] = plain(Verdict.read(run.result["verdict"]).line)
    return found


def _text(runs: Sequence[RunRecord], keys: Mapping[str, list[Any]], results: Sequence[Mapping[str, Any]]) -> str:
    """Verdicts are sentences, and stand below the table."""
    names = [plain(run.name) for run in runs]
    settings = [(plain(key), *(_shown(value) for value in found)) for key, found in keys.items()]
    titles = dict.fromkeys(title for one in results for title in one if title != "verdict")
    figures = [(title, *(figure(one.get(title, _ABSENT)) for one in results)) for title in titles]
    verdicts = [(name, str(one["verdict"])) for name, one in zip(names, results, strict=True) if "verdict" in one]
    parts = [_beside("configuration", names, settings) if settings else "they were configured alike"]
    parts.append(_beside("result", names, figures))
    if verdicts:
        parts.append(table(verdicts, framed=False))
    return "\n\n".join(parts) + "\n"


def _beside(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A column for each run; where they don't fit beside each other, a line for each."""
    longest = min(30, max(len(row[0]) for row in rows))
    if (columns() - longest) // len(names) >= _ROOM + 2:
        return table(rows, (title, *names), framed=False)
    lines = [
        (row[0] if number == 0 else "", name, row[number + 1]) for row in rows for number, name in enumerate(names)
    ]
    return table(lines, (title, "run", ""), framed=False)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else _ABSENT if value is None else dumps(value, default=str)
    text = plain(text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


if __name__ == "__main__":
    sys.exit(main())
