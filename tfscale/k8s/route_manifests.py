"""A route's manifests: of Emissary (Ambassador), of the Gateway API, and of Seldon Core 2.

Pure: a Route in, dicts out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfscale.k8s.metadata import Manifest, metadata_of
from tfscale.k8s.route_request import Route

AUTHORIZE = "/authorize"  # of tfscale serve: 200 where the request's token is right
_EMISSARY = "getambassador.io/v3alpha1"


def render(route: Route) -> list[Manifest]:
    """The manifests, in the order in which they are to be applied."""
    if route.spec.kind == "ambassador":
        return _emissary(route)
    return [_experiment(route) if route.spec.kind == "seldon2" else _http_route(route)]


def _object(route: Route, api: str, kind: str, spec: Mapping[str, Any], name: str = "") -> Manifest:
    return {"apiVersion": api, "kind": kind, "metadata": metadata_of(route.spec, name, "route"), "spec": dict(spec)}


def _emissary(route: Route) -> list[Manifest]:
    secure = bool(route.tls_secret)
    listener = {
        "port": route.port,
        "protocol": "HTTPS" if secure else "HTTP",
        "securityModel": "XFP",
        "hostBinding": {"namespace": {"from": "SELF"}},
    }
    host: dict[str, Any] = {
        "hostname": route.host,
        "requestPolicy": {"insecure": {"action": "Reject" if secure else "Route"}},
    }
    if secure:
        host["tlsSecret"] = {"name": route.tls_secret}
    made = [
        _object(route, _EMISSARY, "Listener", listener),
        _object(route, _EMISSARY, "Host", host),
        _object(route, _EMISSARY, "Mapping", _mapping(route, route.to)),
    ]
    if route.canary:
        weighed = {**_mapping(route, route.canary), "weight": route.weight}
        made.append(_object(route, _EMISSARY, "Mapping", weighed, f"{route.spec.name}-canary"))
    if route.shadow:
        copied = {**_mapping(route, route.shadow), "shadow": True}
        made.append(_object(route, _EMISSARY, "Mapping", copied, f"{route.spec.name}-shadow"))
    if route.check:
        asked = {
            "auth_service": route.check,
            "path_prefix": AUTHORIZE,
            "proto": "http",
            "allowed_request_headers": ["Authorization"],
        }
        made.append(_object(route, _EMISSARY, "AuthService", asked))
    return made


def _mapping(route: Route, service: str) -> dict[str, Any]:
    """Args: service: SERVICE or SERVICE:PORT."""
    found: dict[str, Any] = {
        "hostname": route.host,
        "prefix": route.path,
        "service": service,
        "timeout_ms": round(1000 * route.timeout),
    }
    if route.path == "/":
        found["rewrite"] = ""  # the path as it is
    if route.retries:
        found["retry_policy"] = {"retry_on": "gateway-error", "num_retries": route.retries}
    return found


def _http_route(route: Route) -> Manifest:
    filters: list[Manifest] = []
    if route.path != "/":
        replaced = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}
        filters.append({"type": "URLRewrite", "urlRewrite": {"path": replaced}})
    if route.shadow:
        filters.append({"type": "RequestMirror", "requestMirror": {"backendRef": _backend(route.shadow)}})
    rule: Manifest = {
        "matches": [{"path": {"type": "PathPrefix", "value": route.prefix.rstrip("/") or "/"}}],
        **({"filters": filters} if filters else {}),
        "backendRefs": [{**_backend(service), "weight": share} for service, share in route.shares.items()],
        "timeouts": {"request": f"{round(1000 * route.timeout)}ms"},
    }
    spec: dict[str, Any] = {"parentRefs": [{"name": route.gateway}], "rules": [rule]}
    if route.host != "*":
        spec["hostnames"] = [route.host]
    return _object(route, "gateway.networking.k8s.io/v1", "HTTPRoute", spec)


def _backend(service: str) -> Manifest:
    name, _, port = service.partition(":")
    return {"name": name, "port": int(port or 80)}


def _experiment(route: Route) -> Manifest:
    """Of Seldon Core 2: requests for the Model `route.to` go to all candidates by their weights."""
    spec: dict[str, Any] = {
        "default": route.to,
        "candidates": [{"name": model, "weight": share} for model, share in route.shares.items()],
    }
    if route.shadow:
        spec["mirror"] = {"name": route.shadow, "percent": 100}
    return _object(route, "mlops.seldon.io/v1alpha1", "Experiment", spec)
