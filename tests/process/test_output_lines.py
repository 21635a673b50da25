"""The bytes of a process as lines for people."""

from __future__ import annotations

from tfscale.process.output_lines import Lines


def test_lines_leave_out_what_was_overwritten_and_keep_colours():
    lines = Lines()
    assert lines.feed(b"\r\x1b[2K10 %\r\x1b[2K20 %\r\x1b[2") == []
    assert lines.feed(b"Kdone\r\n\r\n\x1b[?25h\r\nk\xc3") == ["done", ""]
    assert lines.unfinished == "k"
    assert lines.feed(b"\xa4fer \x1b[31mred\n") == ["käfer \x1b[31mred\x1b[0m"]
    assert lines.feed(b"50 %\r") == []
    assert lines.unfinished == "50 %"
    assert lines.feed(b"") == ["50 %"]
    assert lines.feed(b"") == []
    endless = Lines()
    assert sum(len(text) for _ in range(40) for text in endless.feed(b"x" * 10_000)) > 300_000
