"""Entry point: `tfscale workflow train_and_deploy workflow.name=NAME [WORD ...]`: parse, convert, run here."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tfscale.cli import Parser, guard
from tfscale.config.override_syntax import plain_path
from tfscale.console import messages, table, write_line
from tfscale.errors import UsageError, is_plain, is_secret, keep_secret
from tfscale.workflow.local_run import LocalWorkflow, run_here
from tfscale.workflow.step_graph import text_of
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
    "serve.WORD": "of tfscale serve, such as serve.port=8080",
    "all else": "overrides of tfscale train",
}
_KEYS = ("dir", "retries", "show")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the steps; returns the exit code: 1 where the model isn't better than the present one."""
    parser = Parser(
        "tfscale workflow train_and_deploy",
        "Import, validate, train, evaluate, export, promote, deploy, serve and try out: each step a process here, and"
        " what is done is passed over.",
        usage="tfscale workflow train_and_deploy workflow.name=NAME [WORD ...]",
        epilog=f"words:\n{table(_OWN.items(), framed=False)}\n"
        "example: tfscale workflow train_and_deploy workflow.name=digits +recipe=resnet data=mnist",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="see below")
    return guard(lambda seen: _run(parser.parse(sys.argv[1:] if argv is None else argv).words, seen))


def _run(words: Sequence[str], seen: dict) -> int:
    seen["traceback"] = "debug.traceback=true" in words
    pairs = [word.partition("=") for word in words]
    keep_secret(value for key, _, value in pairs if is_secret(key) and not is_plain(value))
    request = WorkflowRequest.of([word for word in words if word != "debug.traceback=true"], own=_KEYS)
    folder = Path(plain_path(request.own.get("dir", f"flows/{request.name}")))
    flow = LocalWorkflow(request, folder, _retries(request.own.get("retries", "3")))
    if truth(request.own.get("show", "false"), "workflow.show"):
        write_line(text_of(flow.shown()))
        return 0
    with messages.shown("auto"):
        run_here(flow)
    return 0


def _retries(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{text!r} is no number of tries", where="workflow.retries", fix="workflow.retries=3")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
