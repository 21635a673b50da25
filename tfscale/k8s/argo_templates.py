"""The templates of a workflow of Argo's: a pod for each command, a step for each object, and what comes after what.

Owns how a step runs and is tried again. Refuses to know which commands there are (workflow/steps.py), what the training
and the server look like (manifests.py, served_model.py), and what stands around the templates (argo_workflow.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import tfscale.k8s.pod as pod
import tfscale.k8s.served_model as served_model
from tfscale.errors import RETRYABLE, IOFailure
from tfscale.k8s.argo_conditions import FAILED, Conditions, of_job, of_served
from tfscale.k8s.argo_request import MODELS, STAND_IN, ClusterWorkflow
from tfscale.k8s.manifests import render
from tfscale.k8s.metadata import Manifest
from tfscale.k8s.yaml_text import yaml_of
from tfscale.workflow.steps import NOT_BETTER, TRAIN_AND_DEPLOY, WATCH, Step

ENTRY = TRAIN_AND_DEPLOY.replace("_", "-")
RELEASE = "release"  # what is done with a model that is better
_ANSWER = "better"  # the output of the step that may refuse
_NAME = "{{workflow.name}}"
_PROGRAM = ["tini", "-s", "--", "tfscale"]  # the image's entry point, which Argo doesn't look up
_ANSWERING = (  # an answer becomes an output, so that a model that isn't better is no failure
    f'tfscale "$@"; code=$?; case $code in 0) answer=true;; {NOT_BETTER}) answer=false;; *) exit $code;; esac;'
    f" echo $answer > /tmp/{_ANSWER}"
)
_GONE = -1  # the code of a pod of which nothing is known
_TRIES = 5
_AT_ONCE = Conditions()
_OF_TEMPLATE = ("nodeSelector", "tolerations", "affinity", "hostAliases", "schedulerName", "securityContext")
_OF_WORKFLOW = (
    *("restartPolicy", "serviceAccountName", "automountServiceAccountToken", "imagePullSecrets"),
    *("priorityClassName", "volumes", "containers"),
)


def objects(workflow: ClusterWorkflow) -> list[Manifest]:
    """What the workflow applies while it runs, with the workflow's name where it is known then."""
    return [_named(one) for one in (*render(workflow.job), *served_model.render(workflow.serving))]


def templates(workflow: ClusterWorkflow) -> list[Manifest]:
    """All of them: the two graphs first."""
    steps = {step.name: step for step in workflow.steps}
    train = list(_training(workflow))
    serve = list(_served(workflow))
    first: list[Manifest] = []
    for step in workflow.steps:
        if step.name == "train":
            first += _chain(train, step.needs)
        elif step.name not in ("deploy", "serve", "smoke", WATCH):
            first.append(_task(step.name, step.needs))
    first.append(
        {**_task(RELEASE, ("promote",)), "when": f"{{{{tasks.promote.outputs.parameters.{_ANSWER}}}}} == true"}
    )
    url = workflow.url
    if workflow.asked.server == "kserve":
        url = f"{{{{tasks.{serve[-1]['name']}.outputs.parameters.url}}}}"
    second = [_task("deploy", ()), *_chain(serve, ("deploy",))]
    given = {"arguments": {"parameters": [{"name": "url", "value": url}]}}
    second.append(_task("smoke", (serve[-1]["name"],)) | given)
    if WATCH in steps:
        second.append(_task(WATCH, ("smoke",)))
    graphs = [{"name": ENTRY, "dag": {"tasks": first}}, {"name": RELEASE, "dag": {"tasks": second}}]
    pods = [_pod_step(workflow, step) for name, step in steps.items() if name not in ("train", "serve")]
    return [*graphs, *(_named(one) for one in (*pods, *train, *serve))]


def _task(name: str, needs: Sequence[str]) -> Manifest:
    return {"name": name, "template": name} | ({"depends": " && ".join(needs)} if needs else {})


def _chain(made: Sequence[Manifest], needs: Sequence[str]) -> Iterator[Manifest]:
    for one in made:
        yield _task(one["name"], needs)
        needs = (one["name"],)


# -- objects


def _training(workflow: ClusterWorkflow) -> Iterator[Manifest]:
    """What the job needs first; the job itself is last, and waited for. All go with the workflow."""
    *around, job = render(workflow.job)
    _, account = workflow.accounts
    for one in around:
        yield _applied(f"train-{_kind(one)}", account, one, owned=True)
    yield _applied("train", account, job, of_job(workflow.job), owned=True)


