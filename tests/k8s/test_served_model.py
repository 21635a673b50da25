"""`tfscale k8s serve`: manifests that the real schemas take, pods that the program serves in, and what is refused."""

from __future__ import annotations

import pytest
import yaml

from tfscale.errors import UsageError
from tfscale.k8s.printed import text_of, text_of_serving

IMAGE = "job.image=registry/tfscale:1"
POD = ("job=deployment", IMAGE, "job.data_claim=models", "model=/work/data/digits", "job.name=digits")
STORED = ("model=s3://bucket/digits", "job.name=digits")
ASKED = "job.env={MLFLOW_TRACKING_URI: http://mlflow:5000}"
REGISTERED = ("job=deployment", IMAGE, "model=models:/digits@champion", "job.name=digits", ASKED)
TOKEN = "job.secrets=[serve-token]"


def rendered(*words: str) -> list[dict]:
    return list(yaml.safe_load_all(text_of_serving(words)))


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ((*POD, TOKEN), ["Service", "Deployment"]),
        ((*POD, "serve.auth=none"), ["NetworkPolicy", "Service", "Deployment"]),
        (
            (
                *POD,
                TOKEN,
                "serve.replicas=2",
                "serve.max_replicas=4",
                "job.cpus=2",
                "job.gpus=1",
                "serve.grpc_port=9000",
            ),
            ["Service", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"],
        ),
        ((*REGISTERED, TOKEN), ["Service", "Deployment"]),
        (("job=kserve", *STORED, "job.cpus=2", "job.memory=2Gi", "job.gpus=1"), ["InferenceService"]),
        (("job=kserve", *STORED, IMAGE, "serve.runtime=tfscale", "serve.canary=10"), ["InferenceService"]),
        (("job=seldon", *STORED, "job.service_account=models", "job.cpus=2"), ["SeldonDeployment"]),
        (("job=seldon2", *STORED, "job.memory=1Gi", "serve.replicas=2", "serve.max_replicas=3"), ["Model"]),
    ],
)
def test_the_real_schemas_take_them(validate, words, kinds):
    found = rendered(
        *words, "job.namespace=models", "job.priority_class=high" if "job=deployment" in words else "job.queue=null"
    )
    assert [one["kind"] for one in found] == kinds
    assert [problem for one in found for problem in validate(one)] == []
    assert {one["metadata"]["namespace"] for one in found} == {"models"}


@pytest.mark.parametrize("more", [(TOKEN, "serve.batch=8", "serve.timeout=2.5"), ("serve.auth=none",)])
def test_the_pods_command_is_one_that_the_program_takes(more, tmp_path):
    from tfscale.serving.__main__ import options_of, program

    (pod,) = [one["spec"]["template"]["spec"] for one in rendered(*POD, *more) if one["kind"] == "Deployment"]
    (container,) = pod["containers"]
    command, *words = container["args"]
    assert command == "serve"
    given = program().parse(words)
    assert (given.model, given.serve_name, given.overrides) == ("/work/data/digits", "digits", [])
    environ = {"TFSCALE_SERVE_TOKEN": "x" * 32} if TOKEN in more else {}
    options = options_of(given, environ)
    assert options.host == "0.0.0.0" and options.needs_token == (TOKEN in more)
    assert options.batch == (8 if TOKEN in more else 64)
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"http": options.port, "probes": options.probes_port}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": options.probes_port}
    assert pod["terminationGracePeriodSeconds"] > options.drain + container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["volumes"][1]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert container.get("envFrom", []) == ([{"secretRef": {"name": "serve-token"}}] if TOKEN in more else [])


