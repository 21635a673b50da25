"""Messages: plain lines, JSON lines, and whose handlers show them."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys

import pytest

from tfscale.console import messages
from tfscale.console.messages import RESULT, Messages, bare, figures, line_of, read_line
from tfscale.errors import UsageError

TIME = r"\d\d:\d\d:\d\d "


@pytest.fixture
def log():
    """A logger of ours whose messages are shown as in a program of ours."""
    root = logging.getLogger("tfscale")
    before = root.level, root.propagate, list(root.handlers)
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, Messages)]  # of programs here
    messages.begin()
    yield logging.getLogger("tfscale.run.attempt")
    root.level, root.propagate, root.handlers[:] = before
    messages._Process.format = "auto"


def test_plain_lines_have_the_time_warnings_their_level_and_several_processes_their_name(log, capsys):
    log.info("before the configuration is known")
    assert capsys.readouterr() == ("", "")
    with messages.shown("auto"):
        log.info("one")
        messages.of_process("worker:1", 1, is_one_of_many=True)
        log.info("two")
        log.warning("three")
        log.log(RESULT, "a table", extra=bare("result", loss=1.0))
        messages.at_least(RESULT)
        log.info("hidden by run.quiet")
        log.log(RESULT, "shown", extra=bare())
        messages.at_least(logging.WARNING)
        log.log(RESULT, "hidden on other workers")
    told = capsys.readouterr()
    wanted = f"{TIME}before the configuration is known\n{TIME}one\n{TIME}worker:1 two\na table\nshown\n"
    assert re.fullmatch(wanted, told.out), told.out
    assert re.fullmatch(f"{TIME}WARNING worker:1 three\n", told.err), told.err


def test_json_lines_hold_the_rank_and_the_figures(log, capsys):
    with messages.shown("json"):
        messages.of_process("chief:0", 0, is_one_of_many=True)
        log.info("step 2\n  loss nan", extra=figures(step=2, metrics={"loss": float("nan")}))
        log.log(RESULT, "┌──┐", extra=bare("result", result={"step": 2, "from": ["http://me:hunter22@host/x"]}))
        error = messages.error_line(UsageError("no", where="train.until", fix="give it"))
        assert line_of("worker:1", error) == error
        other = line_of("worker:1", "I0000 of TensorFlow")
    first, result = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    told = {"level": "INFO", "logger": "tfscale.run.attempt", "process": "chief:0", "rank": 0}
    assert told.items() <= first.items() and first["time"].endswith("Z")
    assert (first["message"], first["step"], first["metrics"]) == ("step 2  loss nan", 2, {"loss": "NaN"})
    assert (result["message"], result["result"], result["level"]) == (
        "result",
        {"step": 2, "from": ["http://<redacted>@host/x"]},
        "INFO",
    )
    told = {"level": "ERROR", "message": "no", "where": "train.until", "fix": "give it", "exit_code": 64}
    assert told.items() <= json.loads(error).items()
    assert json.loads(other)["message"] == "I0000 of TensorFlow" and read_line("{not json") is None


def test_a_programs_own_handlers_show_them_and_its_root_logger_is_left_alone():
    code = """
import logging, sys
from tfscale.console.messages import shown
log, root = logging.getLogger("tfscale.data"), logging.getLogger()
with shown("auto"):
    log.info("ours")
assert root.handlers == [] and root.level == logging.WARNING
log.info("nobody asked")
logging.basicConfig(format="theirs: %(message)s", stream=sys.stdout)
with shown("auto"):
    log.info("hello")
logging.getLogger("tfscale").setLevel(logging.ERROR)
with shown("auto"):
    log.warning("not wanted")
assert logging.getLogger("tfscale").level == logging.ERROR and len(root.handlers) == 1
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(f"{TIME}ours\ntheirs: hello\n", done.stdout) and done.stderr == ""


def test_a_program_speaks_json_from_its_first_message_to_its_last_error(cli):
    job = ("+recipe=resnet", "tracker=none", "plan.dry_run=true", "log.format=json")
    planned = cli(*job)
    (line,) = map(json.loads, planned.out.splitlines())
    assert line["message"] == "execution plan" and line["plan"]["num_replicas"] == 1 and not planned.err
    refused = cli(*job, "optimizer.name=adam", "train.until=no")
    notice, error = map(json.loads, refused.err.splitlines())
    assert notice["level"] == "WARNING" and "learning_rate" in notice["message"]
    assert (error["level"], error["exit_code"], refused.code, refused.out) == ("ERROR", 64, 64, "")