def _served(workflow: ClusterWorkflow) -> Iterator[Manifest]:
    _, account = workflow.accounts
    for one in served_model.render(workflow.serving):
        made = _applied(f"serve-{_kind(one)}", account, one, of_served(workflow.serving, one["kind"]))
        if one["kind"] == "InferenceService":
            url = {"name": "url", "valueFrom": {"jsonPath": "{.status.address.url}"}}
            made["outputs"] = {"parameters": [url]}
        yield made


def _kind(manifest: Manifest) -> str:
    return str(manifest["kind"]).lower()


def _applied(
    name: str, account: str, manifest: Manifest, wait: Conditions = _AT_ONCE, *, owned: bool = False
) -> Manifest:
    """`kubectl apply`: a step that is tried again finds the object, and waits on. Only what the object says ends it for
    good: a pod that was evicted, or a webhook that doesn't know the runtime yet, doesn't."""
    resource: Manifest = {"action": "apply"} | ({"setOwnerReference": True} if owned else {})
    for key, condition in (("successCondition", wait.success), ("failureCondition", wait.failure)):
        if condition:
            resource[key] = condition
    resource["manifest"] = yaml_of(_named(manifest))
    return {
        "name": name,
        "serviceAccountName": account,
        "retryStrategy": _retry(f'!(lastRetry.message contains "{FAILED}")'),
        "resource": resource,
    }


# -- pods


def _pod_step(workflow: ClusterWorkflow, step: Step) -> Manifest:
    """A pod that runs one command of ours. What a template has no field for becomes a patch of the pod."""
    job, role = workflow.job_of(step)
    template = pod.template(job, role)
    inside = template["spec"]
    [container, *others] = inside["containers"]
    made: Manifest = {"name": step.name, "metadata": template["metadata"], "retryStrategy": _retry(_again(step))}
    if inside["securityContext"] == pod.pod_security(job.spec):  # the workflow's
        del inside["securityContext"]
    made |= {key: inside[key] for key in _OF_TEMPLATE if key in inside}
    container["command"] = list(_PROGRAM)
    container["resources"] = _texts(container["resources"])
    if step.name == "promote":
        container["command"] = ["sh", "-c", _ANSWERING, step.name]
        made["outputs"] = {"parameters": [{"name": _ANSWER, "valueFrom": {"path": f"/tmp/{_ANSWER}"}}]}
    if step.name in ("deploy", WATCH):
        inside["volumes"].append({"name": "served", "persistentVolumeClaim": {"claimName": workflow.models_claim}})
        container["volumeMounts"].append({"name": "served", "mountPath": MODELS})
    if step.name == "smoke":
        made["inputs"] = {"parameters": [{"name": "url"}]}
        container["envFrom"] = [{"secretRef": {"name": name}} for name in workflow.serving.spec.secrets]
    made["container"] = {key: value for key, value in container.items() if value and key not in ("name", "ports")}
    made["volumes"] = inside["volumes"]
    rest = {key: value for key, value in inside.items() if key not in (*_OF_TEMPLATE, *_OF_WORKFLOW)}
    made["podSpecPatch"] = json.dumps(rest | ({"containers": others} if others else {}))
    return made


def _texts(resources: Manifest) -> Manifest:
    """Quantities as texts, which hera wants."""
    return {which: {name: str(amount) for name, amount in each.items()} for which, each in resources.items()}


def _again(step: Step) -> str:
    """Whether a pod that failed is started again: with codes that say so, or where nothing is known of it."""
    codes = [_GONE, *RETRYABLE]
    if step.name in ("import", "promote"):  # a store or a registry may be back; of a watch half may have gone back
        codes.append(IOFailure.exit_code)
    return f'lastRetry.status == "Error" || asInt(lastRetry.exitCode) in {sorted(codes)}'


def _retry(expression: str) -> Manifest:
    return {"limit": str(_TRIES), "expression": expression, "backoff": {"duration": "10s", "factor": "2", "cap": "5m"}}


def _named(node: Any) -> Any:
    """With the workflow's name where it stands in for itself."""
    if isinstance(node, dict):
        return {key: _named(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_named(value) for value in node]
    return node.replace(STAND_IN, _NAME) if isinstance(node, str) else node