def test_services_and_policies_find_the_pods():
    policy, service, deployment = rendered(*POD, "serve.auth=none", "serve.port=9090")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (
        service["spec"]["selector"],
        deployment["spec"]["selector"]["matchLabels"],
        policy["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert policy["spec"]["ingress"][0] == {"from": [{"podSelector": {}}], "ports": [{"port": 9090}]}
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]


def test_a_registered_model_needs_no_volume():
    (pod,) = [one["spec"]["template"]["spec"] for one in rendered(*REGISTERED, TOKEN) if one["kind"] == "Deployment"]
    (container,) = pod["containers"]
    assert container["args"][1] == "model=models:/digits@champion"
    assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"} in container["env"]
    assert [one["name"] for one in (*pod["volumes"], *container["volumeMounts"])] == ["tmp", "tmp"]


def test_a_model_out_of_a_store_needs_no_volume_either():
    words = ("job=deployment", IMAGE, *STORED, "job.secrets=[serve-token,store]", "serve.reload=60")
    assert 'EXTRAS="serve s3"' in text_of_serving(words)
    (pod,) = [one["spec"]["template"]["spec"] for one in rendered(*words) if one["kind"] == "Deployment"]
    (container,) = pod["containers"]
    assert {"model=s3://bucket/digits", "serve.reload=60.0"} <= set(container["args"])
    assert [one["name"] for one in (*pod["volumes"], *container["volumeMounts"])] == ["tmp", "tmp"]


def test_kserves_own_container_and_seldons_parameters():
    (service,) = rendered("job=kserve", *STORED, IMAGE, "serve.runtime=tfscale")
    (container,) = service["spec"]["predictor"]["containers"]
    assert container["args"][:2] == ["serve", "model=/mnt/models"] and "serve.auth=none" in container["args"]
    assert {"name": "STORAGE_URI", "value": "s3://bucket/digits"} in container["env"]
    (seldon,) = rendered("job=seldon", *STORED, "serve.name=mnist")
    graph = seldon["spec"]["predictors"][0]["graph"]
    assert {one["name"]: one["value"] for one in graph["parameters"]} == {
        "signature_name": "serving_default", "model_name": "mnist",
    }  # fmt: skip
    assert (graph["implementation"], graph["modelUri"]) == ("TENSORFLOW_SERVER", "s3://bucket/digits")


@pytest.mark.parametrize(
    ("words", "where", "said"),
    [
        (("job=job", *STORED), "job", "a job serves no model"),
        (("job=kserve",), "model", "no model was given"),
        (("job=kserve", "model=digits"), "model", "is no URL"),
        ((*POD,), "job.secrets", "no Secret holds it"),
        ((*POD[:2], "model=/work/data/digits", TOKEN), "job.data_claim", "no claim"),
        ((*POD, TOKEN, "model=file:///d"), "model", "no place that the pod sees"),
        ((*POD, TOKEN, "model=s3://b/d"), "job.data_claim", "s3://b/d lies on no claim"),
        (("job=deployment", IMAGE, TOKEN, "model=s3://b"), "model", "no URL of a model"),
        (("job=deployment", IMAGE, *STORED), "job.secrets", "no Secret holds it"),
        ((*POD, TOKEN, "serve.batches=2"), "command line", "did you mean 'serve.batch'"),
        ((*POD, TOKEN, "serve.batch=0"), "serve.batch", "serve.batch is 0"),
        ((*POD, TOKEN, "serve.batch=a"), "serve.batch", "no number"),
        ((*POD, TOKEN, "serve.max_replicas=3"), "serve.max_replicas", "request no processors"),
        ((*POD, TOKEN, "job.run_claim=runs"), "job.run_claim", "no effect on a served model"),
        ((*POD, TOKEN, "serve.canary=10"), "serve.canary", "KServe's Knative mode"),
        (("job=kserve", *STORED, "serve.batch=8"), "serve.runtime", "doesn't know serve.batch"),
        (("job=kserve", *STORED, TOKEN), "job.secrets", "no effect on a served model of job=kserve"),
        (("job=seldon2", *STORED, "serve.runtime=tfscale", IMAGE), "serve.runtime", "its own servers alone"),
        (("job=kserve", *STORED, "serve.runtime=tfscale"), "job.image", "no image"),
        ((*POD[:1], *POD[2:], TOKEN), "job.image", "no image"),
        ((*REGISTERED[:-1], "serve.auth=none"), "job.env", "nothing tells the pod which registry has"),
        ((*REGISTERED, TOKEN, "job.data_claim=models"), "job.data_claim", "lies on no claim"),
        ((*REGISTERED, TOKEN, "model=models:/digits"), "model", "names no version of a registered model"),
        (("job=kserve", "model=models:/digits@champion"), "model", "kserve copies no model from MLflow's registry"),
    ],
)
def test_what_cannot_be_is_refused(words, where, said):
    with pytest.raises(UsageError, match=said) as refused:
        text_of_serving(words)
    assert refused.value.where == where


def test_what_serves_trains_nothing():
    with pytest.raises(UsageError, match="a deployment serves a model, and trains none"):
        text_of(["+recipe=resnet", "job=deployment", IMAGE, "job.run_claim=runs"])
