"""The bytes that a process writes, as lines for people.

Owns what of them is shown: neither what a carriage return has overwritten nor control codes but colours. Refuses to
know whose they are.
"""

from __future__ import annotations

import codecs
import re

_MAX_TAIL = 2**16  # a line that never ends is cut here, so that it can't fill the memory
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*(?:[@-ln-~]|$)|\x1b$")  # all but colours, and what a read has cut off


class Lines:
    """The bytes of one process as lines; what carriage returns have overwritten is left out."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tail = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines that these bytes complete; no bytes at all are the end, which completes the last one."""
        *whole, tail = (self._tail + self._decoder.decode(data, final=not data)).split("\n")
        if tail and (not data or len(tail) > _MAX_TAIL):
            whole.append(tail)
            tail = ""
        overwritten = tail.rstrip("\r").rfind("\r")
        self._tail = tail[max(0, overwritten) :]
        shown = ((line.rstrip("\r"), _visible(line)) for line in whole)
        return [text for raw, text in shown if text or not raw]  # a line of control codes alone is none

    @property
    def unfinished(self) -> str:
        """What stands behind the last line: a progress line that is written again and again."""
        return _visible(self._tail)


def _visible(line: str) -> str:
    text = _CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2])
    return text + "\x1b[0m" if "\x1b" in text else text  # no colour runs over into the next line
