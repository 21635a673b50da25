"""job.pod=FILE: what a user's YAML adds to every pod, such as affinity, volumes, key files, a runtime class, deadlines.

Owns the merge and what may not be merged. Refuses to know what the fields do: the API server checks their values.

    metadata: {annotations: {team: vision}}
    spec:
      runtimeClassName: gvisor
      volumes: [{name: keys, secret: {secretName: store-keys}}]
      containers: [{volumeMounts: [{name: keys, mountPath: /etc/keys, readOnly: true}]}]

Lists of named things are merged by their name (mounts by their path), other lists are lengthened, and plain values are
replaced. The first container without a name, or with ours, is the training's.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tfscale.errors import SecurityRefused, UsageError, first_line, is_secret, nearest
from tfscale.k8s.metadata import Manifest

_KEY = "job.pod"
_PARTS = ("metadata", "spec")
# By what the members of a list are told apart.
_NAMES = {
    "volumes": "name", "containers": "name", "initContainers": "name", "env": "name", "imagePullSecrets": "name",
    "volumeMounts": "mountPath", "ports": "containerPort", "hostAliases": "ip", "resourceClaims": "name",
}  # fmt: skip
# https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#podspec-v1-core: what each field is in YAML
_LISTS = [
    "containers",
    "initContainers",
    "volumes",
    "tolerations",
    "topologySpreadConstraints",
    "imagePullSecrets",
    "hostAliases",
    "readinessGates",
    "resourceClaims",
    "schedulingGates",
]
_MAPPINGS = ["affinity", "securityContext", "nodeSelector", "dnsConfig", "overhead", "resources", "os"]
_NUMBERS = ["activeDeadlineSeconds", "priority"]
_FLAGS = [
    "automountServiceAccountToken",
    "enableServiceLinks",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
]
_TEXTS = [
    "dnsPolicy",
    "nodeName",
    "preemptionPolicy",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "serviceAccountName",
]
_FIELDS: dict[str, type] = {
    **dict.fromkeys(_LISTS, list), **dict.fromkeys(_MAPPINGS, dict), **dict.fromkeys(_NUMBERS, int),
    **dict.fromkeys(_FLAGS, bool), **dict.fromkeys(_TEXTS, str),
}  # fmt: skip
# What the kind of job, the run and the peers' names rely on.
_OURS = ("restartPolicy", "terminationGracePeriodSeconds", "hostname", "subdomain", "ephemeralContainers")
_OF_CONTAINER = ("args", "command", "image", "ports", "resources", "name")
_CONTAINER = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "ports",
    "envFrom",
    "env",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "volumeMounts",
    "volumeDevices",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
]
_TRAINING = ("tfscale", "tensorflow", "node")  # what the kinds of jobs call the training's container
_SHOWN: dict[type, str] = {
    list: "a list",
    dict: "a mapping",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
}


def read(file: str) -> Manifest:
    """A file's addition to the template of a pod.

    Raises:
        UsageError: all that is wrong with it, in one error.
        SecurityRefused: a secret stands in it.
    """
    import yaml

    try:
        given = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{file} can't be read: {first_line(error)}", where=_KEY, fix="give a YAML file") from None
    problems = list(_problems(given))
    if problems:
        raise UsageError(f"{file}: {'; '.join(problems)}", where=_KEY, fix="correct the file; docs/deploy shows one")
    _refuse_secrets(given)
    return given


def _maps_to_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _problems(given: Any) -> list[str]:
    if not isinstance(given, dict):
        return ["metadata and spec of a pod's template are expected"]
    found = [f"unknown key {key!r}{nearest(str(key), ('metadata', 'spec'))}" for key in given if key not in _PARTS]
    for part in _PARTS:
        if not isinstance(given.get(part, {}), dict):
            return [*found, f"{part} is {_SHOWN[dict]}"]
    for key, value in given.get("metadata", {}).items():
        if key not in ("annotations", "labels"):
            found.append(f"metadata.{key} can't be added: annotations and labels can")
        elif not _maps_to_texts(value):
            found.append(f"metadata.{key} is a mapping to texts: write 'true' and '1' in quotes")
        elif any(str(name).startswith("app.kubernetes.io/") for name in value):
            found.append(f"metadata.{key}: the names app.kubernetes.io/... are the job's own")
    for key, value in given.get("spec", {}).items():
        found += _spec_problems(str(key), value)
    return found


def _spec_problems(key: str, value: Any) -> list[str]:
    if key in _OURS:
        more = ": give cluster.grace" if key == "terminationGracePeriodSeconds" else ""
        return [f"spec.{key} is the job's own{more}"]
    kind = _FIELDS.get(key)
    if kind is None:
        return [f"unknown key 'spec.{key}'{nearest(key, list(_FIELDS))}"]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return [f"spec.{key} is {_SHOWN[kind]}"]
    if key == "nodeSelector" and not _maps_to_texts(value):
        return [f"spec.{key} is a mapping to texts: write 'true' and '1' in quotes"]
    if not isinstance(value, list):
        return []
    if not all(isinstance(each, dict) for each in value):
        return [f"spec.{key} is a list of mappings"]
    found = []
    for index, each in enumerate(value):
        ours = key == "containers" and each.get("name", _TRAINING[0]) in _TRAINING
        if key in _NAMES and _NAMES[key] not in each and not ours:
            found.append(f"spec.{key}[{index}] has no {_NAMES[key]}")
        if key in ("containers", "initContainers"):
            if not all(isinstance(v.get("value", ""), str) for v in each.get("env") or [] if isinstance(v, dict)):
                found.append(f"spec.{key}[{index}].env: a value is a text: write 'true' and '1' in quotes")
            unknown = [name for name in each if name not in _CONTAINER]
            found += [f"unknown key 'spec.{key}[{index}].{n}'{nearest(str(n), _CONTAINER)}" for n in unknown]
            taken = [name for name in _OF_CONTAINER if ours and name in each and name != "name"]
            found += [f"spec.{key}[{index}].{name} is the job's own: give job.* or an override" for name in taken]
    return found


def _refuse_secrets(node: Any, path: str = "") -> None:
    """A variable of the name of a secret with its value beside it would be printed."""
    if isinstance(node, dict):
        if is_secret(str(node.get("name", ""))) and isinstance(node.get("value"), str):
            raise SecurityRefused(
                f"{node['name']} holds a secret, and manifests are read by many",
                where=f"{_KEY}: {path}",
                fix="keep it in a Secret: job.secrets=[NAME], or valueFrom.secretKeyRef",
            )
        for key, value in node.items():
            _refuse_secrets(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for value in node:
            _refuse_secrets(value, path)


def merged(template: Manifest, given: Manifest, container: str) -> Manifest:
    """The template of a pod with a file's addition.

    Args:
        container: the name of the training's container here.
    """
    given = copy.deepcopy(given)
    for each in given.get("spec", {}).get("containers", []):
        if each.get("name", _TRAINING[0]) in _TRAINING:
            each["name"] = container
    return _merge(template, given)


def _merge(ours: Any, theirs: Any, key: str = "") -> Any:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = dict(ours)
        for name, value in theirs.items():
            found[name] = _merge(ours[name], value, name) if name in ours else value
        return found
    if not (isinstance(ours, list) and isinstance(theirs, list)):
        return theirs
    by = _NAMES.get(key)
    if by is None:
        return [*ours, *theirs]
    found = {each.get(by): each for each in ours}
    for each in theirs:
        found[each.get(by)] = _merge(found[each.get(by)], each) if each.get(by) in found else each
    return list(found.values())
