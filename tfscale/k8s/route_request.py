"""`tfscale k8s route`: the way of requests to served models, in words that every proxy has a form for.

Owns the words and their checks. Refuses to know manifests (route_manifests.py) and Envoy's configuration
(envoy_config.py).

    route = Route.of(["route.to=digits", "route.canary=digits-next", "route.weight=10"], spec, asked=[])
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from tfscale.errors import UsageError, nearest
from tfscale.k8s.spec import ROUTE_KINDS, JobSpec

KINDS = (*ROUTE_KINDS, "seldon2")  # which also serves: an Experiment shares out the requests of its Models
_MODEL = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_SERVICE = re.compile(r"[a-z]([-a-z0-9.]*[a-z0-9])?(:\d{1,5})?")
_ADDRESS = re.compile(r"(?P<host>[\w.-]+):(?P<port>\d{1,5})")
_TAKEN = ("kind", "name", "namespace")


@dataclass(frozen=True)
class Route:
    """Where requests go.

    Attributes:
        spec: the kind of proxy, and the names of objects.
        to: the Service, SERVICE or SERVICE:PORT (80); of Envoy HOST:PORT, of Seldon 2 the Model, as of all others.
        canary, weight: a second one, and the percent of the requests that it answers.
        shadow: one that gets a copy of every request, and whose answers nobody sees.
        check: one that is asked first whether the request's token is right, by /authorize; "": nobody asks.
        host: of the requests; "*": any.
        prefix: of their paths, which the models' server doesn't see.
        timeout: seconds for an answer. retries: further tries where there was none, or 502, 503, 504.
        port: that the proxy listens on.
        gateway: the Gateway that an HTTPRoute belongs to.
        tls_secret: the Secret with the certificate of the host.
    """

    spec: JobSpec
    to: str = ""
    canary: str = ""
    weight: int = 10
    shadow: str = ""
    check: str = ""
    host: str = "*"
    prefix: str = "/"
    timeout: float = 30.0
    retries: int = 0
    port: int = 8080
    gateway: str = ""
    tls_secret: str = ""

    @classmethod
    def of(cls, words: Sequence[str], spec: JobSpec, *, asked: Sequence[str]) -> Route:
        """Args: words: route.*; asked: words of job.* that were given by hand.

        Raises:
            UsageError: a word that is wrong, or that has no effect on this kind.
        """
        if spec.kind not in KINDS:
            fix = f"use job= with one of {', '.join(KINDS)}"
            raise UsageError(f"a {spec.kind} routes no requests", where="job", fix=fix)
        for word in asked:
            name = word.lstrip("+").partition("=")[0].removeprefix("job.")
            if name != "job" and name not in _TAKEN:
                raise UsageError(f"job.{name} has no effect on a route", where=f"job.{name}", fix="leave it away")
        route = cls(spec, **_parsed(words))
        route._check({word.partition("=")[0].removeprefix("route.") for word in words})
        return route

    @property
    def path(self) -> str:
        """The prefix as a proxy replaces it by "/": with the slash at its end."""
        return f"{self.prefix.rstrip('/')}/"

    @property
    def shares(self) -> dict[str, int]:
        """The percent of the requests of each service."""
        return {self.to: 100 - self.weight, self.canary: self.weight} if self.canary else {self.to: 100}

    def _check(self, given: set[str]) -> None:
        if not self.to:
            raise UsageError(
                "no service was named", where="route.to", fix="route.to=SERVICE, as tfscale k8s serve names it"
            )
        for name in ("to", "canary", "shadow", "check"):
            value = getattr(self, name)
            pattern, what, form = {
                "envoy": (_ADDRESS, "address", "127.0.0.1:8080"),
                "seldon2": (_MODEL, "Model", "MODEL"),
            }.get(self.spec.kind, (_SERVICE, "service", "SERVICE, or SERVICE:PORT"))
            if value and not pattern.fullmatch(value):
                raise UsageError(f"{value} is no {what}", where=f"route.{name}", fix=f"route.{name}={form}")
        if not 0 <= self.weight <= 100:
            raise UsageError(f"{self.weight} percent", where="route.weight", fix="give 0 to 100")
        if "weight" in given and not self.canary:
            raise UsageError("there is no canary to weigh", where="route.weight", fix="route.canary=SERVICE, too")
        if not self.prefix.startswith("/"):
            raise UsageError(f"{self.prefix} is no path", where="route.prefix", fix=f"route.prefix=/{self.prefix}")
        if not self.timeout > 0 or self.retries < 0:
            raise UsageError(
                "a time or a number below 0", where="route.timeout, route.retries", fix="use route.timeout=30"
            )
        vain = {
            "ambassador": {"gateway"},
            "gateway": {"check", "retries", "port", "tls_secret"},
            "envoy": {"gateway", "tls_secret"},
            "seldon2": {"check", "host", "prefix", "timeout", "retries", "port", "gateway", "tls_secret"},
        }[self.spec.kind] & given
        if vain:
            why = {
                "gateway": "the Gateway API has no standard field for it",
                "seldon2": "an Experiment has weights and a mirror alone",
            }.get(self.spec.kind, "it knows none")
            names = ", ".join(f"route.{name}" for name in sorted(vain))
            raise UsageError(f"{names} has no effect on job={self.spec.kind}: {why}", where=names, fix="leave it away")
        if self.spec.kind == "gateway" and not self.gateway:
            raise UsageError("a route belongs to a Gateway", where="route.gateway", fix="route.gateway=NAME")
        if self.spec.kind == "seldon2" and not (self.canary or self.shadow):
            fix = "route.canary=MODEL, or route.shadow=MODEL"
            raise UsageError("an Experiment has more than one Model", where="route.canary", fix=fix)


def _parsed(words: Sequence[str]) -> dict[str, Any]:
    kinds = {one.name: one.type for one in fields(Route) if one.name != "spec"}
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        name = key.removeprefix("route.")
        if not equals or not key.startswith("route.") or name not in kinds:
            hint = nearest(key, [f"route.{one}" for one in kinds])
            raise UsageError(f"unknown word {word!r}{hint}", where="command line", fix="--help lists the keys")
        try:
            found[name] = {"int": int, "float": float}.get(str(kinds[name]), str)(value)
        except ValueError:
            raise UsageError(f"{value!r} is no number", where=key, fix=f"{key}=N") from None
    return found
