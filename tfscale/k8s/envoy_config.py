"""A route as Envoy's own configuration, for a proxy on this machine: envoy -c FILE.

Envoy is what Ambassador and most Gateways run inside; so a route is tried here as it works there. Its fields:
envoyproxy.io/docs/envoy/latest/api-v3.
"""

from __future__ import annotations

from typing import Any

from tfscale.k8s.metadata import Manifest
from tfscale.k8s.route_manifests import AUTHORIZE
from tfscale.k8s.route_request import Route

_TYPES = "type.googleapis.com/envoy.extensions.filters"


def envoy_config(route: Route) -> Manifest:
    """The bootstrap configuration: one listener, on 127.0.0.1, and a cluster for each address."""
    addresses = dict.fromkeys(filter(None, (route.to, route.canary, route.shadow, route.check)))
    manager = {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "models",
        "request_headers_timeout": "10s",
        "route_config": {"virtual_hosts": [_virtual_host(route)]},
        "http_filters": [*_check(route), _filter("router", "router.v3.Router")],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listener = {"name": "models", "address": _socket("127.0.0.1", route.port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [_cluster(one) for one in addresses]}}


def _virtual_host(route: Route) -> Manifest:
    weighted = [{"name": address, "weight": share} for address, share in route.shares.items() if share]
    action: dict[str, Any] = {
        "weighted_clusters": {"clusters": weighted},
        "timeout": f"{route.timeout:g}s",
        **({"prefix_rewrite": "/"} if route.path != "/" else {}),
    }
    if route.retries:
        action["retry_policy"] = {"retry_on": "gateway-error", "num_retries": route.retries}
    if route.shadow:
        action["request_mirror_policies"] = [{"cluster": route.shadow}]
    match = {"prefix": route.path}
    return {"name": "models", "domains": [route.host], "routes": [{"match": match, "route": action}]}


def _check(route: Route) -> list[Manifest]:
    """The filter that asks whether a request's token is right, before it goes on."""
    if not route.check:
        return []
    asked = {
        "server_uri": {"uri": f"http://{route.check}", "cluster": route.check, "timeout": "5s"},
        "path_prefix": AUTHORIZE,
    }
    return [_filter("ext_authz", "ext_authz.v3.ExtAuthz", http_service=asked)]


def _filter(name: str, kind: str, **fields: Any) -> Manifest:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{_TYPES}.http.{kind}", **fields}}


def _cluster(address: str) -> Manifest:
    host, _, port = address.rpartition(":")
    endpoint = {"endpoint": {"address": _socket(host, int(port))}}
    return {
        "name": address,
        "type": "STRICT_DNS",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": address, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _socket(host: str, port: int) -> Manifest:
    return {"socket_address": {"address": host, "port_value": port}}
