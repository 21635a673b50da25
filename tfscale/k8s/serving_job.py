"""`tfscale k8s serve`: what is asked of a served model in a cluster, and what can't be.

Owns the words of that command besides `job.*`. Refuses to know manifests, which are served_model.py's.

    serving = ServeInCluster.of(["model=s3://bucket/digits", "serve.replicas=2"], spec, asked=[])
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from tfscale.config.serve_options import ServeOptions
from tfscale.errors import UsageError, nearest
from tfscale.k8s.pod import DATA
from tfscale.k8s.spec import SERVING_KINDS, JobSpec
from tfscale.tracking.model_address import is_address, parse_address

RUNTIMES = ("tfscale", "tensorflow")
_OWN = {"runtime": str, "replicas": int, "max_replicas": int, "canary": int, "name": str}
STORES = {"s3": "s3", "gs": "gcs", "https": "http", "http": "http"}  # that our server reads, and the extra of each
_PODS = ("host", "tls_cert", "tls_key")  # of ServeOptions: what the pod's own manifest says, or can't know
# What of job.* concerns it; the rest is about training.
_TAKEN = {
    *("kind", "name", "namespace", "image", "cpus", "memory", "gpus", "gpu_product", "node_selector", "tolerations"),
    *("data_claim", "env", "secrets", "config_maps", "user", "service_account", "pull_secrets", "priority_class"),
}


@dataclass(frozen=True)
class ServeInCluster:
    """A served model.

    Attributes:
        spec: where and how its pods run.
        model: of a Deployment a path below the mounted claim, models:/NAME@ALIAS or a URL in a store; of the others a
            URL that their storage initializer reads.
        name: by which requests ask for it.
        runtime: which program serves it: "tfscale", ours, or "tensorflow", TensorFlow Serving.
        replicas, max_replicas: pods at least, and at most.
        canary: percent of the requests that go to this version; None: all.
        options: of `tfscale serve` in the pod, by their names without "serve.".
    """

    spec: JobSpec
    model: str
    name: str
    runtime: str
    replicas: int = 1
    max_replicas: int = 1
    canary: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, words: Sequence[str], spec: JobSpec, asked: Sequence[str]) -> ServeInCluster:
        """Args: words: model=... and serve.*; asked: words of job.* that were given by hand.

        Raises:
            UsageError: a word that is wrong, or that has no effect.
        """
        _refuse_in_vain(spec, asked)
        given = _parsed(words)
        own = {name: given.pop(name) for name in list(given) if name in _OWN}
        model = given.pop("model", "")
        usual = "tfscale" if spec.kind == "deployment" else "tensorflow"
        replicas = own.get("replicas", 1)
        found = cls(
            spec,
            model,
            own.get("name") or spec.name,
            own.get("runtime", usual),
            replicas,
            max(replicas, own.get("max_replicas", replicas)),
            own.get("canary"),
            given,
        )
        found._check(own)
        return found

    @property
    def serve(self) -> ServeOptions:
        """The server's, as it is told them: it listens for all, and says so."""
        return ServeOptions(**{"host": "0.0.0.0", "token": "in-a-secret-of-kubernetes", **self.options})

    @property
    def has_token(self) -> bool:
        return self.options.get("auth") != "none"

    def _check(self, own: Mapping[str, Any]) -> None:
        spec = self.spec
        if not self.model:
            raise UsageError("no model was given", where="model", fix="model=s3://BUCKET/NAME, or a path on a claim")
        if self.runtime not in RUNTIMES:
            hint = nearest(self.runtime, RUNTIMES)
            raise UsageError(
                f"{self.runtime} serves no model{hint}", where="serve.runtime", fix=f"use {' or '.join(RUNTIMES)}"
            )
        if self.max_replicas > self.replicas and not spec.cpus and spec.kind == "deployment":
            raise UsageError(
                "pods are added where they need more than they request, and they request no processors",
                where="serve.max_replicas",
                fix="give job.cpus=2, too",
            )
        for name, least in (("replicas", 1), ("max_replicas", self.replicas)):
            if own.get(name, least) < least:
                raise UsageError(f"{own[name]} pods", where=f"serve.{name}", fix=f"give {least} or more")
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise UsageError(
                f"{self.name!r} is no model's name", where="serve.name", fix="use letters, digits, _, - and ."
            )
        if self.runtime == "tensorflow" and self.options:
            what = ", ".join(f"serve.{name}" for name in self.options)
            raise UsageError(
                f"TensorFlow Serving doesn't know {what}",
                where="serve.runtime",
                fix="leave them away, or serve.runtime=tfscale",
            )
        if self.runtime == "tfscale" and not spec.image:
            raise UsageError("no image was given", where="job.image", fix="give job.image=REGISTRY/tfscale:TAG")
        if self.canary is not None and (spec.kind != "kserve" or not 0 <= self.canary <= 100):
            raise UsageError(
                "a share of the requests is what KServe's Knative mode gives, 0 to 100",
                where="serve.canary",
                fix="use job=kserve, or the weights of a route",
            )
        self._check_place()
        if self.runtime == "tfscale":
            options = self.serve if self.has_token else dataclasses.replace(self.serve, token="")
            options.check()

    @property
    def store(self) -> str:
        """The protocol of the store out of which our own server takes the model; "" of others."""
        protocol = self.model.partition("://")[0]
        return protocol if protocol in STORES and "://" in self.model and self.spec.kind == "deployment" else ""

    def _refuse_claim(self) -> None:
        if self.spec.data_claim:
            raise UsageError(
                f"{self.model} lies on no claim",
                where="job.data_claim",
                fix="leave it away, or give a model on the claim",
            )

    def _check_store(self) -> None:
        """What a pod needs to read a store; who may is for its secrets to say."""
        if not re.fullmatch(r"\w+://[^\s@?#]+/[^\s@?#]+", self.model) or ".." in self.model.split("/"):
            raise UsageError(f"{self.model} is no URL of a model", where="model", fix="model=s3://BUCKET/NAME")
        self._refuse_claim()
        self._check_token()

    def _check_registry(self) -> None:
        """What a pod needs to ask MLflow."""
        spec = self.spec
        parse_address(self.model)
        self._refuse_claim()
        told = {"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"} & set(spec.env)
        if not told and not spec.config_maps and not spec.secrets:
            raise UsageError(
                f"nothing tells the pod which registry has {self.model}",
                where="job.env",
                fix="job.env.MLFLOW_TRACKING_URI=http://MLFLOW:5000, or a Secret with it in job.secrets",
            )
        self._check_token()

    def _check_place(self) -> None:
        spec, is_url = self.spec, "://" in self.model
        if spec.kind != "deployment":
            if is_address(self.model):
                raise UsageError(
                    f"{spec.kind} copies no model from MLflow's registry",
                    where="model",
                    fix=f"use job=deployment, which serves {self.model} by tfscale, or give the model's URL",
                )
            if not is_url:
                raise UsageError(
                    f"{self.model} is no URL, which {spec.kind} copies the model from",
                    where="model",
                    fix="model=s3://BUCKET/NAME, gs://..., or pvc://CLAIM/NAME",
                )
            if (spec.kind, self.runtime) in (("seldon", "tfscale"), ("seldon2", "tfscale")):
                raise UsageError(
                    f"{spec.kind} copies a model for its own servers alone",
                    where="serve.runtime",
                    fix="serve.runtime=tensorflow, or job=deployment",
                )
            return
        if self.runtime != "tfscale":
            raise UsageError("a Deployment runs our image", where="serve.runtime", fix="leave it away, or job=kserve")
        if is_address(self.model):
            self._check_registry()
            return
        if self.store:
            self._check_store()
            return
        if is_url or not self.model.startswith(f"{DATA}/") or ".." in self.model.split("/"):
            raise UsageError(
                f"{self.model} is no place that the pod sees",
                where="model",
                fix=f"job.data_claim=CLAIM model={DATA}/NAME, where the claim holds NAME; or model=s3://BUCKET/NAME",
            )
        if not spec.data_claim:
            raise UsageError(
                "no claim was given with the model", where="job.data_claim", fix="give job.data_claim=CLAIM"
            )
        self._check_token()

    def _check_token(self) -> None:
        if self.has_token and not self.spec.secrets:
            raise UsageError(
                "requests bring a token, and no Secret holds it",
                where="job.secrets",
                fix="kubectl create secret generic NAME --from-literal=TFSCALE_SERVE_TOKEN=$(openssl rand -hex 32), and"
                " job.secrets=[NAME]; or serve.auth=none",
            )


