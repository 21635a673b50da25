"""AppliedSettings: what settings files set in one configuration, and how people are told of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfscale.console.messages import figures
from tfscale.errors import UsageError


@dataclass(frozen=True)
class Setting:
    """A key that a settings file sets.

    Args:
        value: as the file has it.
        file: how messages call that file.
        before: what the key would be without any of these files.
    """

    value: Any
    file: str
    before: Any = None


@dataclass(frozen=True)
class AppliedSettings:
    """What settings files set in one configuration.

    Args:
        files: those that were read, by the names that messages call them; later ones win.
        sets: what they set, by key; a key that the command sets itself is not among them.
        left_out: keys of theirs without effect here, each with why.
    """

    files: tuple[str, ...] = ()
    sets: Mapping[str, Setting] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """Which files were read and which keys they set; "" where there is none."""
        if not self.files:
            return ""
        parts = [f"{file} sets {', '.join(self.of(file)) or 'nothing here'}" for file in self.files]
        parts += [f"without effect: {key} ({why})" for key, why in self.left_out.items()]
        return f"settings: {'; '.join(parts)}"

    def of(self, file: str) -> list[str]:
        """The keys that this file sets."""
        return [key for key, one in self.sets.items() if one.file == file]

    def explained(self, error: UsageError) -> UsageError:
        """The error, said of the files where it is of keys that they set."""
        keys = error.where.split(", ")
        where = ", ".join(f"{self.sets[key].file}:{key}" if key in self.sets else key for key in keys)
        return error if where == error.where else UsageError(error.what, where=where, fix=error.fix)

    def report(self, log: logging.Logger) -> None:
        """Logs the line, where there is one."""
        if line := self.line():
            log.info(line, extra=figures(settings={file: self.of(file) for file in self.files}))
