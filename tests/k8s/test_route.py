"""`tfscale k8s route`: manifests that the real schemas take, and what is refused. A real Envoy: tests/serving."""

from __future__ import annotations

import pytest
import yaml

from tfscale.errors import UsageError
from tfscale.k8s.printed import text_of_route

CANARY = (
    "route.to=digits",
    "route.canary=digits-next",
    "route.weight=25",
    "route.shadow=digits-new",
    "route.timeout=2.5",
)


def rendered(*words: str) -> list[dict]:
    return list(yaml.safe_load_all(text_of_route(words)))


def test_emissary(validate):
    found = rendered(
        "job=ambassador", *CANARY, "route.retries=2", "route.check=digits:8080", "route.host=models.example.org",
        "route.tls_secret=cert", "route.prefix=/digits", "job.namespace=models", "job.name=digits",
    )  # fmt: skip
    assert [problem for one in found for problem in validate(one)] == []
    listener, host, main, canary, shadow, check = found
    assert [one["kind"] for one in found] == ["Listener", "Host", "Mapping", "Mapping", "Mapping", "AuthService"]
    assert listener["spec"]["protocol"] == "HTTPS" and host["spec"]["tlsSecret"] == {"name": "cert"}
    assert host["spec"]["requestPolicy"] == {"insecure": {"action": "Reject"}}
    assert main["spec"] == {
        "hostname": "models.example.org", "prefix": "/digits/", "service": "digits", "timeout_ms": 2500,
        "retry_policy": {"retry_on": "gateway-error", "num_retries": 2},
    }  # fmt: skip
    assert (canary["spec"]["service"], canary["spec"]["weight"]) == ("digits-next", 25)
    assert (shadow["spec"]["service"], shadow["spec"]["shadow"]) == ("digits-new", True)
    assert check["spec"]["path_prefix"] == "/authorize" and check["spec"]["auth_service"] == "digits:8080"
    assert len({(one["kind"], one["metadata"]["name"]) for one in found}) == len(found)
    (_, _, plain) = rendered("job=ambassador", "route.to=digits")
    assert (plain["spec"]["prefix"], plain["spec"]["rewrite"]) == ("/", "")


def test_the_gateway_api(validate):
    (route,) = rendered(
        "job=gateway", *CANARY, "route.gateway=public", "route.prefix=/digits/", "route.host=a.example.org"
    )
    assert validate(route) == []
    (rule,) = route["spec"]["rules"]
    assert [(one["name"], one["port"], one["weight"]) for one in rule["backendRefs"]] == [
        ("digits", 80, 75), ("digits-next", 80, 25),
    ]  # fmt: skip
    assert rule["timeouts"] == {"request": "2500ms"} and rule["matches"][0]["path"]["value"] == "/digits"
    assert [one["type"] for one in rule["filters"]] == ["URLRewrite", "RequestMirror"]
    assert route["spec"]["hostnames"] == ["a.example.org"] and route["spec"]["parentRefs"] == [{"name": "public"}]
    (plain,) = rendered("job=gateway", "route.to=digits:9000", "route.gateway=public")
    assert plain["spec"]["rules"][0]["backendRefs"] == [{"name": "digits", "port": 9000, "weight": 100}]
    assert validate(plain) == [] and "hostnames" not in plain["spec"]


def test_an_experiment_of_seldon_2(validate):
    (both,) = rendered("job=seldon2", *CANARY[:4], "job.name=digits-ab")
    assert validate(both) == []
    assert both["spec"] == {
        "default": "digits",
        "candidates": [{"name": "digits", "weight": 75}, {"name": "digits-next", "weight": 25}],
        "mirror": {"name": "digits-new", "percent": 100},
    }
    (mirrored,) = rendered("job=seldon2", "route.to=digits", "route.shadow=digits-new")
    assert validate(mirrored) == [] and mirrored["spec"]["candidates"] == [{"name": "digits", "weight": 100}]


@pytest.mark.parametrize(
    ("words", "where", "said"),
    [
        (("job=kserve", "route.to=a"), "job", "routes no requests"),
        (("job=ambassador",), "route.to", "no service was named"),
        (("job=ambassador", "route.to=A_B"), "route.to", "A_B is no service"),
        (("job=envoy", "route.to=digits"), "route.to", "digits is no address"),
        (("job=ambassador", "route.to=a", "route.weight=10"), "route.weight", "no canary"),
        (("job=ambassador", "route.to=a", "route.canary=b", "route.weight=101"), "route.weight", "101 percent"),
        (("job=gateway", "route.to=a"), "route.gateway", "belongs to a Gateway"),
        (("job=gateway", "route.to=a", "route.gateway=g", "route.retries=2"), "route.retries", "no standard field"),
        (("job=ambassador", "route.to=a", "route.prefix=digits"), "route.prefix", "no path"),
        (("job=ambassador", "route.to=a", "route.timeout=0"), "route.timeout, route.retries", "below 0"),
        (("job=ambassador", "route.to=a", "route.waight=2"), "command line", "did you mean 'route.weight'"),
        (("job=seldon2", "route.to=a"), "route.canary", "more than one Model"),
        (("job=seldon2", "route.to=a:80", "route.canary=b"), "route.to", "a:80 is no Model"),
        (("job=seldon2", "route.to=a", "route.canary=b", "route.timeout=2"), "route.timeout", "weights and a mirror"),
        (("job=ambassador", "route.to=a", "job.image=x"), "job.image", "no effect"),
    ],
)
def test_what_cannot_be_is_refused(words, where, said):
    with pytest.raises(UsageError, match=said) as refused:
        text_of_route(words)
    assert refused.value.where == where
