"""The objects of a workflow of Argo's: its accounts and what they may do, the WorkflowTemplate, the CronWorkflow.

Owns what stands around the templates (argo_templates.py). hera writes Argo's own objects, so that they are what its
models allow; nothing here reaches a cluster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tfscale.k8s.mounted_files as mounted_files
import tfscale.k8s.served_model as served_model
from tfscale.errors import InternalError, UsageError
from tfscale.k8s.argo_request import ClusterWorkflow
from tfscale.k8s.argo_templates import ENTRY, objects, templates
from tfscale.k8s.metadata import Manifest, metadata_of
from tfscale.k8s.pod import pod_security
from tfscale.k8s.spec import JobSpec

_RBAC = "rbac.authorization.k8s.io"
_VERBS = ["get", "create", "patch"]  # of kubectl apply, and of waiting
_REPORTS = {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
_NO_SIDECAR = {"labels": {"sidecar.istio.io/inject": "false"}}  # it would outlive the step
_LATE = 3600  # seconds after which a run that was missed isn't made up for


def render(workflow: ClusterWorkflow) -> list[Manifest]:
    """The manifests, in the order in which they are to be applied."""
    spec = dataclasses.replace(workflow.job.spec, name=workflow.asked.name)
    watched = [served_model.metrics_service(workflow.serving, workflow.asked.metrics_service)]
    made = [*_accounts(workflow, spec), *_files(workflow), *watched * bool(workflow.asked.request.watch)]
    made.append(_template(workflow, spec))
    if "schedule" in workflow.asked.request.own:
        made.append(_cron(workflow, spec))
    return made


def _files(workflow: ClusterWorkflow) -> list[Manifest]:
    """What the import's pod finds mounted; what the training's pods do is applied with the training."""
    return [
        manifest
        for step in workflow.steps
        if step.name == "import"
        for manifest in mounted_files.manifests(workflow.job_of(step)[0])
    ]


# -- accounts


def _accounts(workflow: ClusterWorkflow, spec: JobSpec) -> list[Manifest]:
    steps, applying = workflow.accounts
    theirs = [applying] if spec.service_account else [steps, applying]  # the user's own is there
    accounts = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(spec, name)} for name in theirs]
    reports = f"{workflow.asked.name}-steps"
    roles = [_role(spec, reports, [_REPORTS]), _role(spec, applying, _rules(objects(workflow)))]
    return [*accounts, *roles, _binding(spec, reports, [steps, applying]), _binding(spec, applying, [applying])]


def _rules(manifests: Sequence[Manifest]) -> list[Manifest]:
    """For the kinds that the workflow applies, and no other."""
    found: dict[str, list[str]] = {}
    for one in manifests:
        group = one["apiVersion"].rpartition("/")[0]
        found.setdefault(group, []).append(_plural(one["kind"]))
    return [
        {"apiGroups": [group], "resources": sorted(set(kinds)), "verbs": list(_VERBS)}
        for group, kinds in sorted(found.items())
    ]


def _plural(kind: str) -> str:
    name = kind.lower()
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def _role(spec: JobSpec, name: str, rules: list[Manifest]) -> Manifest:
    return {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": _meta(spec, name), "rules": rules}


def _binding(spec: JobSpec, role: str, accounts: Sequence[str]) -> Manifest:
    namespace = {"namespace": spec.namespace} if spec.namespace else {}  # else that of the binding
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": _meta(spec, role),
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, **namespace} for name in accounts],
    }


def _meta(spec: JobSpec, name: str) -> Manifest:
    return metadata_of(spec, name, "workflow")


# -- Argo's own


def _template(workflow: ClusterWorkflow, spec: JobSpec) -> Manifest:
    more: dict[str, Any] = {}
    if ttl := workflow.asked.request.own.get("ttl"):
        more["ttlStrategy"] = {"secondsAfterCompletion": int(ttl)}
    if spec.pull_secrets:
        more["imagePullSecrets"] = [{"name": name} for name in spec.pull_secrets]
    if spec.priority_class:
        more["podPriorityClassName"] = spec.priority_class
    return _written(
        "WorkflowTemplate",
        _meta(spec, spec.name),
        {
            "entrypoint": ENTRY,
            "serviceAccountName": workflow.accounts[0],
            "securityContext": pod_security(spec),
            "podMetadata": _NO_SIDECAR,
            **more,
            "arguments": {
                "parameters": [{"name": name, "value": value} for name, value in workflow.parameters.items()]
            },
            "templates": templates(workflow),
        },
    )


def _cron(workflow: ClusterWorkflow, spec: JobSpec) -> Manifest:
    own = workflow.asked.request.own
    return _written(
        "CronWorkflow",
        _meta(spec, spec.name),
        {
            "schedules": [own["schedule"]],
            **({"timezone": own["timezone"]} if "timezone" in own else {}),
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": _LATE,
            "workflowSpec": {"workflowTemplateRef": {"name": spec.name}},
        },
    )


def _written(kind: str, meta: Manifest, spec: Manifest) -> Manifest:
    """As hera's models write it. Raises UsageError where hera isn't installed."""
    try:
        from hera.workflows import models
    except ImportError:
        raise UsageError(
            "hera isn't installed, which writes Argo's objects",
            where="tfscale k8s workflow",
            fix="pip install 'tfscale[workflow]'",
        ) from None
    given = {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}
    found = getattr(models, kind).model_validate(given).model_dump(exclude_none=True, by_alias=True)
    return _in_order(found, given)


def _in_order(found: Any, given: Any) -> Any:
    """What hera wrote, in the order in which we did. Raises InternalError where its models left something out."""
    if isinstance(found, dict):
        if lost := [key for key in given if key not in found]:
            raise InternalError(
                f"hera leaves out {', '.join(lost)}",
                where="tfscale k8s workflow",
                fix="install another version of hera",
            )
        keys = [*(key for key in given if key in found), *(key for key in found if key not in given)]
        return {key: _in_order(found[key], given.get(key)) for key in keys}
    if isinstance(found, list):
        return [_in_order(one, other) for one, other in zip(found, given, strict=True)]
    return found
