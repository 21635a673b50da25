"""Words of later steps are refused before the first one runs."""

from __future__ import annotations

import pytest

from tfscale.__main__ import main as program
from tfscale.errors import TfscaleError, UsageError, without_secrets
from tfscale.k8s.__main__ import main as k8s
from tfscale.train_and_deploy import main, refuse_bad_words
from tfscale.workflow.local_run import LocalWorkflow
from tfscale.workflow.steps import Places, train_and_deploy
from tfscale.workflow.workflow_request import WorkflowRequest

WORDS = (
    *("workflow.name=late", "import.source=flights.csv", "import.label=arr_delay > 15", "validate.noise=none"),
    *("promote.min_gain=0.01", "serve.port=9000", "+recipe=tabular", "train.until=2ep"),
)


def checked(tmp_path, *words: str) -> None:
    places = Places("w/run", "w/data", str(tmp_path / "report.html"), "w/served/late")
    refuse_bad_words(train_and_deploy(WorkflowRequest.of([*WORDS, *words]), places))


def test_words_that_are_right_pass_before_there_are_data_or_a_run(tmp_path):
    checked(
        tmp_path,
        "evaluate.report.slices=origin",
        "evaluate.data=csv",
        "evaluate.data.path=x.csv",
        "evaluate.data.label=y",
    )


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("import.lable=x", "the step import: unknown key 'lable'; did you mean 'label'"),
        ("validate.noize=1", "the step validate: unknown key 'noize'; did you mean 'noise'"),
        ("validate.drift=much", "the step validate: 'much' is no number"),
        ("train.untl=1ep", "unknown key 'train.untl'"),
        ("evaluate.report.slcies=x", "the step evaluate: unknown option 'report.slcies'"),
        ("evaluate.report=page.pdf", "the step evaluate: page.pdf is no page"),
        ("evaluate.checkpoint=bst", "the step evaluate: 'bst'"),
        ("evaluate.eval.splt=test", "the step evaluate: unknown key 'eval.splt'"),
        ("evaluate.run.dir=other", "the step evaluate: run.dir was given twice"),
        ("promote.mingain=1", "the step promote: unknown option 'mingain'"),
        ("promote.data.test_splt=test", "the step promote: unknown key 'data.test_splt'"),
        ("promote.back=true", "the step promote: a workflow gives nothing back"),
        ("serve.prt=1", "the step serve: unknown option 'serve.prt'"),
        ("serve.host=0.0.0.0", "the step serve: whoever reaches 0.0.0.0 could ask"),
        ("serve.token_file=nowhere", "the step serve: the token can't be read"),
        ("watch.most_errors=2", "the step watch: 2 is no share from 0 to 1"),
        ("watch.back=true", "the step watch: unknown option 'watch.back'"),
        ("serve.name=other", "the step serve: serve.name was given twice"),
    ],
)
def test_a_word_that_a_later_step_would_refuse_is_refused_before_the_first(tmp_path, word, what):
    with pytest.raises(TfscaleError, match=what):
        checked(tmp_path, word, *["watch.seconds=60"] * word.startswith("watch."))


def test_groups_of_peoples_own_are_every_steps_that_has_a_configuration(tmp_path):
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "small.yaml").write_text("defaults: [tabular]\nhidden: [7]\n")
    words, places = [*WORDS, "task=small", "evaluate.data=csv", "evaluate.data.path=x.csv"], Places("r", "d", "", "v")
    words += ["evaluate.data.label=y"]
    request = WorkflowRequest.of(words, config_dir=str(tmp_path / "mine"))
    steps, before = train_and_deploy(request, places), LocalWorkflow(request, tmp_path / "flow").places.run
    having = [step.name for step in steps if f"--config-dir={tmp_path}/mine" in step.command]
    assert having == ["train", "evaluate", "export", "promote", "deploy"]
    refuse_bad_words(steps)
    with pytest.raises(UsageError, match="small"):
        refuse_bad_words(train_and_deploy(WorkflowRequest.of(words), places))
    (tmp_path / "mine" / "task" / "small.yaml").write_text("defaults: [tabular]\nhidden: [8]\n")
    assert LocalWorkflow(request, tmp_path / "flow").places.run != before  # as where other files change
    assert main(["--config-dir", f"{tmp_path}/nowhere", *words]) == 64


CLUSTER = (
    *("k8s", "workflow", "train_and_deploy", "workflow.name=late", "import.source=s3://bucket/flights.csv"),
    *("import.label=late", "+recipe=tabular", "job=jobset", "job.image=registry/tfscale:0.1", "job.run_claim=runs"),
    *("job.data_claim=data", "serve.secrets=[token]"),
)


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("validate.noize=1", "the step validate: unknown key 'noize'"),
        ("evaluate.eval.splt=test", "the step evaluate: unknown key 'eval.splt'"),
        ("promote.mingain=1", "the step promote: unknown option 'mingain'"),
        ("workflow.as={{x}}", "'{{x}}' is no alias that MLflow takes"),
    ],
)
def test_it_is_refused_before_it_is_written_for_a_cluster_too(capsys, word, what):
    for way, words in ((program, CLUSTER), (k8s, CLUSTER[1:])):  # the latter: python -m tfscale.k8s
        assert way([*words, word]) == 64
        assert what in capsys.readouterr().err


def test_what_is_right_is_written_for_a_cluster_whose_files_are_not_this_machines(capsys):
    assert program([*CLUSTER, "evaluate.report=/work/runs/page.html", "validate.noise=none"]) == 0
    assert "report=/work/runs/page.html" in capsys.readouterr().out


@pytest.mark.parametrize("alias", ["latest", "{{workflow.parameters.workflow-as}}"])
def test_what_is_no_alias_is_refused_on_this_machine(capsys, alias):
    assert main([*WORDS, f"workflow.as={alias}"]) == 64
    assert f"'{alias}' is no alias that MLflow takes" in capsys.readouterr().err


def test_the_advice_names_the_command_whose_help_lists_the_words(tmp_path):
    with pytest.raises(UsageError) as seen:
        checked(tmp_path, "serve.prt=1")
    assert seen.value.fix.startswith("tfscale serve --help")


def test_the_path_of_a_token_is_no_secret(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*WORDS, "serve.token_file=tok/of_mine.txt", "workflow.show=true"]) == 0
    assert without_secrets("serve.token_file=tok/of_mine.txt") == "serve.token_file=tok/of_mine.txt"
