"""A terminal that a program of a test runs in."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

from support import warm


def on_terminal(
    command: Sequence[str], folder: Path, environ: Mapping[str, str], *, columns: int = 0, cold: bool = False
) -> tuple[int, str]:
    """(exit code, what the terminal was sent).

    Args:
        columns: its width; 0 leaves it unknown.
        cold: whether Python starts anew, see warm.py.
    """
    ours, theirs = pty.openpty()
    if columns:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    more = {"cold": True} if cold else {}
    child = warm.Popen(command, cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, **more)
    os.close(theirs)
    sent = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the child has closed its end
            break
        if not piece:
            break
        sent += piece
    os.close(ours)
    return child.wait(), sent.decode(errors="replace")
