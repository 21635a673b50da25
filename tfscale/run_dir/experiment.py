"""Experiment: what a run is of, as its checkpoints and its result remember it.

Owns the comparison of what is remembered with what is asked for now: other task, data or hyper-parameters make another
experiment, but for keys that `resume.allow_changed` names; other code is reported. Refuses to know where it is kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfscale.config.former_names import former_name
from tfscale.config.optimizer_keys import effective
from tfscale.config.schema import OptimizerConfig, RunConfig, identity, identity_defaults
from tfscale.errors import CheckpointUnusable, without_secrets
from tfscale.files import digest_of, dumps, plain, sha256
from tfscale.version import __version__

_ABSENT = object()
_SHOWN = 8  # keys in one message
_OPTIMIZER_NAME = "optimizer.name"


@dataclass(frozen=True)
class Experiment:
    """What a run is of.

    Args:
        identity: every value of task, data and hyper-parameters as `config.identity` gives them (empty: any experiment
            will do).
        allow_changed: keys or sections of them that may differ from what is remembered.
        code: the digests of the code by its name.
        defaults: of the keys that have one, nested like the identity: the name leaves out what nobody has changed, and
            a key that is not remembered, since a later version brought it, counts as its default. None: none is known.
        classes: of the task and the data.
        unsure: whether the optimizer's section takes effect is not known yet, and nothing in it is set.
        former: the names that earlier versions would have given.
    """

    identity: Mapping[str, Any] = field(default_factory=dict)
    allow_changed: tuple[str, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] | None = None
    classes: Mapping[str, type] = field(default_factory=dict)
    unsure: bool = False
    former: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: RunConfig, *, brings_optimizer: bool | None = None) -> Experiment:
        """The experiment of a configuration.

        Args:
            brings_optimizer: whether the task has its own optimizer, once that is known.
        """
        owns = config.task.brings_optimizer if brings_optimizer is None else brings_optimizer
        known = identity(config, brings_optimizer=owns)
        defaults = identity_defaults(config, known)
        classes = {"task": type(config.task), "data": type(config.data)}
        paths = {name: _path(one) for name, one in classes.items()}
        return cls(
            known,
            tuple(config.resume.allow_changed),
            _code_of(config.task, config.data),
            defaults,
            classes,
            unsure=owns is None and config.optimizer == OptimizerConfig(),
            former=(former_name(known, defaults, {**vars(config.optimizer), **config.left_out}, paths),),
        )

    @property
    def digest(self) -> str:
        """The run's name: of what differs from the defaults, so that a new key with its default changes no name."""
        if not self.identity:
            return ""
        return digest(self.identity if self.defaults is None else self._unusual(self.defaults))

    @property
    def names(self) -> tuple[str, ...]:
        """The digest, and what earlier versions called the same run."""
        return (self.digest, *self.former)

    def _unusual(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        usual = _as_json(defaults)
        for section, values in _as_json(self.identity).items():
            if not isinstance(values, dict):
                found[section] = values
                continue
            known = usual.get(section, {})
            found.update({f"{section}.{k}": v for k, v in values.items() if k not in known or known[k] != v})
        return found

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
            differing = [] if recorded["identity"] in self.names else ["its task, data or hyper-parameters differ"]
            allowed: list[str] = []
        else:
            both = list(self._differences(before, recorded.get("code") or {}))
            differing = [text for key, text in both if not self._allows(key)]
            allowed = [text for key, text in both if self._allows(key)]
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

    def is_same(self, recorded: Mapping[str, Any]) -> bool:
        """Whether a `record` that was kept is of this very experiment."""
        before, code = plain(recorded.get("experiment")), recorded.get("code") or {}
        return isinstance(before, dict) and not any(self._differences(before, code))

    def _differences(self, before: Mapping[str, Any], code: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        now, usual = self.values(), {}
        if self.defaults is not None:
            usual = flatten(_as_json(self.defaults))
            before, now = self._with_optimizer(before, now)
        other = before.get(_OPTIMIZER_NAME) != now.get(_OPTIMIZER_NAME)  # whose own keys are no news
        for key in sorted({*before, *now}):
            in_section = key.startswith("optimizer.")
            own = other and in_section and not (key in before and key in now)
            old = before.get(key, usual.get(key, _ABSENT))
            new = now.get(key, usual.get(key, _ABSENT) if in_section else _ABSENT)
            if old != new and not own and not self._is_same_class(key, old, code):
                yield key, _changed(key, old, new)

    def _with_optimizer(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[dict, dict]:
        """Both without the keys of the optimizer's section that take no effect, where version 0.1 remembered all."""
        then = {key.removeprefix("optimizer."): v for key, v in before.items() if key.startswith("optimizer.")}
        rest = {key: value for key, value in before.items() if not key.startswith("optimizer.")}
        of_all = {"momentum", "beta_1"} <= then.keys()  # no optimizer has both
        if "optimizer" not in self.identity or (self.unsure and (of_all or not then)):
            return rest, {key: value for key, value in now.items() if not key.startswith("optimizer.")}
        return {**rest, **flatten({"optimizer": effective(then)})}, dict(now)

    def _is_same_class(self, key: str, old: Any, code: Mapping[str, str]) -> bool:
        """Whether this is the class of task or data, which has only moved: one of ours, or with the same code."""
        cls = self.classes.get(key.removesuffix(".class")) if key.endswith(".class") else None
        if cls is None or not isinstance(old, str):
            return False
        if old == _path(cls):  # as version 0.1 remembered all
            return True
        module = old.removesuffix(f".{vars(cls).get('stable_name') or cls.__qualname__}")
        if module == old:
            return False
        if cls.__module__.startswith("tfscale."):
            return module.startswith("tfscale.")
        return module in code and code[module] == self.code.get(cls.__module__)

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


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _as_json(value: Any) -> Any:
    return json.loads(dumps(value, default=str))


def _code_of(*parts: Any) -> dict[str, str]:
    """Digests of the files that define the classes of these objects and the recipes and classes of people's own that
    they extend, and the version of tfscale."""
    found = {"tfscale": __version__}
    for cls in (cls for part in parts for cls in type(part).__mro__ if cls is type(part) or _is_users(cls)):
        name = cls.__module__
        file = getattr(sys.modules.get(name), "__file__", None)  # a notebook has none
        if file and Path(file).is_file():
            found[name] = sha256(Path(file))[:10]
    return found


def _is_users(cls: type) -> bool:
    """Whether a class may change where the version of tfscale doesn't."""
    package, _, rest = cls.__module__.partition(".")
    return package not in sys.stdlib_module_names and (package != "tfscale" or rest.startswith("recipes."))


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


def digest(identity: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits that name an experiment."""
    return digest_of(identity, default=str)[:10]
