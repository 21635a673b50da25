"""Environment variables of launchers as numbers, and the error that quotes them.

Refuses to know which launcher wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tfscale.errors import ClusterConfigError

MAX_SIZE = 100_000  # processes; a mistyped count must not allocate a list of that length
_MAX_SHOWN = 120  # characters of a value in a message


def number(environ: Mapping[str, str], name: str, *, least: int = 0) -> int:
    """The whole number in a variable.

    Raises:
        ClusterConfigError: it is missing, no whole number, or out of range.
    """
    text = environ.get(name, "").strip()
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) < MAX_SIZE:
        raise wrong(f"a whole number from {least} on is expected", environ, name)
    return int(text)


def wrong(what: str, environ: Mapping[str, str], *names: str, fix: str = "") -> ClusterConfigError:
    """The error that quotes these variables with their values."""
    quoted = " and ".join(f"{name}={_short(environ[name])}" if name in environ else f"no {name}" for name in names)
    return ClusterConfigError(
        f"{quoted}: {what}",
        where=", ".join(names),
        fix=fix or "correct them, or describe the cluster by TF_CONFIG or TFSCALE_CLUSTER, which win",
    )


def is_set(environ: Mapping[str, str], *names: str) -> bool:
    """Whether any of these variables holds more than white space."""
    return any(environ.get(name, "").strip() for name in names)


def place(index: int, size: int, environ: Mapping[str, str], index_name: str, size_name: str) -> None:
    """Raises ClusterConfigError unless there is such an index among `size` processes."""
    if index >= size:
        raise wrong(f"index {index} is not one of {size} processes", environ, index_name, size_name)


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
