"""What manifests must not hold: secrets, and what this machine's environment says. Both would be printed.

Refuses to know manifests.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfscale.errors import SecurityRefused, is_plain, is_secret, without_secrets

if TYPE_CHECKING:
    from omegaconf import DictConfig

_FIELD = re.compile(r"([\w.-]+)\s*:\s*([^,{}\[\]]+)")  # of a mapping in an override
_FROM_POD = re.compile(r"\$\{oc\.env:\s*\w+\s*\}")  # in the run's own keys, which the pod resolves
MAKE_SECRET = (
    "make a Secret, kubectl create secret generic NAME --from-literal=VARIABLE=VALUE, and give job.secrets=[NAME]: its "
    "keys become environment variables, which the run's own keys may name as '${oc.env:VARIABLE}'"
)


def leaves(node: Any, path: str) -> list[str]:
    """What a file says as overrides, but for what it leaves to the pod's environment."""
    if isinstance(node, dict):
        return [leaf for key, value in node.items() for leaf in leaves(value, f"{path}:{key}")]
    if isinstance(node, list):
        return [leaf for value in node for leaf in leaves(value, path)]
    return [] if node is None or str(node).startswith("${") else [f"{path}={node}"]


def key_parts(override: str) -> list[str]:
    """The parts of an override's key."""
    return re.split(r"[./:]", override.lstrip("+~").partition("=")[0])


def refuse_secrets(overrides: Sequence[str]) -> None:
    """Raises SecurityRefused where a key is a secret's, or an address holds a password: both would be printed."""
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        names = key_parts(key.rpartition(".yaml:")[2])
        fields = [(".".join(names), value), *_FIELD.findall(value)]
        if any(is_secret(name) and not _is_open(each) for name, each in fields) or without_secrets(value) != value:
            raise SecurityRefused(f"{key} holds a secret, and manifests are read by many", where=key, fix=MAKE_SECRET)


def _is_open(value: str) -> bool:
    """Whether anybody may read it: a number, what only the pod looks up, or a mapping of such values."""
    text = value.strip(" '\"")
    if text.startswith("{"):
        return all(_is_open(each) for _, each in _FIELD.findall(text))
    return is_plain(text) or bool(_FROM_POD.fullmatch(text))


def refuse_environment(raw: DictConfig) -> None:
    """Raises SecurityRefused where the job's keys ask this machine's environment, whose values would be printed."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from omegaconf.resolvers import oc

    asked: list[str] = []

    def look_up(name: str, *_: Any) -> str:
        asked.append(str(name))
        return ""

    OmegaConf.register_new_resolver("oc.env", look_up, replace=True)
    try:
        with contextlib.suppress(OmegaConfBaseException):  # what else is wrong is reported elsewhere
            OmegaConf.to_container(raw.job, resolve=True)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    if asked:
        raise SecurityRefused(
            f"the manifest would hold what {', '.join(asked)} is on this machine", where="job", fix=MAKE_SECRET
        )
