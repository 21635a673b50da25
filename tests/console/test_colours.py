"""Colours where a terminal shows them, and none where NO_COLOR or TERM=dumb says so; on a dumb one nothing moves, either."""

from __future__ import annotations

import io
import os
import sys

import pytest
from support import warm
from support.terminals import on_terminal

from tfscale.console.messages import is_dumb
from tfscale.console.progress import ProgressLine
from tfscale.importer.import_progress import ImportProgress
from tfscale.inspection.terminal import shows_pictures
from tfscale.launch.screen import Screen

# A warning, which is what messages colour, and the last line of an error
WARNED = ("+recipe=resnet", "tracker=none", "optimizer.name=adam", "plan.dry_run=true", "run.dir=/proc/nothing")
PROGRAM = warm.LIGHT + "from tfscale.train import main; sys.exit(main())"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def sent_by(folder, **environ: str) -> str:
    """What a program sends to the terminal that it runs in."""
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLORTERM")}
    code, sent = on_terminal([sys.executable, "-c", PROGRAM, *WARNED], folder, {**known, **environ})
    assert code == 73
    return sent


def test_a_program_colours_warnings_unless_it_is_asked_not_to(tmp_path):
    coloured = sent_by(tmp_path, TERM="xterm-256color")
    assert "\x1b[33mwarning: " in coloured
    plain = coloured.replace("\x1b[33m", "").replace("\x1b[0m", "")
    for environ in ({"TERM": "xterm-256color", "NO_COLOR": "1"}, {"TERM": "dumb"}):
        sent = sent_by(tmp_path, **environ)
        assert "\x1b" not in sent and sent == plain, environ
    assert "\x1b[33m" in sent_by(tmp_path, TERM="xterm", NO_COLOR="")  # which says nothing, by no-color.org


@pytest.mark.parametrize("term", ["dumb", "unknown", "xterm"])
def test_a_line_that_changes_needs_more_than_a_dumb_terminal(monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", Terminal())
    is_live = term == "xterm"
    assert is_dumb() != is_live
    with ProgressLine(total_steps=4, steps_per_epoch=2, stream=Terminal()) as line:
        assert line.is_live == is_live
    assert Screen(["worker:0"], stream=Terminal()).is_live == is_live
    with ImportProgress(3, "files") as progress:
        progress.tick(3)
    assert ("\x1b" in sys.stderr.getvalue()) == is_live


def test_without_colours_there_are_no_pictures(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert shows_pictures()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not shows_pictures()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not shows_pictures()


def test_a_live_line_has_no_colours_without_them(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def sent() -> str:
        stream = Terminal()
        with ProgressLine(total_steps=4, steps_per_epoch=2, stream=stream) as line:
            line.live(2, {"loss": 1.0})
        return stream.getvalue()

    assert "\x1b[38;" in sent()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in sent() and "train" in sent()
