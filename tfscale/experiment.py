"""Experiment: what a run is of, as its checkpoints and its result remember it.

Owns the comparison of what is remembered with what is asked for now: other task, data or hyper-parameters make another
experiment, but for keys that `resume.allow_changed` names; other code is only told. Refuses to know where it is kept.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tfscale
from tfscale.config import RunConfig, identity
from tfscale.errors import CheckpointUnusable, without_secrets
from tfscale.run_dir import digest
from tfscale.strict_json import dumps, plain

_ABSENT = object()
_SHOWN = 8  # keys in one message


@dataclass(frozen=True)
class Experiment:
    """Args: task, data and hyper-parameters as `config.identity` gives them (empty: any experiment will do), keys or
    sections of them that may differ from what is remembered, and the digests of the code by its name."""

    identity: Mapping[str, Any] = field(default_factory=dict)
    allow_changed: tuple[str, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, config: RunConfig) -> Experiment:
        return cls(identity(config), tuple(config.resume.allow_changed), _code_of(config.task, config.data))

    @property
    def digest(self) -> str:
        return digest(self.identity) if self.identity else ""

    def record(self) -> dict[str, Any]:
        """What to remember of it: JSON values."""
        return {"identity": self.digest, "experiment": self.values(), "code": dict(self.code)}

    def values(self) -> dict[str, Any]:
        """The identity flat and as JSON gives it back."""
        return json.loads(without_secrets(dumps(flatten(self.identity), default=str)))

    def check(self, recorded: Mapping[str, Any], *, what: str, where: str) -> list[str]:
        """Compares with a `record` that was kept, whose other keys are ignored.

        Returns:
            What people should know of and what stops nothing, a line each.

        Raises:
            CheckpointUnusable: keys differ that may not.
        """
        before = plain(recorded.get("experiment"))  # older versions wrote Infinity as it is
        if not self.identity or not recorded.get("identity"):
            return []
        if not isinstance(before, dict):  # an older version remembered the digest alone
            differing = [] if recorded["identity"] == self.digest else ["its task, data or hyper-parameters differ"]
            allowed: list[str] = []
        else:
            both = list(self._differences(before))
            differing = [told for key, told in both if not self._allows(key)]
            allowed = [told for key, told in both if self._allows(key)]
        if differing:
            more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
            raise CheckpointUnusable(
                f"{what} of another experiment: {'; '.join(differing[:_SHOWN])}{more}",
                where=where,
                fix="undo the change, or go on with it by resume.allow_changed=[KEY], or choose another run.name, or "
                "start at zero with resume.mode=never",
            )
        notices = [f"going on although changed (resume.allow_changed): {'; '.join(allowed)}"] if allowed else []
        return notices + self._code_changes(recorded.get("code") or {})

    def _differences(self, before: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        now = self.values()
        for key in sorted({*before, *now}):
            old, new = before.get(key, _ABSENT), now.get(key, _ABSENT)
            if old != new:
                yield key, _changed(key, old, new)

    def _allows(self, key: str) -> bool:
        return any(key == one or key.startswith(f"{one}.") for one in self.allow_changed)

    def _code_changes(self, before: Mapping[str, str]) -> list[str]:
        changed = [name for name, value in self.code.items() if name in before and before[name] != value]
        told = [f"{name} {before[name]} -> {self.code[name]}" for name in changed]
        return [f"the code has changed since it was saved: {', '.join(told)}"] if told else []


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _code_of(*parts: Any) -> dict[str, str]:
    """Digests of the files that define the classes of these objects, and the version of tfscale."""
    found = {"tfscale": tfscale.__version__}
    for part in parts:
        name = type(part).__module__
        file = getattr(sys.modules.get(name), "__file__", None)  # a notebook has none
        if file and Path(file).is_file():
            found[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:10]
    return found


def _changed(key: str, old: Any, new: Any) -> str:
    """The innermost thing that differs: of a model's layers the one and its argument."""
    if isinstance(old, dict) and isinstance(new, dict) and old.get("class") == new.get("class"):
        differing = [name for name in {**old, **new} if old.get(name, _ABSENT) != new.get(name, _ABSENT)]
        return "; ".join(_changed(f"{key}.{n}", old.get(n, _ABSENT), new.get(n, _ABSENT)) for n in differing[:_SHOWN])
    if isinstance(old, list) and isinstance(new, list):
        pairs = list(zip(old, new, strict=False))
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        if len(old) == len(new):
            return _changed(f"{key}[{first}]", old[first], new[first])
        ends = [part[first] if first < len(part) else _ABSENT for part in (old, new)]
        return f"{key} were {len(old)}, are {len(new)}: {_changed(f'{key}[{first}]', *ends)}"
    return f"{key} was {_show(old)}, is {_show(new)}"


def _show(value: Any) -> str:
    text = "absent" if value is _ABSENT else json.dumps(value)
    if isinstance(value, dict) and "class" in value:
        text = str(value["class"])
    return text if len(text) <= 60 else f"{text[:57]}..."
