"""Entry point: `tfscale workflow train_and_deploy workflow.name=NAME [WORD ...]`: parse, convert, check, run here.

The words of all steps are looked at before the first one runs: what the last would refuse is found in seconds, not
after the hours of a training. What they name is not: data and runs come to be on the way.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tfscale.cli import Parser, guard
from tfscale.config.override_syntax import plain_path, searched
from tfscale.console import messages, table, write_line
from tfscale.errors import TfscaleError, UsageError, is_plain, is_secret, keep_secret
from tfscale.workflow.local_run import LocalWorkflow, run_here
from tfscale.workflow.step_graph import text_of
from tfscale.workflow.steps import Step
from tfscale.workflow.workflow_request import WorkflowRequest, truth

_log = logging.getLogger("tfscale.workflow")
_OWN = {
    "workflow.name=NAME": "of the model, in the registry and at the server",
    "workflow.dir=FOLDER": "of the workflow (default flows/NAME)",
    "workflow.as=ALIAS": "that the registry gives the best model (default champion)",
    "workflow.serve=true": "the server goes on when it was tried out, until Ctrl-C or SIGTERM",
    "workflow.retries=N": "of a step that was killed or preempted (default 3)",
    "workflow.show=true": "shows where each step stands, and does nothing",
    "import.source=PATH": "files to import; import.WORD: of tfscale data import",
    "validate.WORD": "of tfscale data validate",
    "evaluate.WORD": "of tfscale evaluate, such as report.slices=COLUMN; report=none: no page",
    "promote.WORD": "of tfscale promote, such as min_gain=0.01",
    "serve.WORD": "of tfscale serve, such as serve.port=8080",
    "watch.seconds=N": "watch what is served, and take it back where it doesn't hold; watch.WORD",
    "all else": "overrides of tfscale train",
}
_KEYS = ("dir", "retries", "show")
_GROUPS = "--config-dir="
_PLUG_POINTS = ("task", "data", "tracker")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the steps; returns the exit code: 1 where the model isn't better than the present one."""
    parser = Parser(
        "tfscale workflow train_and_deploy",
        "Import, validate, train, evaluate, export, promote, deploy, serve and try out:\n"
        "each step a process here, and what is done is passed over.",
        usage="tfscale workflow train_and_deploy workflow.name=NAME [WORD ...]",
        epilog=f"words:\n{table(_OWN.items(), framed=False)}\n"
        "example: tfscale workflow train_and_deploy workflow.name=digits \\\n"
        "    +recipe=resnet data=mnist",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = "a folder with your own configuration groups, for every step that has a configuration"
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", type=plain_path, default="", help=text)
    parser.add_argument("words", nargs="*", metavar="WORD", help="see below")
    return guard(lambda seen: _run(parser.parse(sys.argv[1:] if argv is None else argv), seen))


def _run(options: argparse.Namespace, seen: dict) -> int:
    words = options.words
    seen["traceback"] = "debug.traceback=true" in words
    pairs = [word.partition("=") for word in words]
    hidden = [(key, value) for key, _, value in pairs if is_secret(key) and not key.endswith("_file")]  # that is a path
    keep_secret(value for _, value in hidden if not is_plain(value))
    searched(options.config_dir)  # which refuses a folder that isn't there
    given = [word for word in words if word != "debug.traceback=true"]
    request = WorkflowRequest.of(given, own=_KEYS, config_dir=options.config_dir)
    request.check_alias()
    folder = Path(plain_path(request.own.get("dir", f"flows/{request.name}")))
    flow = LocalWorkflow(request, folder, _retries(request.own.get("retries", "3")))
    if truth(request.own.get("show", "false"), "workflow.show"):
        write_line(text_of(flow.shown()))
        return 0
    with messages.shown("auto"):
        run_here(flow, refuse_bad_words)
    return 0


def _retries(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{text!r} is no number of tries", where="workflow.retries", fix="workflow.retries=3")
    return int(text)


def refuse_bad_words(steps: Sequence[Step], *, in_cluster: bool = False) -> None:
    """Raises what the commands do: UsageError, SecurityRefused, DataMissing of a token, OutputError of a page.

    Args:
        in_cluster: whether they run in pods, whose files and packages aren't this machine's; of import, training and
            server their objects tell what is wrong.
    """
    from tfscale.composition.hydra_compose import compose
    from tfscale.importer.import_request import parse_request
    from tfscale.validation.__main__ import Asked

    found = {step.name: step.command[1:] for step in steps}
    checks: dict[str, Callable[[Sequence[str]], object]] = {
        "import": lambda words: parse_request(words[1:]),
        "validate": lambda words: Asked.of(words[1:]),
        "evaluate": lambda words: _evaluate(words, found["train"], writes_here=not in_cluster),
        "promote": lambda words: _promote(words, found["train"]),
        "serve": _serve,
        "watch": _watch,
    }
    for name, check in checks.items():
        try:
            if name in found and not (in_cluster and name in ("import", "serve")):
                _refuse_twice(found[name])
                check(found[name])
        except TfscaleError as error:
            fix = re.sub("^--help", f"tfscale {name} --help", error.fix)
            raise type(error)(f"the step {name}: {error.what}", where=error.where, fix=fix) from None
    if not in_cluster:
        train, config_dir = _training(found["train"])
        compose(train, config_dir=config_dir)


def _training(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The overrides of a step, and the folder of people's own groups."""
    asked = [word.partition("=")[2] for word in words if word.startswith(_GROUPS)]
    return [word for word in words if not word.startswith(_GROUPS)], next(iter(asked), None)


def _refuse_twice(words: Sequence[str]) -> None:
    keys = [word.partition("=")[0] for word in words]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"{key} was given twice, or the workflow gives it itself", where=key, fix="leave it away")


def _evaluate(words: Sequence[str], training: Sequence[str], *, writes_here: bool) -> None:
    from tfscale.evaluate import program, report_of
    from tfscale.run_dir.choice import parse_choice

    options = program().parse(words)
    parse_choice(options.checkpoint)
    if (report := report_of(options)) is not None and writes_here:
        report.check()
    _compose_on_top(training, options)


def _promote(words: Sequence[str], training: Sequence[str]) -> None:
    from tfscale.promotion.__main__ import program

    options = program().parse(words)
    if options.back:
        raise UsageError("a workflow gives nothing back", where="back", fix="tfscale promote name=NAME back=true")
    _compose_on_top(training, options)


def _compose_on_top(training: Sequence[str], options: argparse.Namespace) -> None:
    """The overrides, as they will be composed on top of the run's configuration, of which a group replaces what was
    there."""
    from tfscale.composition.hydra_compose import compose

    overrides = options.overrides
    training, config_dir = _training(training)
    others = [word.partition("=")[0] for word in overrides if word.partition("=")[0] in _PLUG_POINTS]
    kept = [word for word in training if re.split("[.=]", word.lstrip("+~"))[0] not in others]
    if [word for word in overrides if word not in training]:
        compose(list(dict.fromkeys([*kept, *overrides])), config_dir=config_dir)


def _serve(words: Sequence[str]) -> None:
    from tfscale.serving.__main__ import options_of, program

    options = program().parse(words)
    if options.overrides:
        raise UsageError(
            f"unknown option {options.overrides[0]!r}", where=options.overrides[0], fix="--help lists the options"
        )
    options_of(options, os.environ)


def _watch(words: Sequence[str]) -> None:
    from tfscale.serving.watch import asked_of, program

    asked_of(program().parse(words))


if __name__ == "__main__":
    sys.exit(main())
