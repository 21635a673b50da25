"""What Argo Workflows does with a rendered workflow, as far as it can be told without it.

Two parts, each written after the code that it stands for:

- `outcome`: workflow/executor/resource.go, which makes a label selector of a condition, and asks it of the object's JSON
  by gjson paths. The selector is Kubernetes' own, apimachinery/pkg/labels/selector.go.
- `unknown_names`: what workflow/validate/validate.go resolves: every {{...}} names a parameter, an output or a global
  variable that its place can see.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_TOKEN = re.compile(r"==|!=|[=!(),<>]|[^\s=!(),<>]+")
_WORDS = ("in", "notin", "=", "==", "!=", "<", ">")
Requirement = tuple[str, str, tuple[str, ...]]  # key, operator, values


def parsed(selector: str) -> list[Requirement]:
    """The requirements of a selector. Raises ValueError where Kubernetes refuses it."""
    tokens, found = _TOKEN.findall(selector), []
    while tokens:
        found.append(_requirement(tokens))
        if tokens and tokens.pop(0) != ",":
            raise ValueError(f"a comma is expected in {selector!r}")
        if not tokens and selector.rstrip().endswith(","):
            raise ValueError(f"something is expected behind the last comma of {selector!r}")
    return sorted(found)


def _requirement(tokens: list[str]) -> Requirement:
    absent = tokens[0] == "!" and bool(tokens.pop(0))
    key = _taken(tokens)
    _check_key(key)
    if absent or not tokens or tokens[0] == ",":
        if tokens and tokens[0] != ",":
            raise ValueError(f"!{key} has no operator")
        return key, "!" if absent else "exists", ()
    operator = tokens.pop(0)
    if operator not in _WORDS:
        raise ValueError(f"{operator} is no operator")
    if operator in ("in", "notin"):
        values = _values(tokens)
    else:
        values = ("",) if not tokens or tokens[0] == "," else (_taken(tokens),)
    for value in values:
        if len(value) > 63 or (value and not _NAME.fullmatch(value)):
            raise ValueError(f"{value} is no label's value")
        if operator in "<>":
            int(value)
    return key, operator, values


def _taken(tokens: list[str]) -> str:
    if not tokens or tokens[0] in (*_WORDS[2:], *"!(),"):
        raise ValueError("a name or a value is expected")
    return tokens.pop(0)


def _values(tokens: list[str]) -> tuple[str, ...]:
    if tokens[:1] != ["("] or ")" not in tokens:
        raise ValueError("a list in parentheses is expected")
    inside = tokens[1 : tokens.index(")")]
    del tokens[: len(inside) + 2]
    return tuple(sorted(set("".join(inside).split(","))))


def _check_key(key: str) -> None:
    """A label's key is a qualified name: what gjson knows besides dots, such as # and queries, is refused."""
    *prefix, name = key.split("/")
    if len(prefix) > 1 or len(name) > 63 or not _NAME.fullmatch(name) or (prefix and not _DOMAIN.fullmatch(prefix[0])):
        raise ValueError(f"{key} is no label's key")


def _field(json_object: Any, path: str) -> str | None:
    """gjson's Get(path).String() for paths of names and places; None where nothing is there."""
    found = json_object
    for part in path.split("."):
        if isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, dict) and part in found:
            found = found[part]
        else:
            return None
    if found is None:
        return ""
    return found if isinstance(found, str) else json.dumps(found)


def _holds(requirement: Requirement, json_object: Any) -> bool:
    key, operator, values = requirement
    value = _field(json_object, key)
    if operator == "exists":
        return value is not None
    if operator == "!":
        return value is None
    if operator in ("notin", "!="):
        return value is None or value not in values
    if value is None:
        return False
    if operator in ("in", "=", "=="):
        return value in values
    if not re.fullmatch(r"[+-]?\d+", value):
        return False
    return int(value) > int(values[0]) if operator == ">" else int(value) < int(values[0])


def outcome(resource: dict[str, Any], json_object: Any) -> str:
    """What a resource template's step makes of the object as it is now: "succeeded", "failed" or "waiting"."""
    if any(_holds(one, json_object) for one in parsed(resource.get("failureCondition", ""))):
        return "failed"
    return (
        "succeeded"
        if all(_holds(one, json_object) for one in parsed(resource.get("successCondition", "")))
        else "waiting"
    )


# -- {{...}}

_TAG = re.compile(r"\{\{(.*?)\}\}")
_GLOBAL = {"workflow.name", "workflow.namespace", "workflow.uid", "workflow.serviceAccountName"}


def unknown_names(template: dict[str, Any]) -> list[str]:
    """What a WorkflowTemplate names and doesn't have: variables, templates, tasks."""
    spec = template["spec"]
    templates = {one["name"]: one for one in spec["templates"]}
    given = {f"workflow.parameters.{one['name']}" for one in spec.get("arguments", {}).get("parameters", [])}
    found = [f"entrypoint {spec['entrypoint']}"] if spec["entrypoint"] not in templates else []
    for one in templates.values():
        inputs = {f"inputs.parameters.{each['name']}" for each in one.get("inputs", {}).get("parameters", [])}
        known, tasks = _GLOBAL | given | inputs, one.get("dag", {}).get("tasks", [])
        for task in tasks:
            found += _unknown_of_task(task, tasks, templates, known)
        rest = {key: value for key, value in one.items() if key != "dag"}
        found += [f"{one['name']}: {tag}" for tag in _tags(rest) if tag not in known]
    return found


def _unknown_of_task(task: dict, tasks: list[dict], templates: dict[str, dict], known: set[str]) -> Iterator[str]:
    where, before = task["name"], _before(task, tasks)
    if task["template"] not in templates:
        yield f"{where}: template {task['template']}"
        return
    if unknown := before - {one["name"] for one in tasks}:
        yield f"{where}: depends on {sorted(unknown)}"
    outputs = {
        f"tasks.{one['name']}.outputs.parameters.{each['name']}"
        for one in tasks
        if one["name"] in before
        for each in templates[one["template"]].get("outputs", {}).get("parameters", [])
    }
    yield from (f"{where}: {tag}" for tag in _tags(task) if tag not in known | outputs)
    passed = {one["name"] for one in task.get("arguments", {}).get("parameters", [])}
    wanted = {
        one["name"]: "value" in one for one in templates[task["template"]].get("inputs", {}).get("parameters", [])
    }
    yield from (f"{where}: {name} has no place" for name in passed - set(wanted))
    yield from (f"{where}: {name} isn't given" for name, has in wanted.items() if not has and name not in passed)


def _before(task: dict, tasks: list[dict]) -> set[str]:
    """The tasks that have ended when this one starts: those that it depends on, and theirs."""
    names = set(re.findall(r"[\w-]+", re.sub(r"\.\w+", "", task.get("depends", ""))))
    return names.union(*(_before(each, tasks) for each in tasks if each["name"] in names))


def _tags(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _tags(key)
            yield from _tags(value)
    elif isinstance(node, list):
        for value in node:
            yield from _tags(value)
    elif isinstance(node, str):
        yield from _TAG.findall(node)
        if node.count("{{") != len(_TAG.findall(node)):
            yield node


def substituted(node: Any, values: dict[str, str]) -> Any:
    """The node with values in the place of {{...}}: what Argo hands to kubectl. Others stay as they are."""
    if isinstance(node, dict):
        return {key: substituted(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [substituted(value, values) for value in node]
    return _TAG.sub(lambda tag: values.get(tag[1], tag[0]), node) if isinstance(node, str) else node
