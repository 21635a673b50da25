"""The manifests of a served model: a Deployment and what stands around it, or one object of KServe or Seldon Core.

`render` is pure: a ServeInCluster in, dicts out.
"""

from __future__ import annotations

import math
from typing import Any

import tfscale.k8s.pod as pod
from tfscale.k8s.metadata import INSTANCE, Manifest, labels_of, metadata_of
from tfscale.k8s.serving_job import ServeInCluster

_BUSY = 70  # percent of the requested processors at which pods are added
_START = (5, 120)  # seconds between two looks, and how many until a model must be loaded


def render(serving: ServeInCluster) -> list[Manifest]:
    """The manifests, in the order in which they are to be applied."""
    kinds = {"deployment": _deployment, "kserve": _kserve, "seldon": _seldon, "seldon2": _seldon2}
    return kinds[serving.spec.kind](serving)


def _selector(serving: ServeInCluster) -> Manifest:
    return {"matchLabels": {INSTANCE: serving.spec.name, "app.kubernetes.io/component": "serve"}}


# -- Kubernetes alone


def _deployment(serving: ServeInCluster) -> list[Manifest]:
    made = [_service(serving), _pods(serving)]
    if serving.max_replicas > serving.replicas:
        made.append(_scaler(serving))
    if serving.replicas > 1:
        made.append(_budget(serving))
    return [_policy(serving), *made] if not serving.has_token else made


def _pods(serving: ServeInCluster) -> Manifest:
    spec, grace = serving.spec, math.ceil(serving.serve.drain)
    claim = {"claimName": spec.data_claim, "readOnly": True}
    container = _container(serving, serving.model, "serve")
    container["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}  # until no Service sends requests any more
    inside: Manifest = {
        "terminationGracePeriodSeconds": grace + 10,
        "enableServiceLinks": False,
        "securityContext": pod.pod_security(spec),
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            *([{"name": "data", "persistentVolumeClaim": claim}] if spec.data_claim else []),
        ],
        **(
            {"serviceAccountName": spec.service_account}
            if spec.service_account
            else {"automountServiceAccountToken": False}
        ),
        **({"imagePullSecrets": [{"name": name} for name in spec.pull_secrets]} if spec.pull_secrets else {}),
        **({"priorityClassName": spec.priority_class} if spec.priority_class else {}),
        **pod.placement(spec, "serve"),
    }
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(serving.serve.probes_port)}
    template = {"metadata": {"labels": labels_of(serving.spec, "serve"), "annotations": scraped}, "spec": inside}
    replicas = {"replicas": serving.replicas} if serving.max_replicas == serving.replicas else {}  # else the scaler's
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata_of(serving.spec, role="serve"),
        "spec": {
            **replicas,
            "selector": _selector(serving),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }


def _container(serving: ServeInCluster, model: str, name: str) -> Manifest:
    """The container of our image, without what is particular to a platform."""
    spec, options = serving.spec, serving.serve
    said = [f"serve.{key}={value}" for key, value in serving.options.items()]
    ports = [{"name": "http", "containerPort": options.port}, {"name": "probes", "containerPort": options.probes_port}]
    if options.grpc_port is not None:
        ports.append({"name": "grpc", "containerPort": options.grpc_port})
    every, looks = _START

    def probe(path: str) -> Manifest:
        return {"httpGet": {"path": path, "port": options.probes_port}, "periodSeconds": every}

    found: Manifest = {
        "name": name,
        "image": spec.image,
        "args": ["serve", f"model={model}", f"serve.name={serving.name}", "serve.host=0.0.0.0", *said],
        "ports": ports,
        "startupProbe": {**probe("/readyz"), "failureThreshold": looks},
        "readinessProbe": probe("/readyz"),
        "livenessProbe": {**probe("/livez"), "failureThreshold": 6},
        "resources": pod.resources(spec, "serve"),
        "securityContext": pod.container_security(),
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            *([{"name": "data", "mountPath": pod.DATA, "readOnly": True}] if spec.data_claim else []),
        ],
    }
    sources = [{"configMapRef": {"name": each}} for each in spec.config_maps]
    sources += [{"secretRef": {"name": each}} for each in spec.secrets]
    env = [{"name": key, "value": value} for key, value in spec.env.items()]
    return found | ({"env": env} if env else {}) | ({"envFrom": sources} if sources else {})


def _service(serving: ServeInCluster) -> Manifest:
    ports: list[Manifest] = [{"name": "http", "port": 80, "targetPort": "http"}]
    if serving.serve.grpc_port is not None:
        ports.append({"name": "grpc", "port": serving.serve.grpc_port, "targetPort": "grpc"})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata_of(serving.spec, role="serve"),
        "spec": {"selector": _selector(serving)["matchLabels"], "ports": ports},
    }


