"""--apply: hands manifests to kubectl, in the order and with the patience that the controllers need.

Owns what kubectl is asked. Refuses to know what manifests say, but for their kinds and names.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import yaml

from tfscale.errors import CheckFailed, UsageError

_log = logging.getLogger(__name__)

OPTION = "--apply"
_OWNERS = ("Job", "JobSet", "TFJob", "TrainJob", "Deployment")
_RUNTIME_WITHIN = 30.0  # seconds in which Trainer should have seen the runtime


def apply(text: str) -> None:
    """Applies these documents, after the server has accepted them in a dry run.

    A TrainJob is left out of that, and applied last: Trainer refuses it until it has seen its runtime, which a dry run
    doesn't make. What stands around a job is given to the job at the end, so that it is removed with it.

    Raises:
        UsageError: there is no kubectl.
        CheckFailed: the server refuses something.
    """
    documents = [each for each in text.split("---\n") if yaml.safe_load(each)]
    manifests = [yaml.safe_load(each) for each in documents]
    first = [each for each, m in zip(documents, manifests, strict=True) if m["kind"] != "TrainJob"]
    last = [each for each, m in zip(documents, manifests, strict=True) if m["kind"] == "TrainJob"]
    _run(["apply", "--dry-run=server", "-f", "-"], _joined(first))
    _run(["apply", "-f", "-"], _joined(first))
    for document in last:
        _apply_patiently(document)
    _give_away(manifests)


def _joined(documents: Sequence[str]) -> str:
    return "---\n".join(documents)


def _apply_patiently(document: str) -> None:
    """A runtime that was applied a moment ago may be unknown to Trainer's webhook yet."""
    words, waited = ["apply", "-f", "-"], 0.0
    while True:
        done = _kubectl(words, document, keep_errors=True)
        answer = done.stderr or ""
        if done.returncode and "untime" in answer and waited < _RUNTIME_WITHIN:
            time.sleep(1.0)
            waited += 1.0
            continue
        print(answer, end="", file=sys.stderr)
        _check(done, words)
        return


def _give_away(manifests: Sequence[dict[str, Any]]) -> None:
    """Makes the jobs the owners of all else that has a namespace: Kubernetes removes it with the last of them. The job
    is at work by now, so that where this is not allowed it is reported and no more."""
    jobs = [m for m in manifests if m["kind"] in _OWNERS]
    others = [m for m in manifests if m["kind"] not in _OWNERS and not m["kind"].startswith("Cluster")]
    owners = []
    for job in jobs if others else ():
        found = _kubectl(["get", *_reference(job), "-o", "jsonpath={.metadata.uid}"], None, keep_output=True)
        owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": job["metadata"]["name"]}
        owners.append({**owner, "uid": found.stdout.strip()})
    known = bool(owners) and all(owner["uid"] for owner in owners)
    patch = json.dumps({"metadata": {"ownerReferences": owners}})
    for m in others if owners else ():
        if not known or _kubectl(["patch", *_reference(m), "--type=merge", "-p", patch], None).returncode:
            what = f"{m['kind']} {m['metadata']['name']}"
            _log.warning(f"{what} could not be given to its job: delete it when the job is gone")


def _reference(manifest: dict[str, Any]) -> list[str]:
    """An object as kubectl takes it, also where two groups have a kind of one name: Kind.version.group NAME."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    namespace = manifest["metadata"].get("namespace")
    kind = f"{manifest['kind']}.{version}.{group}" if group else manifest["kind"]
    return [kind, manifest["metadata"]["name"], *(["-n", namespace] if namespace else [])]


def _run(words: Sequence[str], documents: str | None) -> None:
    _check(_kubectl(words, documents), words)


def _kubectl(
    words: Sequence[str], documents: str | None, *, keep_errors: bool = False, keep_output: bool = False
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["kubectl", *words],
            input=documents if documents is not None else "",
            stdout=subprocess.PIPE if keep_output else None,
            stderr=subprocess.PIPE if keep_errors else None,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise UsageError(
            "kubectl is not installed here", where=OPTION, fix=f"leave {OPTION} away, and apply what is printed"
        ) from None


def _check(done: subprocess.CompletedProcess[str], words: Sequence[str]) -> None:
    if done.returncode:
        shown = " ".join(words[:2] if words[0] != "apply" else words)
        raise CheckFailed(f"kubectl {shown} ended with {done.returncode}", where=OPTION, fix="see what it said above")
