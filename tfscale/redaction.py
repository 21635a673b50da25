"""Redaction: which parts of a configuration are secrets, and the configuration without them.

Owns what a run's config.yaml shows of a secret. What one looks like, and what messages hide, is errors.py's.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tfscale.errors import is_plain, is_secret, keep_secret, without_secrets

if TYPE_CHECKING:
    from omegaconf import DictConfig

_VARIABLE = re.compile(r"\$\{\s*oc\.env:\s*([A-Za-z_]\w*)")


def keep_secrets(raw: DictConfig) -> None:
    """Makes messages hide what stands under a secret key, and the secret environment variables that are asked for."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    unresolved = OmegaConf.to_container(raw, resolve=False)
    names = set(_VARIABLE.findall(str(unresolved)))
    keep_secret(os.environ[name] for name in names if is_secret(name) and name in os.environ)
    with contextlib.suppress(OmegaConfBaseException):  # what can't be resolved is reported elsewhere
        keep_secret(_under_secret_keys(OmegaConf.to_container(raw, resolve=True)))


def _under_secret_keys(node: Any, secret: bool = False) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _under_secret_keys(value, secret or is_secret(str(key)))
    elif isinstance(node, list):
        for value in node:
            yield from _under_secret_keys(value, secret)
    elif secret and not is_plain(node):
        yield str(node)


def redacted_yaml(raw: DictConfig) -> str:
    """The configuration for people and archives: interpolations unresolved, secrets redacted."""
    from omegaconf import OmegaConf

    def redact(node: Any, secret: bool = False) -> Any:
        if isinstance(node, dict):
            # A class's name holds no secret; a password that is one of its words must not make it another's
            return {k: v if k == "_target_" else redact(v, secret or is_secret(str(k))) for k, v in node.items()}
        if isinstance(node, list):
            return [redact(v, secret) for v in node]
        if not isinstance(node, str):
            return node  # a number or a truth value: nothing else could be taken back
        # an interpolation is no secret, but the default inside it may be one
        unresolved = re.fullmatch(r"\$\{[^,]*\}", node)
        return "<redacted>" if secret and not unresolved and not is_plain(node) else without_secrets(node)

    return OmegaConf.to_yaml(OmegaConf.create(redact(OmegaConf.to_container(raw, resolve=False))))
