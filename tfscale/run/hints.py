"""What an error advises, in the words of the one who reads it: overrides on the command line, arguments in Python.

Owns the translation; every error is written for the command line. Refuses to know which errors there are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator

from tfscale.config.schema import RunConfig
from tfscale.errors import TfscaleError
from tfscale.keras_fit.arguments import ARGUMENTS

_OVERRIDE = re.compile(r"(?<![\w.\"'\[+])([a-z]\w*(?:\.\w+)+)=(\[[^\]]*\]|\"[^\"]*\"|[^\s,;|]+)")
_SECTIONS = {field.name for field in dataclasses.fields(RunConfig)}
_NUMBER = re.compile(r"-?\d+(\.\d+)?$")


@contextlib.contextmanager
def hints_in_python() -> Iterator[None]:
    """Errors that leave it advise arguments of `tfscale.fit`."""
    try:
        yield
    except TfscaleError as error:
        error.where = ARGUMENTS.get(error.where, error.where)
        error.what, error.fix = in_python(error.what), in_python(error.fix)
        raise


def in_python(text: str) -> str:
    """Overrides in a text as arguments: train.until=5ep is until="5ep", eval.every=1ep overrides=["eval.every=1ep"]."""

    def argument(found: re.Match[str]) -> str:
        if found[1].partition(".")[0] not in _SECTIONS:  # such as target.shape=(2,) in a message of Keras's
            return found[0]
        name, value = ARGUMENTS.get(found[1]), found[2]
        if name is None:
            return f'overrides=["{found[0]}"]'
        return f"{name}={value}" if _NUMBER.match(value) or value == "..." else f'{name}="{value}"'

    return _OVERRIDE.sub(argument, text)
