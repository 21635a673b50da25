"""`tfscale k8s workflow`: what Argo would make of the printed objects, as far as that can be told without it."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.argo import outcome, parsed, substituted, unknown_names

from tfscale.errors import RETRYABLE, InternalError, TfscaleError
from tfscale.k8s.__main__ import main
from tfscale.k8s.argo_workflow import _written
from tfscale.k8s.pod import HOPELESS
from tfscale.k8s.printed import text_of_workflow

pytest.importorskip("hera")
ROOT = Path(__file__).parents[1]
STATUSES = yaml.safe_load((ROOT / "golden" / "job_statuses.yaml").read_text())
JOB = ("job.image=registry/tfscale:1", "job.run_claim=runs", "job.data_claim=data")
DIGITS = ("train_and_deploy", *JOB, "workflow.name=digits", "+recipe=resnet", "data=mnist")
FLIGHTS = (
    *("train_and_deploy", *JOB, "workflow.name=late", "import.source=s3://bucket/flights.csv", "import.label=late"),
    *("+recipe=tabular", "train.until=2ep", "serve.secrets=[serve-token]", "job.secrets=[store]"),
)
OF_THIS_MACHINE = tuple("import.source=flights.csv" if "s3://" in word else word for word in FLIGHTS)
SERVERS = {"trainjob": "deployment", "jobset": "kserve", "tfjob": "seldon"}  # each kind of both is tried once


@functools.cache
def _text(words: tuple[str, ...]) -> str:
    return text_of_workflow(words)


def rendered(*words: str) -> dict[str, dict]:
    """By kind and name; a Deployment's pods ask for no token where no Secret was given."""
    if not any(word.startswith(("serve=", "serve.secrets=")) for word in words):
        words = (*words, "serve.auth=none")
    found = yaml.load_all(_text(words), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {f"{one['kind']} {one['metadata']['name']}": one for one in found if one}


def template_of(*words: str) -> dict:
    [found] = [one for key, one in rendered(*words).items() if key.startswith("WorkflowTemplate")]
    return found


def templates(*words: str) -> dict[str, dict]:
    return {one["name"]: one for one in template_of(*words)["spec"]["templates"]}


def applied(template: dict, run: str = "digits-8xk2p") -> dict[str, dict]:
    """The objects that its steps hand to kubectl, by step, with the parameters' defaults."""
    given = template["spec"]["arguments"]["parameters"]
    values = {f"workflow.parameters.{one['name']}": one["value"] for one in given} | {"workflow.name": run}
    steps = {one["name"]: one["resource"]["manifest"] for one in template["spec"]["templates"] if "resource" in one}
    return {name: yaml.safe_load(substituted(manifest, values)) for name, manifest in steps.items()}


@pytest.mark.parametrize(("kind", "server"), SERVERS.items())
def test_every_object_is_valid_and_every_name_in_it_is_there(validate, kind, server):
    words = (*FLIGHTS, f"job={kind}", f"serve={server}", "job.workers=2", "job.ps=1", "job.evaluator=true")
    words = words if server == "deployment" else [word for word in words if not word.startswith("serve.secrets")]
    found = rendered(
        *words, "workflow.schedule=0 3 * * *", "workflow.timezone=Europe/Berlin", "job.mlflow_uri=http://m"
    )
    template = found["WorkflowTemplate late"]
    assert unknown_names(template) == []
    objects = [*found.values(), *applied(template).values()]
    assert [problem for one in objects for problem in validate(one)] == []
    assert "{{" not in json.dumps(list(applied(template).values()))
    assert [key.split()[0] for key in found] == [
        *("ServiceAccount", "ServiceAccount", "Role", "Role", "RoleBinding", "RoleBinding"),
        *("WorkflowTemplate", "CronWorkflow"),
    ]
    cron = found["CronWorkflow late"]["spec"]
    assert cron["schedules"] == ["0 3 * * *"] and cron["timezone"] == "Europe/Berlin"
    assert cron["workflowSpec"] == {"workflowTemplateRef": {"name": "late"}} and cron["concurrencyPolicy"] == "Forbid"


def test_a_watched_model_lies_in_one_folder_of_versions_and_each_pod_is_watched(validate):
    words = (*FLIGHTS, "job=trainjob", "watch.seconds=600", "watch.most_p99=0.25", "serve.probes_port=9001")
    found = rendered(*words, "job.mlflow_uri=http://mlflow")
    template = found["WorkflowTemplate late"]
    assert unknown_names(template) == [] and [one for each in found.values() for one in validate(each)] == []
    steps = {one["name"]: one for one in template["spec"]["templates"]}
    assert steps["release"]["dag"]["tasks"][-1] == {"name": "watch", "template": "watch", "depends": "smoke"}
    versions, registry = (
        "versions=/work/served/models/late/versions",
        "tracker.uri={{workflow.parameters.job-mlflow_uri}}",
    )
    watch = steps["watch"]["container"]
    assert watch["args"] == [
        "watch", "metrics=dns+http://late-metrics:9001/metrics", "model=late", "watch.seconds=600", "watch.most_p99=0.25",
        "back=true", "run.dir=/work/runs/late/{{workflow.name}}", "as=champion", "name=late", registry, versions,
    ]  # fmt: skip
    assert steps["deploy"]["container"]["args"][-1] == versions and watch["command"][-1] == "tfscale"
    mounts = [each for name in ("deploy", "watch") for each in steps[name]["container"]["volumeMounts"]]
    assert mounts.count({"name": "served", "mountPath": "/work/served"}) == 2
    [pods] = [one for one in applied(template).values() if one["kind"] == "Deployment"]
    inside = pods["spec"]["template"]
    assert "model=/work/data/models/late/versions" in inside["spec"]["containers"][0]["args"]
    service = found["Service late-metrics"]["spec"]
    assert service["clusterIP"] == "None" and service["selector"].items() <= inside["metadata"]["labels"].items()
    [port] = [
        each for each in inside["spec"]["containers"][0]["ports"] if each["name"] == service["ports"][0]["targetPort"]
    ]
    assert port["containerPort"] == service["ports"][0]["port"] == 9001
    assert not any(_tried_again(steps["watch"], code=code) for code in (1, 74)) and _tried_again(
        steps["watch"], code=143
    )


def test_a_missing_name_would_be_seen():
    """Of each kind one, so that the test above can fail."""
    template = template_of(*DIGITS, "job=jobset")
    first, release = template["spec"]["templates"][:2]
    first["dag"]["tasks"][-1]["when"] = "{{tasks.promote.outputs.parameters.bettter}} == true"
    release["dag"]["tasks"][0]["depends"] = "train"
    release["dag"]["tasks"][-1]["template"] = "smok"
    template["spec"]["arguments"]["parameters"] = template["spec"]["arguments"]["parameters"][1:]
    found = unknown_names(template)
    assert "release: tasks.promote.outputs.parameters.bettter" in found
    assert "deploy: depends on ['train']" in found and "smoke: template smok" in found
    assert "train: workflow.parameters.job-image" in found


def test_steps_come_in_order_and_a_model_that_is_not_better_ends_the_workflow_well():
    found = templates(*FLIGHTS, "job=trainjob", "job.mlflow_uri=http://mlflow")
    tasks = {one["name"]: one for one in found["train-and-deploy"]["dag"]["tasks"]}
    assert {name: one.get("depends") for name, one in tasks.items()} == {
        "import": None, "validate": "import", "train-networkpolicy": "validate",
        "train-trainingruntime": "train-networkpolicy", "train": "train-trainingruntime", "evaluate": "train",
        "export": "train", "promote": "evaluate && export", "release": "promote",
    }  # fmt: skip
    assert tasks["release"]["when"] == "{{tasks.promote.outputs.parameters.better}} == true"
    release = found["release"]["dag"]["tasks"]
    assert [one["name"] for one in release] == ["deploy", "serve-service", "serve-deployment", "smoke"]
    commands = {name: one["container"]["args"] for name, one in found.items() if "container" in one}
    run = "run.dir=/work/runs/late/{{workflow.name}}"
    data = "dir=/work/data/imported/late/{{workflow.name}}"
    assert commands["import"] == [
        "data", "import", "{{workflow.parameters.import-source}}", "name=late", "label=late", data
    ]  # fmt: skip
    assert commands["validate"] == ["data", "validate", "late", data]
    assert commands["evaluate"][:2] == ["evaluate", run] and commands["export"] == ["export", run]
    assert commands["promote"] == [
        "promote", run, "as=champion", "name=late", "tracker.uri={{workflow.parameters.job-mlflow_uri}}"
    ]  # fmt: skip
    assert commands["deploy"] == ["export", run, "versions=/work/served/models/late/{{workflow.name}}"]
    assert commands["smoke"] == [
        "smoke", "url={{inputs.parameters.url}}", "model=/work/runs/late/{{workflow.name}}", "serve.name=late", "wait=300",
    ]  # fmt: skip
    assert "protocol=v1" in templates(*DIGITS, "job=jobset", "serve=kserve")["smoke"]["container"]["args"]


@pytest.mark.parametrize("kind", ["tfjob", "trainjob", "jobset"])
def test_the_job_is_named_by_the_workflow_so_that_a_step_that_is_tried_again_finds_it(kind):
    template = template_of(*DIGITS, f"job={kind}", "job.workers=2", "job.volcano=true", "workflow.ttl=60")
    steps = {one["name"]: one for one in template["spec"]["templates"]}
    objects = {name: one for name, one in applied(template).items() if name.startswith("train")}
    assert {one["metadata"]["name"] for one in objects.values()} == {"digits-8xk2p"}
    assert "digits-8xk2p" in json.dumps(objects["train"]["spec"]) or kind == "tfjob"
    assert "ttlSecondsAfterFinished" not in json.dumps(objects)  # it would be gone before its end is seen
    assert template["spec"]["ttlStrategy"] == {"secondsAfterCompletion": 60}
    for name in objects:
        assert steps[name]["resource"]["action"] == "apply" and steps[name]["resource"]["setOwnerReference"]
    assert "run.dir=/work/runs/digits/digits-8xk2p" in json.dumps(objects["train"])
    for name in ("serve-service", "serve-deployment"):  # which outlive the workflow
        assert "setOwnerReference" not in steps[name]["resource"]


def test_what_varies_is_a_parameter():
    words = (*FLIGHTS, "job=jobset", "optimizer.learning_rate=0.1", "workflow.as=best", "job.mlflow_uri=http://m")
    template = template_of(*words)
    given = {one["name"]: one["value"] for one in template["spec"]["arguments"]["parameters"]}
    assert given == {
        "job-image": "registry/tfscale:1", "job-mlflow_uri": "http://m", "import-source": "s3://bucket/flights.csv",
        "recipe": "tabular", "train-until": "2ep", "optimizer-learning_rate": "0.1", "workflow-as": "best",
    }  # fmt: skip
    [container] = applied(template)["train"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["image"] == "registry/tfscale:1"
    assert container["args"] == [
        "train", "+recipe=tabular", "train.until=2ep", "optimizer.learning_rate=0.1", "data.name=late",
        "data.dir=/work/data/imported/late/digits-8xk2p", "run.dir=/work/runs/late/digits-8xk2p",
    ]  # fmt: skip


def test_a_value_stays_one_word_whatever_stands_in_it():
    words = (*DIGITS, "job=jobset", "optimizer.learning_rate=0.1", 'extensions.allow=["mine."]')
    template = template_of(*words)
    [one] = [one for one in template["spec"]["arguments"]["parameters"] if one["name"] == "optimizer-learning_rate"]
    one["value"] = "{a: 1, b: [2]} # 'c' - d: e"
    [job] = applied(template)["train"]["spec"]["replicatedJobs"]
    args = job["template"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[1:-1] == ["+recipe=resnet", "data=mnist", f"optimizer.learning_rate={one['value']}", 'extensions.allow=["mine."]']  # fmt: skip
    names = [each["name"] for each in template["spec"]["arguments"]["parameters"]]
    assert "extensions-allow" not in names and all(re.fullmatch(r"[-a-zA-Z0-9_]+", each) for each in names)


# -- what ends a step


def test_selectors_are_read_as_kubernetes_reads_them():
    """The lists of apimachinery's own test, and what gjson would know and a label's key has not."""
    for good in ("x=a,y=b,z=c", "", "x!=a,y=b", "x=", "x= ,z= ", "!x", "x>1,z<5", "x in (a, b)", "x notin (a)"):
        parsed(good)
    for bad in ("x=a||y=b", "x==a==b", "!x=a", "x<a", "a,", "x in", 'a.#(b=="c").d == e', "a.@reverse.0 == b"):
        with pytest.raises(ValueError):
            parsed(bad)
    assert outcome({"successCondition": "s.a > 1"}, {"s": {"a": 2}}) == "succeeded"
    both = {"successCondition": "s.a == 1, s.b == true", "failureCondition": "s.c == 1, s.d == 1"}
    assert outcome(both, {"s": {"a": 1}}) == "waiting" and outcome(both, {"s": {"a": 1, "b": True}}) == "succeeded"
    assert outcome(both, {"s": {"a": 1, "b": True, "d": 1}}) == "failed"  # asked first, and of these one is enough


_OF_STATUSES = {
    "tfjob": ("train", "job=tfjob", "job.workers=2"),
    "tfjob with parameter servers": ("train", "job=tfjob", "job.workers=2", "job.ps=1"),
    "jobset": ("train", "job=jobset", "job.workers=2"),
    "trainjob": ("train", "job=trainjob", "job.workers=2"),
    "trainjob with an evaluator": ("train", "job=trainjob", "job.evaluator=true"),
    "deployment": ("serve-deployment", "job=jobset", "serve.replicas=2"),
    "kserve": ("serve-inferenceservice", "job=jobset", "serve=kserve"),
    "seldon": ("serve-seldondeployment", "job=jobset", "serve=seldon"),
}


@pytest.mark.parametrize("of", STATUSES)
def test_a_step_ends_when_its_object_says_so_and_waits_while_it_starts_again(of):
    step, *words = _OF_STATUSES[of]
    resource = templates(*DIGITS, *words)[step]["resource"]
    assert {each["when"]: outcome(resource, {"status": each["status"]}) for each in STATUSES[of]} == {
        each["when"]: each["outcome"] for each in STATUSES[of]
    }


def _tried_again(template: dict, *, code: int = 0, status: str = "Failed", message: str = "") -> bool:
    """What Argo asks after a failed try, https://expr-lang.org in the few words that are used here."""
    text = template["retryStrategy"]["expression"]
    text = re.sub(r"asInt\((.*?)\)", r"int(\1)", text).replace("||", " or ").replace("!(", "not (")
    text = re.sub(r"(lastRetry\.\w+) contains (\"[^\"]*\")", r"\2 in \1", text)
    for name, value in (("exitCode", str(code)), ("status", status), ("message", message)):
        text = text.replace(f"lastRetry.{name}", repr(value))
    return bool(eval(text, {"__builtins__": {"int": int}}))


def test_steps_are_tried_again_by_our_exit_codes():
    found = templates(*FLIGHTS, "job=jobset")
    for name in ("validate", "evaluate", "export", "promote", "deploy", "smoke"):
        assert found[name]["retryStrategy"]["limit"] == "5"
        assert all(_tried_again(found[name], code=code) for code in RETRYABLE)
        assert not any(_tried_again(found[name], code=code) for code in HOPELESS if code != 74)
        assert _tried_again(found[name], code=0, status="Error") and _tried_again(found[name], code=-1)
    assert [name for name in found if "container" in found[name] and _tried_again(found[name], code=74)] == [
        "import", "promote"
    ]  # fmt: skip
    assert not _tried_again(found["import"], code=65)
    failed = "main: Error (exit code 64): failure condition 'status.terminalState==Failed' evaluated true"
    assert not _tried_again(found["train"], code=64, message=failed)
    assert _tried_again(found["train"], code=64, message="main: Error (exit code 64): context canceled")


@pytest.mark.parametrize(
    ("code", "ends", "answer"), [(0, 0, "true"), (1, 0, "false"), (70, 70, None), (138, 138, None)]
)
def test_a_refusal_is_an_answer_and_other_codes_are_failures(tmp_path, code, ends, answer):
    container = templates(*DIGITS, "job=jobset")["promote"]["container"]
    (tmp_path / "tfscale").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\nexit {code}\n')
    (tmp_path / "tfscale").chmod(0o755)
    shell, option, script, *rest = container["command"]
    script = script.replace("/tmp/better", f"{tmp_path}/better")
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([shell, option, script, *rest, *container["args"]], env=environ, timeout=10)
    better = tmp_path / "better"
    assert done.returncode == ends and (tmp_path / "asked").read_text().split() == container["args"]
    assert (better.read_text().strip() if better.exists() else None) == answer


# -- pods and what they may do


def test_accounts_may_do_what_the_steps_do_and_no_more():
    found = rendered(*DIGITS, "job=trainjob", "serve.replicas=2", "serve.max_replicas=4", "serve.cpus=1")
    rules = {(group, kind): one["verbs"] for one in found["Role digits-apply"]["rules"] for group in one["apiGroups"] for kind in one["resources"]}  # fmt: skip
    assert set(rules) == {
        ("", "services"), ("apps", "deployments"), ("autoscaling", "horizontalpodautoscalers"),
        ("networking.k8s.io", "networkpolicies"), ("policy", "poddisruptionbudgets"),
        ("trainer.kubeflow.org", "trainingruntimes"), ("trainer.kubeflow.org", "trainjobs"),
    }  # fmt: skip
    assert all(verbs == ["get", "create", "patch"] for verbs in rules.values())
    assert found["Role digits-steps"]["rules"] == [
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    ]
    bound = {one["metadata"]["name"]: [each["name"] for each in one["subjects"]] for key, one in found.items() if key.startswith("RoleBinding")}  # fmt: skip
    assert bound == {"digits-steps": ["digits-steps", "digits-apply"], "digits-apply": ["digits-apply"]}
    spec = found["WorkflowTemplate digits"]["spec"]
    for one in spec["templates"]:  # pods that run people's models can't apply anything
        assert one.get("serviceAccountName") == ("digits-apply" if "resource" in one else None)
    assert spec["serviceAccountName"] == "digits-steps"
    own = rendered(*DIGITS, "job=jobset", "job.service_account=mine", "job.namespace=ml")
    assert "ServiceAccount mine" not in own and own["WorkflowTemplate digits"]["spec"]["serviceAccountName"] == "mine"
    first = own["RoleBinding digits-steps"]["subjects"][0]
    assert first == {"kind": "ServiceAccount", "name": "mine", "namespace": "ml"}


def test_pods_of_steps_see_the_claims_and_secrets_that_they_need(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pod.yaml").write_text(
        "metadata: {annotations: {team: vision}}\nspec: {runtimeClassName: gvisor, affinity: {podAffinity: {}},"
        " volumes: [{name: keys, secret: {secretName: k}}],"
        " containers: [{volumeMounts: [{name: keys, mountPath: /etc/keys}]}]}"
    )
    (tmp_path / "flights.yaml").write_text("columns: {late: {type: boolean}}\n")
    words = (*FLIGHTS, "job=jobset", "job.gpus=2", "job.cpus=4", "job.pod=pod.yaml", "job.queue=gold")
    words = (*words, "import.schema=flights.yaml", "workflow.models_claim=served")
    found = templates(*words)
    mounts = {
        name: {one["mountPath"]: one.get("readOnly", False) for one in each["container"]["volumeMounts"]}
        for name, each in found.items()
        if "container" in each
    }
    assert (
        mounts["import"]["/work/data"] is False and "/work/runs" not in mounts["import"] and mounts["import"]["/schema"]
    )
    assert mounts["evaluate"]["/work/data"] is True and mounts["evaluate"]["/work/runs"] is False
    assert [name for name, each in mounts.items() if "/work/served" in each] == ["deploy"]
    claims = {one["name"]: one.get("persistentVolumeClaim", {}).get("claimName") for one in found["deploy"]["volumes"]}
    assert claims["served"] == "served" and claims["data"] == "data"
    limits = {name: each["container"]["resources"]["limits"] for name, each in found.items() if "container" in each}
    assert limits.pop("evaluate") == {"cpu": "4", "nvidia.com/gpu": "1"}
    assert all(each == {"cpu": "4"} for each in limits.values())
    secrets = {name: each["container"]["envFrom"] for name, each in found.items() if "container" in each}
    assert secrets.pop("smoke") == [{"secretRef": {"name": "serve-token"}}]
    assert all(each == [{"secretRef": {"name": "store"}}] for each in secrets.values())
    for name in mounts:
        assert found[name]["container"]["securityContext"]["readOnlyRootFilesystem"]
        assert mounts[name]["/etc/keys"] is False and found[name]["affinity"] == {"podAffinity": {}}
        assert json.loads(found[name]["podSpecPatch"])["runtimeClassName"] == "gvisor"
        assert found[name]["metadata"]["annotations"]["team"] == "vision"
    assert rendered(*words)["ConfigMap late-schema"]["data"]
    served = applied(template_of(*words))["serve-deployment"]["spec"]["template"]["spec"]
    assert served["containers"][0]["args"][1] == "model=/work/data/models/late/digits-8xk2p"
    assert served["volumes"][-1]["persistentVolumeClaim"] == {"claimName": "served", "readOnly": True}


def test_groups_of_peoples_own_are_in_every_pod_that_opens_the_run(validate, tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "small.yaml").write_text("defaults: [tabular]\nhidden: [7]\n")
    words = (*FLIGHTS, "task=small", "job=jobset", "watch.seconds=60")
    found = list(yaml.safe_load_all(text_of_workflow(words, config_dir=str(tmp_path))))
    [template] = [one for one in found if one["kind"] == "WorkflowTemplate"]
    assert unknown_names(template) == [] and [one for each in found for one in validate(each)] == []
    made = applied(template)
    assert made["train-configmap"]["data"] == {"task_small.yaml": "defaults: [tabular]\nhidden: [7]\n"}
    name = made["train-configmap"]["metadata"]["name"]  # of this run alone, and it goes with it
    option, place = "--config-dir=/etc/tfscale/config", {"mountPath": "/etc/tfscale/config", "readOnly": True}
    there = {one["name"]: one for one in template["spec"]["templates"] if "container" in one}
    assert [key for key, one in there.items() if option in one["container"]["args"]] == [
        "evaluate", "export", "promote", "deploy"
    ]  # fmt: skip
    for step, one in there.items():
        opens = option in one["container"]["args"]
        volumes = {each["name"]: each for each in one["volumes"]}
        assert ("config" in volumes) == opens, step
        assert ({"name": "config", **place} in one["container"]["volumeMounts"]) == opens, step
        if opens:
            told = json.loads(json.dumps(volumes["config"]["configMap"]).replace("{{workflow.name}}", "digits-8xk2p"))
            assert told == {"name": name, "items": [{"key": "task_small.yaml", "path": "task/small.yaml"}]}
    [job] = made["train"]["spec"]["replicatedJobs"]
    inside = job["template"]["spec"]["template"]["spec"]
    assert inside["containers"][0]["args"][:2] == ["train", option]
    assert inside["volumes"][-1]["configMap"]["name"] == name


# -- what is refused


@pytest.mark.parametrize(
    ("words", "code", "where", "says"),
    [
        (("train_and_deploy",), 64, "workflow.name", "no name was given"),
        (("train",), 64, "command line", "no workflow 'train'"),
        ((), 64, "command line", "no workflow was named"),
        ((*DIGITS, "job=job"), 64, "job", "waits for one object"),
        ((*DIGITS, "job=jobset", "job.run_claim=null", "run.store=s3://b/r"), 64, "job.run_claim", "pods of their own"),
        ((*FLIGHTS, "job=jobset", "job.data_claim=null"), 64, "job.data_claim", "on a claim"),
        ((*DIGITS, "job=jobset", "job.data_claim=null"), 64, "workflow.models_claim", "no claim"),
        ((*DIGITS, "job=trainjob", "job.data_workers=2"), 64, "job.data_workers", "doesn't say that it ended"),
        ((*DIGITS, "job=jobset", "serve=kserve", "watch.seconds=9"), 64, "watch.seconds", "don't go back"),
        ((*DIGITS, "job=jobset", "serve=seldon2"), 64, "serve", "takes models from a store"),
        ((*DIGITS, "job=jobset", "serve=kserv"), 64, "serve", "did you mean 'kserve'"),
        ((*DIGITS, "job=jobset", "serve.replica=2", "serve.auth=none"), 64, "command line", "serve.replica"),
        ((*DIGITS, "job=jobset", "serve.memory=2GB"), 64, "serve.memory", "no quantity"),
        ((*DIGITS, "job=jobset", "serve=kserve", "serve.secrets=[a]"), 64, "serve.secrets", "takes none"),
        ((*DIGITS, "job=jobset"), 64, "serve.secrets", "no Secret holds it"),
        ((*DIGITS, "job=jobset", "job.ttl=60"), 64, "job.ttl", "nobody learns how it ended"),
        ((*DIGITS, "job=jobset", "workflow.ttl=1d"), 64, "workflow.ttl", "no seconds"),
        ((*DIGITS, "job=jobset", "workflow.serve=true"), 64, "workflow.serve", "goes on"),
        ((*DIGITS, "job=jobset", "workflow.timezone=UTC"), 64, "workflow.timezone", "without a schedule"),
        ((*DIGITS, "job=jobset", "workflow.schedule=daily"), 64, "workflow.schedule", "five fields"),
        ((*DIGITS, "job=jobset", "workflow.shedule=@daily"), 64, "workflow.shedule", "did you mean"),
        ((*DIGITS, "job=jobset", f"job.name={'d' * 30}"), 64, "job.name", "at most 29"),
        ((*DIGITS, "job=jobset", "run.dir=/x"), 64, "run.dir", "chooses the run's folder"),
        ((*DIGITS, "job=jobset", "train.untill=1ep"), 64, "", "untill"),
        ((*OF_THIS_MACHINE, "job=jobset"), 64, "PATH", "on this machine"),
        ((*FLIGHTS, "job=jobset", "import.dir=/d"), 64, "import.dir", "isn't on the claim"),
        ((*DIGITS, "job=jobset", "tracker.password=x"), 77, "tracker.password", "holds a secret"),
    ],
)
def test_what_would_fail_there_is_refused_here(words, code, where, says):
    with pytest.raises(TfscaleError) as refused:
        text_of_workflow(words)
    assert refused.value.exit_code == code and says in refused.value.line()
    assert where in refused.value.where


def test_what_hera_leaves_out_is_an_error_of_ours_and_not_lost():
    with pytest.raises(InternalError, match="hera leaves out speck"):
        _written("WorkflowTemplate", {"name": "x"}, {"entrypoint": "a", "templates": [], "speck": 1})


def test_the_command_tells_what_is_to_be_known(capsys):
    assert main(["workflow", *FLIGHTS, "job=jobset"]) == 0
    text = capsys.readouterr().out
    assert "# Note: the image must have what its steps need" in text and "s3" in text.split("EXTRAS=")[1].split("\n")[0]
    assert "# Note: without job.mlflow_uri" in text and "models/late/RUN on the claim data" in text
    with pytest.raises(SystemExit):
        main(["workflow", "--help"])
    assert "workflow.schedule" in capsys.readouterr().out
