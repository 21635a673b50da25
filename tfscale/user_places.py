"""Where in a user's own code an error arose: their file and line, not AutoGraph's, Keras's or ours.

Owns that reading of tracebacks, and of the texts in which TensorFlow keeps those of code that it has rewritten or
called from a graph. Refuses to know what becomes of the error.
"""

from __future__ import annotations

import functools
import os
import re
import sysconfig
import traceback
from pathlib import Path

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)')


def place_of(error: BaseException) -> str:
    """The innermost place in the user's code, such as "mine.py:12 in loss"; "" where none is known.

    Of a SyntaxError it is the line that isn't Python, which never ran.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        # A text is of code that was rewritten, or runs inside a graph: further in than the frames here.
        told = [(found["file"], int(found["line"]), found["name"]) for found in _FRAME.finditer(str(current))]
        frames = traceback.extract_tb(current.__traceback__)
        wrong = [(current.filename or "", current.lineno or 0, "<module>")] if isinstance(current, SyntaxError) else []
        for places in (wrong, told, [(frame.filename, frame.lineno or 0, frame.name) for frame in frames]):
            own = [place for place in places if _is_users(place[0])]
            if own:
                file, line, name = own[-1]
                return f"{_short(file)}:{line}" + (f" in {name}" if name != "<module>" else "")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return ""


@functools.cache
def _foreign() -> tuple[str, ...]:
    """Folders of code that is nobody's own: Python's, installed packages' and ours."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {os.path.realpath(path) for path in paths if path}
    return tuple(f"{path}{os.sep}" for path in (*filter(None, paths), str(Path(__file__).parent)))


def _is_users(file: str) -> bool:
    if (
        not file
        or file.startswith("<")
        or "__autograph_generated_file" in file
        or "site-packages" in file.split(os.sep)
    ):
        return False
    return not file.startswith(_foreign()) and not os.path.realpath(file).startswith(_foreign())


def _short(file: str) -> str:
    """Relative to the current folder where it lies in it."""
    try:
        near = os.path.relpath(file)
    except (ValueError, OSError):  # another drive, or the folder is gone
        return file
    return file if near.startswith(os.pardir) else near