def notes(serving: ServeInCluster) -> Iterator[str]:
    """What people should know of it, one sentence each."""
    if serving.runtime == "tensorflow":
        yield f"{serving.model} holds numbered versions, as tfscale export run.dir=RUN versions=FOLDER writes them"
    else:
        extras = "serve mlflow" if is_address(serving.model) else f"serve {STORES.get(serving.store, '')}".strip()
        yield f'the image must have what serving needs: docker build --build-arg EXTRAS="{extras}"'
    if serving.runtime == "tfscale" and not serving.has_token:
        yield "serve.auth=none: whoever reaches the pods may ask; the NetworkPolicy lets this namespace's pods in alone"
    if serving.canary is not None:
        yield "KServe shares requests out in its Knative mode alone, which the annotation asks for"


def _parsed(words: Sequence[str]) -> dict[str, Any]:
    """The words by their names without "serve."; raises UsageError."""
    kinds: dict[str, Any] = {one.name: one.type for one in fields(ServeOptions) if one.name not in ("token", *_PODS)}
    known = ["model", *(f"serve.{name}" for name in (*kinds, *_OWN))]
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in known:
            raise UsageError(
                f"unknown word {word!r}{nearest(key, known)}", where="command line", fix="--help lists the keys"
            )
        name = key.removeprefix("serve.")
        kind = _OWN.get(name) or {"int": int, "int | None": int, "float": float}.get(str(kinds.get(name)), str)
        try:
            found[name] = kind(value)
        except ValueError:
            raise UsageError(f"{value!r} is no number", where=key, fix=f"{key}=N") from None
    if found.get("auth", "token") not in ("token", "none"):
        raise UsageError(
            f"{found['auth']} is no way to ask", where="serve.auth", fix="serve.auth=none, or leave it away"
        )
    return found


def _refuse_in_vain(spec: JobSpec, asked: Sequence[str]) -> None:
    if spec.kind not in SERVING_KINDS:
        raise UsageError(
            f"a {spec.kind} serves no model", where="job", fix=f"use job= with one of {', '.join(SERVING_KINDS)}"
        )
    usual = JobSpec()
    vain = [one.name for one in fields(JobSpec) if one.name not in _TAKEN]
    vain += ["data_claim", "secrets", "config_maps", "env"] if spec.kind != "deployment" else []
    by_hand = [
        f"job.{name}"
        for name in vain
        if getattr(spec, name) != getattr(usual, name)
        and any(word.lstrip("+").partition("=")[0].startswith(f"job.{name}") for word in asked)
    ]
    if by_hand:
        raise UsageError(
            f"{', '.join(by_hand)} has no effect on a served model of job={spec.kind}",
            where=by_hand[0],
            fix="leave it away",
        )
