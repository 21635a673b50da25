"""`tfscale k8s sweep`: trials as jobs of their own, and as an Experiment whose fields are those of Katib's documentation."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml

from tfscale.errors import UsageError
from tfscale.k8s.printed import text_of_sweep
from tfscale.k8s.sweep_manifests import metric_filter

JOB = ["job=job", "job.image=registry/tfscale:1", "job.run_claim=runs", "sweep.name=it"]
RATE = "optimizer.learning_rate=tag(log,interval(0.01,1))"
# https://www.kubeflow.org/docs/components/katib/user-guides/hp-tuning/configure-experiment/ and .../trial-template/
FIELDS = {
    "": {"objective", "algorithm", "earlyStopping", "parallelTrialCount", "maxTrialCount", "maxFailedTrialCount",
         "parameters", "metricsCollectorSpec", "trialTemplate", "resumePolicy", "nasConfig"},
    "objective": {"type", "goal", "objectiveMetricName", "additionalMetricNames", "metricStrategies"},
    "algorithm": {"algorithmName", "algorithmSettings"},
    "metricsCollectorSpec": {"collector", "source"},
    "trialTemplate": {"retain", "trialSpec", "configMap", "trialParameters", "primaryPodLabels", "primaryContainerName",
                      "successCondition", "failureCondition"},
}  # fmt: skip


def rendered(*words: str) -> list[dict]:
    return list(yaml.safe_load_all(text_of_sweep(["+recipe=resnet", *words, *JOB])))


def arguments(job: dict) -> list[str]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container["args"]


def test_a_grid_is_a_job_for_every_combination(validate):
    found = rendered("task.width=4,8", "train.ema=null,0.99", "sweep.sampler=grid", "job.cpus=2", "job.memory=4Gi")
    assert [problem for each in found for problem in validate(each)] == []
    jobs = [each for each in found if each["kind"] == "Job"]
    assert [each["metadata"]["name"] for each in jobs] == [f"sweep-it-000{i}-worker" for i in range(4)]
    varied = [
        [word for word in arguments(job) if word.startswith(("task.width", "train.ema", "run.dir"))] for job in jobs
    ]
    assert varied == [
        [f"task.width={width}", f"train.ema={ema}", f"run.dir=/work/runs/sweeps/it/000{i}"]
        for i, (width, ema) in enumerate((w, e) for w in (4, 8) for e in ("null", "0.99"))
    ]
    assert all("export.at_end=false" in arguments(job) for job in jobs)


def test_values_drawn_at_random_are_those_of_the_seed():
    def rates(*words):
        text = text_of_sweep(["+recipe=resnet", RATE, "sweep.trials=3", *words, *JOB])
        return re.findall(r"optimizer\.learning_rate=([\d.e-]+)\n", text)

    assert len(set(rates())) == 3 and rates() == rates() != rates("sweep.seed=1")
    assert all(0.01 <= float(rate) <= 1 for rate in rates())


def test_an_experiment_has_the_fields_of_katib(validate):
    words = [
        RATE,
        "task.width=4,8",
        "task.depth=int(interval(8,32))",
        "sweep.as=katib",
        "sweep.trials=12",
        "sweep.parallel=3",
    ]
    (found,) = rendered(*words)
    assert validate(found) == []
    spec = found["spec"]
    for place, known in FIELDS.items():
        assert set(spec[place] if place else spec) <= known, place
    assert spec["objective"] == {"type": "maximize", "objectiveMetricName": "accuracy"}
    assert (spec["maxTrialCount"], spec["parallelTrialCount"], spec["algorithm"]["algorithmName"]) == (12, 3, "tpe")
    assert spec["parameters"] == [
        {"name": "optimizer-learning_rate", "parameterType": "double",
         "feasibleSpace": {"min": "0.01", "max": "1.0", "distribution": "logUniform"}},
        {"name": "task-width", "parameterType": "categorical", "feasibleSpace": {"list": ["4", "8"]}},
        {"name": "task-depth", "parameterType": "int", "feasibleSpace": {"min": "8", "max": "32"}},
    ]  # fmt: skip
    template = spec["trialTemplate"]
    job = template["trialSpec"]
    assert "name" not in job["metadata"] and "namespace" not in job["metadata"]
    # What Katib's webhook checks: every parameter is used, and everything used is a parameter.
    used = set(re.findall(r"\$\{trialParameters\.([^}]+)\}", json.dumps(job)))
    assert used == {one["name"] for one in template["trialParameters"]}
    known = {one["name"] for one in spec["parameters"]} | {"${trialSpec.Name}"}
    assert {one["reference"] for one in template["trialParameters"]} == known
    args = arguments(job)
    assert "optimizer.learning_rate=${trialParameters.optimizer-learning_rate}" in args and "log.format=json" in args
    assert "run.dir=/work/runs/sweeps/it/${trialParameters.trial}" in args
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert template["primaryContainerName"] == container["name"] and container["command"]
    filled = json.dumps(job)
    for name in used:
        filled = filled.replace(f"${{trialParameters.{name}}}", "8")
    whole = json.loads(filled)
    whole["metadata"]["name"] = "it-abc"
    assert validate(whole) == []
    assert "TFSCALE_CLUSTER" in {one["name"] for one in container["env"]}


PRINTS = """
from tfscale.console.messages import shown
from tfscale.console.progress import ProgressLine
with shown("json"), ProgressLine(total_steps=8, steps_per_epoch=4) as line:
    line.report(3, {"loss": 9.0, "accuracy": 0.9}, seconds_left=1.0)
    line.figures(4, test={"loss": 0.25, "accuracy": 0.5}, train={"loss": 1.0, "accuracy": 1.0})
    line.figures(8, test={"accuracy": 1e-05, "loss": 0.125}, train={"loss": 1.0, "accuracy": 1.0})
    line.figures(8, train={"loss": 1.0, "accuracy": 1.0})
"""


def test_katib_finds_the_metric_of_the_evaluation_in_what_a_run_prints():
    printed = subprocess.run([sys.executable, "-c", PRINTS], check=True, capture_output=True, text=True).stdout
    assert printed.count("\n") == 4
    assert re.findall(metric_filter("test", "accuracy"), printed) == [("accuracy", "0.5"), ("accuracy", "1e-05")]
    assert re.findall(metric_filter("test", "loss"), printed) == [("loss", "0.25"), ("loss", "0.125")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep.sampler=tpe"], "tpe chooses by what came before"),
        (["sweep.parallel=2"], "sweep.parallel has no effect"),
        (["sweep.pruner=none"], "sweep.pruner has no effect"),
        (["sweep.as=katib", "sweep.pruner=none"], "sweep.pruner has no effect"),
        (["sweep.dir=here"], "sweep.dir has no effect"),
        (["sweep.as=argo"], "is no form of a sweep"),
        (["sweep.as=katib", "job.workers=2"], "one pod each"),
        (["task.width=4,none"], "task.width"),
        (["sweep.as=katib", "optimizer.name=sgd,adm"], "'adam'"),
    ],
)
def test_what_no_cluster_can_do(words, said):
    with pytest.raises(UsageError, match=said):
        rendered(RATE, "sweep.trials=2", *words)
