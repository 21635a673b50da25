"""The steps of a workflow: which commands they are, and what is refused before one runs."""

from __future__ import annotations

import tomllib

import pytest
from structure import ROOT

from tfscale.__main__ import COMMANDS
from tfscale.errors import UsageError
from tfscale.workflow.steps import STEPS, Places, left_out, train_and_deploy, url_of
from tfscale.workflow.workflow_request import WorkflowRequest

PLACES = Places(run="w/run", data="w/data", report="w/report.html", versions="w/served/late")
FLIGHTS = (
    *(
        "workflow.name=late",
        "import.source=flights.csv",
        "import.label=arr_delay > 15",
        "import.split.train=month <= 9",
    ),
    *("validate.noise=none", "evaluate.report.slices=origin", "serve.port=9000", "+recipe=tabular", "train.until=2ep"),
)


def test_words_reach_the_command_that_they_belong_to():
    request = WorkflowRequest.of(FLIGHTS)
    found = {step.name: " ".join(step.command) for step in train_and_deploy(request, PLACES)}
    where = "name=late dir=w/data"
    assert found == {
        "import": f"data import flights.csv {where} label=arr_delay > 15 split.train=month <= 9",
        "validate": "data validate late dir=w/data noise=none",
        "train": "train +recipe=tabular train.until=2ep data.name=late data.dir=w/data run.dir=w/run",
        "evaluate": "evaluate run.dir=w/run report=w/report.html report.slices=origin",
        "export": "export run.dir=w/run",
        "promote": "promote run.dir=w/run as=champion name=late",
        "deploy": "export run.dir=w/run versions=w/served/late",
        "serve": "serve model=w/served/late serve.name=late serve.port=9000",
        "smoke": "smoke url=http://127.0.0.1:9000 model=w/run serve.name=late",
    }
    assert tuple(found) == STEPS and not left_out(request)


def test_data_that_need_no_import_have_no_steps_of_data_and_the_reason_is_told():
    request = WorkflowRequest.of(["workflow.name=digits", "evaluate.report=none", "+recipe=resnet", "data=mnist"])
    steps = {step.name: step for step in train_and_deploy(request, PLACES)}
    assert (*left_out(request), *steps) == STEPS
    assert steps["train"].command == ("train", "+recipe=resnet", "data=mnist", "run.dir=w/run")
    assert steps["evaluate"].command == ("evaluate", "run.dir=w/run") and not steps["evaluate"].leaves
    assert steps["train"].needs == () and steps["promote"].needs == ("evaluate", "export")


def test_every_step_comes_behind_those_that_it_needs_and_is_a_command_with_known_extras():
    steps = train_and_deploy(WorkflowRequest.of(FLIGHTS), PLACES)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for place, step in enumerate(steps):
        assert set(step.needs) <= {one.name for one in steps[:place]}
        assert set(step.extras) <= set(extras)
        assert step.command[0] in COMMANDS or " ".join(step.command[:2]) in COMMANDS


def test_steps_that_open_the_run_allow_the_code_that_the_training_was_allowed():
    words = ("workflow.name=a", "promote.min_gain=0.1", "extensions.allow=[mine.]", "+recipe=resnet", "data=mnist")
    found = {step.name: step.command for step in train_and_deploy(WorkflowRequest.of(words), PLACES)}
    allowed = {name for name, command in found.items() if "extensions.allow=[mine.]" in command}
    assert allowed == {"train", "evaluate", "export", "promote"} and "min_gain=0.1" in found["promote"]


def test_the_places_of_a_cluster_take_those_of_a_laptop():
    there = Places("s3://b/run", "/work/data", "", "/models/late", url="http://late:80", registry="http://mlflow")
    found = {step.name: step.command for step in train_and_deploy(WorkflowRequest.of(FLIGHTS), there)}
    assert found["smoke"][1] == "url=http://late:80" and found["promote"][-1] == "tracker.uri=http://mlflow"
    assert not [word for word in found["evaluate"] if word.startswith("report=")]


def test_a_served_model_is_watched_where_that_is_asked_for():
    words = ("watch.seconds=60", "watch.most_p99=0.25", "serve.probes_port=9001", "promote.tracker.uri=http://mlflow")
    request = WorkflowRequest.of((*FLIGHTS, *words, "extensions.allow=[mine.]"))
    *others, watch = train_and_deploy(request, PLACES)
    assert tuple(step.name for step in others) == STEPS and watch.needs == ("smoke",) and watch.may_refuse
    assert " ".join(watch.command) == (
        "watch metrics=http://127.0.0.1:9001/metrics model=late watch.seconds=60 watch.most_p99=0.25 back=true "
        "run.dir=w/run as=champion name=late extensions.allow=[mine.] tracker.uri=http://mlflow versions=w/served/late"
    )
    none = WorkflowRequest.of((*FLIGHTS, "watch.seconds=0"))
    assert tuple(step.name for step in train_and_deploy(none, PLACES)) == STEPS


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ((), "no name"),
        (("workflow.name=a", "watch.most_p99=1"), "nothing is watched, so that watch.most_p99 has no effect"),
        (("workflow.name=a", "watch.seconds=0", "watch.most_p99=1"), "nothing is watched"),
        (("workflow.name=a b",), "'a b' can't name"),
        (("workflow.name=a", "workflow.aliass=b"), "unknown key 'workflow.aliass'"),
        (("workflow.name=a", "workflow.serve=perhaps"), "neither true nor false"),
        (("workflow.name=a", "import.label=x"), "nothing is imported"),
        (("workflow.name=a", "validate.leak=1"), "nothing is imported"),
        (("workflow.name=a", "run.dir=x"), "chooses the run's folder"),
        (("workflow.name=a", "serve.port"), "serve.port has no value"),
        (("workflow.name=a", "serve.port=1", "serve.port=2"), "serve.port was given twice"),
    ],
)
def test_what_can_have_no_effect_is_refused(words, what):
    with pytest.raises(UsageError, match=what):
        WorkflowRequest.of(words)


def test_the_address_is_that_at_which_the_server_is_told_to_listen():
    assert url_of(()) == "http://127.0.0.1:8080"
    assert url_of(("serve.host=0.0.0.0", "serve.port=81", "serve.tls_cert=c")) == "https://127.0.0.1:81"
    assert url_of(("serve.host=::1",)) == "http://[::1]:8080"
