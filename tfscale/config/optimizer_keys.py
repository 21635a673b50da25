"""Optimizers: which there are, the keys that each of them has got, and their defaults, which are Keras's.

Owns what of the section `optimizer` takes effect. Refuses to build anything: that is optimizers/build.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tfscale.config.duration import Duration
from tfscale.errors import UsageError

DEFAULT = "rmsprop"  # what Keras's compile takes
_ADAM = {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False}
_MOMENTUM = {"momentum": 0.9, "nesterov": False}
OWN_KEYS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "sgd": {"learning_rate": 0.01, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
        "adam": {**_ADAM, "weight_decay": 0.0},
        "adamw": {**_ADAM, "weight_decay": 0.004},
        "lion": {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.99, "weight_decay": 0.0},
        "rmsprop": {
            "learning_rate": 0.001,
            "rho": 0.9,
            "momentum": 0.0,
            "epsilon": 1e-7,
            "centered": False,
            "weight_decay": 0.0,
        },
        "lamb": {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.0},
        "lars": {"learning_rate": 0.01, **_MOMENTUM, "trust_coefficient": 0.001, "weight_decay": 0.0},
        "muon": {
            "learning_rate": 0.001,
            "momentum": 0.95,
            "nesterov": True,
            "beta_1": 0.9,
            "beta_2": 0.999,
            "epsilon": 1e-7,
            "exclude_layers": [],
            "weight_decay": 0.004,
        },
    }
)
_OF_SCHEDULES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "constant": {},
        "step": {"decay_at": [], "decay_by": 0.1},
        "cosine": {"final": 0.0},
        "linear": {"final": 0.0},
        "exponential": {"final": 0.01},
        "wsd": {"decay_over": "10%", "final": 0.0},
        "one_cycle": {"rise_over": "30%", "start": 0.04, "final": 4e-6},
    }
)
SCHEDULES = tuple(_OF_SCHEDULES)


def effective(given: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that takes effect, with its value; None and what is absent are the optimizer's own default.

    Args:
        given: the section `optimizer`, whole or in part. Keys that are nobody's own, such as `warmup`, are kept.
    """
    given = {key: value for key, value in given.items() if value is not None}
    name, schedule = given.get("name", DEFAULT), given.get("schedule", "constant")
    own = OWN_KEYS.get(name, {})
    found = {"name": name, **{key: value for key, value in given.items() if key not in _SPECIFIC}}
    found.update({key: given.get(key, default) for key, default in own.items()})
    if not found.get("momentum"):
        found.pop("nesterov", None)
    if found.get("weight_decay"):
        found["no_decay"] = list(given.get("no_decay", []))
    found.update({"schedule": schedule, "warmup": given.get("warmup", "0st")})
    if _is_long(found["warmup"]):
        found["warmup_from"] = given.get("warmup_from", 0.0)
    found.update({key: given.get(key, default) for key, default in _OF_SCHEDULES.get(schedule, {}).items()})
    return found


def defaults(name: str | None) -> dict[str, Any]:
    """Of all settings of the optimizer of this name."""
    found: dict[str, Any] = {"name": DEFAULT, "nesterov": False, "no_decay": [], "warmup_from": 0.0}
    found.update(OWN_KEYS.get(name or DEFAULT, {}))
    for keys in _OF_SCHEDULES.values():
        found = {**keys, **found}  # where several have a key, the first one's default
    return found


def owners(key: str) -> dict[str, Any]:
    """The optimizers, or else the schedules, that have this key, each with its default; {} where it is nobody's own."""
    for table in (OWN_KEYS, _OF_SCHEDULES):
        if found := {name: keys[key] for name, keys in table.items() if key in keys}:
            return found
    return {}


def without_effect(given: Mapping[str, Any]) -> dict[str, str]:
    """The keys that are given and take no effect, each with the reason; {} where all is well."""
    used = effective(given)
    name, schedule = used["name"], used["schedule"]
    found = {}
    for key, value in given.items():
        if key in used or key not in _SPECIFIC or value is None or value == []:
            continue
        owners = [other for other, keys in OWN_KEYS.items() if key in keys]
        if owners and name not in owners:
            instead = "; its beta_2 is called rho" if (name, key) == ("rmsprop", "beta_2") else ""
            if name in OWN_KEYS:  # else the name itself is wrong, which is reported elsewhere
                found[key] = f"{name} has no {key}{instead}; its own keys are {', '.join(OWN_KEYS[name])}"
        elif key == "nesterov":
            if value:
                found[key] = "without optimizer.momentum it changes nothing"
        elif key == "no_decay":
            found[key] = "without optimizer.weight_decay it changes nothing"
        elif key == "warmup_from":
            found[key] = "without optimizer.warmup it changes nothing"
        else:
            kinds = " or ".join(kind for kind, keys in _OF_SCHEDULES.items() if key in keys)
            found[key] = f"it belongs to optimizer.schedule={kinds}, and the schedule is {schedule}"
    if schedule == "one_cycle" and _is_long(used["warmup"]):
        found["warmup"] = "one_cycle rises by itself: optimizer.rise_over says for how long"
    if schedule == "step" and not used["decay_at"]:
        found["schedule"] = "step changes nothing without optimizer.decay_at=[30ep,60ep]"
    return found


def slots(given: Mapping[str, Any]) -> int:
    """How many variables the optimizer keeps per parameter."""
    used = effective(given)
    if used["name"] in ("adam", "adamw"):
        return 3 if used["amsgrad"] else 2
    if used["name"] in ("lamb", "muon"):  # muon has one of a matrix, and two of what adamw trains
        return 2
    if used["name"] == "rmsprop":
        return 1 + bool(used["momentum"]) + bool(used["centered"])
    return int(bool(used.get("momentum", True)))  # Lion's is always there


def _is_long(warmup: str) -> bool:
    with contextlib.suppress(UsageError):  # a text that is none is reported elsewhere
        return Duration.parse(warmup).value > 0
    return True


_SPECIFIC = {
    *(key for keys in OWN_KEYS.values() for key in keys),
    *(key for keys in _OF_SCHEDULES.values() for key in keys),
    *("name", "nesterov", "no_decay", "warmup_from"),
}