def metrics_service(serving: ServeInCluster, name: str) -> Manifest:
    """Without an address of its own: its name has those of all pods that are ready, whose metrics are each pod's."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata_of(serving.spec, name, role="serve"),
        "spec": {
            "clusterIP": "None",
            "selector": _selector(serving)["matchLabels"],
            "ports": [{"name": "probes", "port": serving.serve.probes_port, "targetPort": "probes"}],
        },
    }


def _scaler(serving: ServeInCluster) -> Manifest:
    busy = {"type": "Utilization", "averageUtilization": _BUSY}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata_of(serving.spec, role="serve"),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": serving.spec.name},
            "minReplicas": serving.replicas,
            "maxReplicas": serving.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": busy}}],
        },
    }


def _budget(serving: ServeInCluster) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata_of(serving.spec, role="serve"),
        "spec": {"maxUnavailable": 1, "selector": _selector(serving)},
    }


def _policy(serving: ServeInCluster) -> Manifest:
    """Without a token: this namespace's pods may ask; metrics may be read by whoever scrapes them."""
    options = serving.serve
    asked = [port for port in (options.port, options.grpc_port) if port is not None]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata_of(serving.spec, role="serve"),
        "spec": {
            "podSelector": _selector(serving),
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": {}}], "ports": [{"port": port} for port in asked]},
                {"ports": [{"port": options.probes_port}]},
            ],
        },
    }


# -- KServe


def _kserve(serving: ServeInCluster) -> list[Manifest]:
    """Its own runtime of TensorFlow Serving, or our image, in which its storage initializer fills /mnt/models."""
    predictor: Manifest = {"minReplicas": serving.replicas, "maxReplicas": serving.max_replicas}
    if serving.canary is not None:
        predictor["canaryTrafficPercent"] = serving.canary
    if serving.runtime == "tensorflow":
        model: Manifest = {"modelFormat": {"name": "tensorflow"}, "storageUri": serving.model, "protocolVersion": "v1"}
        predictor["model"] = model | _resources(serving)
    else:
        container = _container(serving, "/mnt/models", "kserve-container")
        container["args"].append("serve.auth=none") if "auth" not in serving.options else None
        container["env"] = [{"name": "STORAGE_URI", "value": serving.model}, *container.get("env", [])]
        container["ports"] = [{"containerPort": serving.serve.port, "protocol": "TCP"}]
        container["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]
        predictor |= {"containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}]}
    predictor |= _account(serving) | pod.placement(serving.spec, "serve")
    meta = metadata_of(serving.spec, role="serve")
    if serving.canary is not None:
        meta["annotations"] = {"serving.kserve.io/deploymentMode": "Knative"}
    spec = {"predictor": predictor}
    return [{"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": meta, "spec": spec}]


def _resources(serving: ServeInCluster) -> Manifest:
    found = pod.resources(serving.spec, "serve")
    return {"resources": found} if found else {}


def _account(serving: ServeInCluster) -> Manifest:
    return {"serviceAccountName": serving.spec.service_account} if serving.spec.service_account else {}


# -- Seldon Core


def _seldon(serving: ServeInCluster) -> list[Manifest]:
    """Version 1: its prepackaged server of TensorFlow."""

    def told(name: str, value: str) -> dict[str, str]:
        return {"name": name, "type": "STRING", "value": value}

    graph: Manifest = {
        "name": serving.name,
        "implementation": "TENSORFLOW_SERVER",
        "modelUri": serving.model,
        "parameters": [told("signature_name", "serving_default"), told("model_name", serving.name)],
        **_account(serving),
    }
    predictor: Manifest = {"name": "default", "replicas": serving.replicas, "graph": graph}
    if found := _resources(serving):
        predictor["componentSpecs"] = [{"spec": {"containers": [{"name": serving.name, **found}]}}]
    spec: Manifest = {"name": serving.spec.name, "protocol": "tensorflow", "predictors": [predictor]}
    kind = {"apiVersion": "machinelearning.seldon.io/v1", "kind": "SeldonDeployment"}
    return [{**kind, "metadata": metadata_of(serving.spec, role="serve"), "spec": spec}]


def _seldon2(serving: ServeInCluster) -> list[Manifest]:
    """Version 2: a Model, which a Server that has TensorFlow takes."""
    spec: dict[str, Any] = {"storageUri": serving.model, "requirements": ["tensorflow"], "replicas": serving.replicas}
    if serving.spec.memory:
        spec["memory"] = serving.spec.memory
    if serving.max_replicas > serving.replicas:
        spec |= {"minReplicas": serving.replicas, "maxReplicas": serving.max_replicas}
    kind = {"apiVersion": "mlops.seldon.io/v1alpha1", "kind": "Model"}
    return [{**kind, "metadata": metadata_of(serving.spec, role="serve"), "spec": spec}]
