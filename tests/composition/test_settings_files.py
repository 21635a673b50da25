"""tfscale.yaml: whose word counts, what is refused of it and in whose file, and that nobody is told nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from support import warm

from tfscale.composition.composed_places import compose_places
from tfscale.composition.hydra_compose import compose, compose_raw, compose_run
from tfscale.config.schema import identity
from tfscale.config.settings_files import has_settings, settings_files
from tfscale.doctor.places import look_at_settings
from tfscale.errors import SecurityRefused, UsageError
from tfscale.peers.of_run import facts
from tfscale.preflight import locate, plan_run, refuse_moved
from tfscale.run_dir.experiment import digest
from tfscale.tracking.tracker import NoTracker

RESNET = ("+recipe=resnet",)
OWN_CODE = ("task=keras", "task.model=my_models.small", "data=csv", "data.path=t.csv", "data.label=y", "train.until=1ep",
            "train.global_batch=8", "tracker=none")  # fmt: skip
PROGRAM = warm.LIGHT + "from tfscale.train import main; sys.exit(main())"
USERS = "~/.config/tfscale/tfscale.yaml"


class Files:
    """The user's file and that of the current folder."""

    def __init__(self, folder: Path):
        self.home, self.project = folder / "home", folder / "project"
        self.users = self.home / ".config" / "tfscale" / "tfscale.yaml"
        self.users.parent.mkdir(parents=True)
        self.project.mkdir()
        self.environ = {"TFSCALE_SETTINGS": "", "HOME": str(self.home), "XDG_CONFIG_HOME": ""}

    def of_user(self, text: str) -> None:
        self.users.write_text(text)

    def of_folder(self, text: str) -> None:
        (self.project / "tfscale.yaml").write_text(text)


@pytest.fixture
def files(tmp_path, monkeypatch) -> Files:
    made = Files(tmp_path)
    for name, value in made.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(made.project)
    return made


def test_the_folders_file_wins_over_the_users_and_the_command_over_both(files):
    files.of_user("run.root: /u\ntracker: none\ncheckpoint: {keep: 7}\nexport.at_end: false\n")
    files.of_folder("run:\n  root: here\nlog.format: plain\ndata.dir: /mnt/data\n")
    config = compose(RESNET)
    assert (config.run.root, config.checkpoint.keep, config.log.format) == ("here", 7, "plain")
    assert isinstance(config.tracker, NoTracker) and config.data.dir == "/mnt/data"
    assert config.export.at_end is False  # which the recipe has otherwise
    assert config.settings.line() == (
        f"settings: {USERS} sets tracker, checkpoint.keep, export.at_end;"
        " tfscale.yaml sets run.root, log.format, data.dir"
    )
    assert not config.overridden & {"run.root", "tracker", "data.dir"}  # the command said nothing of them
    told = compose(
        [*RESNET, "run.root=c", "tracker=mlflow", "data.dir=/c", "checkpoint={keep: 1}", "export.at_end=true"]
    )
    assert (told.run.root, told.data.dir, told.checkpoint.keep, told.export.at_end) == ("c", "/c", 1, True)
    assert type(told.tracker).__name__ == "MlflowTracker"
    assert told.settings.line() == f"settings: {USERS} sets nothing here; tfscale.yaml sets log.format"
    assert yaml.safe_load(config.yaml)["run"]["root"] == "here"


def test_no_file_and_none_of_them_leave_everything_as_it_was(files, monkeypatch):
    usual = compose(RESNET)
    assert usual.settings.line() == "" and not has_settings()
    files.of_folder("")  # nothing in it
    assert compose(RESNET).settings.line() == "settings: tfscale.yaml sets nothing here"
    files.of_user("run.root: /u\n")
    files.of_folder("not: [yaml\n")
    monkeypatch.setenv("TFSCALE_SETTINGS", "none")
    assert compose(RESNET).yaml == usual.yaml and not has_settings()
    monkeypatch.setenv("TFSCALE_SETTINGS", "on")
    with pytest.raises(UsageError, match="TFSCALE_SETTINGS is 'on'"):
        compose(RESNET)


@pytest.mark.parametrize(
    ("text", "where", "told"),
    [
        ("trakcer: none", "trakcer", "unknown key 'trakcer'; did you mean 'tracker'?"),
        ("run: {rot: x}", "run.rot", "did you mean 'run.root'?"),
        ("checkpoint.keep: many", "checkpoint.keep", "many"),
        ("checkpoint.keep: 0", "checkpoint.keep", "0 is less than 1"),
        ("log.format: jsn", "log.format", "did you mean 'json'?"),
        ("run.root: a\nrun: {root: b}", "run.root", "given twice"),
        ("run.root: a\nrun.root: b", "", "line 2: found duplicate key run.root"),
        ("run: [", "", "can't be read: line"),
        ("- run.root", "", "no mapping"),
        ("run.root", "", "no mapping"),
        ("run:", "run", "run: "),
        ("recipe: resnet", "recipe", "is of one command"),
        ("data: csv", "data", "is of one command"),
        ("data.path: x", "data.path", "is of one command"),
        ("train: {until: 3ep}", "train.until", "is of one command"),
        ("init_from: x", "init_from", "is of one command"),
        ("run.dir: x", "run.dir", "is of one command"),
        ("job.image: x", "job.image", "is of one command"),
        ("data.dir: 3", "data.dir", "the path of a folder"),
        ("tracker: [none]", "tracker", "the name of a choice"),
        ("tracker: mlfow", "tracker", "unknown tracker 'mlfow'; did you mean 'mlflow'?"),
        ("run.root: a\nlog.format: xml\ncheckpoint.keep: no", "checkpoint.keep", "checkpoint.keep: "),
    ],
)
def test_what_is_wrong_with_a_file_is_said_of_it(files, text, where, told):
    files.of_folder(text)
    with pytest.raises(UsageError) as error:
        compose(RESNET)
    assert told in error.value.what and error.value.where == f"tfscale.yaml:{where}".rstrip(":"), error.value
    assert error.value.fix


def test_a_trackers_keys_are_its_own(files):
    for text, told in (
        ("tracker.experimnt: x", "did you mean 'tracker.experiment'?"),
        ("tracker._target_: os.system", "choose a tracker by its name"),
        ("tracker.system_metrics: perhaps", "tracker.system_metrics: "),
    ):
        files.of_user(text)
        with pytest.raises(UsageError) as error:
            compose(RESNET)
        assert told in error.value.what and error.value.where == f"{USERS}:{text.partition(':')[0]}", error.value


def test_all_that_is_wrong_is_told_at_once(files):
    files.of_user("log.format: xml\ncheckpoint.keep: 0\n")
    with pytest.raises(UsageError) as error:
        compose(RESNET)
    assert {f"{USERS}:log.format", f"{USERS}:checkpoint.keep"} == set(error.value.where.split(", "))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("extensions: {allow: [my_models.]}", "extensions.allow"),
        ("tracker.uri: http://mlflow.example", "tracker.uri"),
        ("tracker: {host: example}", "tracker.host"),
        ("run.store: s3://bucket/runs", "run.store"),
        ("run.root: '${oc.env:HOME}/runs'", "run.root"),
    ],
)
def test_the_file_of_a_folder_lets_no_code_in_and_sends_nothing_out(files, text, key):
    files.of_folder(text)
    with pytest.raises(SecurityRefused, match="the file of a folder can't") as error:
        compose([*OWN_CODE, "extensions.allow=[my_models.]"])
    assert error.value.where == f"tfscale.yaml:{key}" and USERS in error.value.fix
    files.of_folder("tracker: none\ntracker.experiment: mine\n")  # which say nothing of the kind
    assert compose(RESNET).settings.of("tfscale.yaml") == ["tracker"]


def test_the_user_says_where_things_go(files):
    files.of_user("tracker.uri: http://mlflow.example\nrun.store: s3://bucket/runs\nrun.root: '${oc.env:HOME}/runs'\n")
    config = compose(RESNET)
    assert (config.tracker.uri, config.run.store) == ("http://mlflow.example", "s3://bucket/runs")
    assert config.run.root == f"{files.home}/runs" and "${oc.env:HOME}" in config.yaml


def test_the_user_allows_code_and_nobody_else_does(files, tmp_path):
    with pytest.raises(SecurityRefused, match="my_models.small"):
        compose(OWN_CODE)
    files.of_user("extensions.allow: [my_models.]\n")
    assert compose(OWN_CODE).task.model == "my_models.small"
    with pytest.raises(UsageError, match="did you mean 'train.seed'"):  # and not of code that is allowed
        compose([*OWN_CODE, "train.sed=1"])
    with pytest.raises(SecurityRefused, match="my_models.small"):  # the command says what else is
        compose([*OWN_CODE, "extensions.allow=[others.]"])
    files.of_user("extensions.allow: [my_models]\n")
    with pytest.raises(UsageError, match="with a dot behind it"):
        compose(OWN_CODE)
    files.of_user("extensions.allow: [my_models.]\n")
    files.users.chmod(0o666)
    with pytest.raises(SecurityRefused, match="every user may write it") as error:
        compose(OWN_CODE)
    assert error.value.where == f"{USERS}:extensions.allow"


def test_links_devices_and_files_beyond_all_use_are_refused(files, tmp_path):
    (tmp_path / "other.yaml").write_text("run.root: x\n")
    for make in (
        lambda file: file.symlink_to(tmp_path / "other.yaml"),
        lambda file: os.mkfifo(file),
        lambda file: file.write_text("# " + "x" * 2**16),
        lambda file: file.write_text("run: &a {root: x}\nexport: *a\n"),
        lambda file: file.write_text("run: " + "[" * 200 + "]" * 200),
    ):
        for place, name in ((files.users, USERS), (files.project / "tfscale.yaml", "tfscale.yaml")):
            make(place)
            with pytest.raises(SecurityRefused) as error:
                compose(RESNET)
            assert error.value.where == name and error.value.fix
            place.unlink()
    (files.project / "tfscale.yaml").mkdir()
    with pytest.raises(UsageError, match="can't be read"):
        compose(RESNET)


def test_the_users_file_is_where_xdg_says(files, monkeypatch, tmp_path):
    files.of_user("run.root: /u\n")
    assert [one.name for one in settings_files()] == [USERS]
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert [one.name for one in settings_files()] == [USERS]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert settings_files() == []
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    monkeypatch.chdir(files.users.parent)  # where one file is both
    assert [one.name for one in settings_files()] == [USERS]
    assert settings_files({"HOME": ""}, folder=tmp_path) == []


def test_what_has_no_effect_here_is_said(files, monkeypatch):
    files.of_user("tracker.uri: http://mlflow.example\ndata.dir: /mnt/data\n")
    found = compose([*RESNET, "data=synthetic", "tracker=none"]).settings
    assert dict(found.left_out) == {"tracker.uri": "this tracker has no uri", "data.dir": "this data has no dir"}
    assert "without effect: data.dir (this data has no dir)" in found.line()
    assert compose(RESNET).tracker.uri == "http://mlflow.example"
    monkeypatch.setenv("TFSCALE_DATA_DIR", "/env")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env")
    config = compose(RESNET)
    assert (config.data.dir, config.tracker.uri) == ("/env", "http://env")
    assert config.settings.left_out["data.dir"] == "TFSCALE_DATA_DIR is set"


def test_a_run_to_look_for_faults_stays_in_its_own_folder(files):
    files.of_user("run.root: /mnt/runs\nrun.hang_timeout: 60\neval.every: 5ep\n")
    config = compose([*RESNET, "+debug=fast"])
    assert (config.run.root, config.eval.every, config.run.hang_timeout) == ("runs/debug", "2st", 60)


def test_settings_make_no_other_experiment(files):
    before = digest(identity(compose(RESNET)))
    files.of_user(
        "data.dir: /mnt/data\nrun.root: /r\nplan.precision: float32\ntrain.log_every: 1m\ncheckpoint.keep: 9\n"
    )
    config = compose(RESNET)
    assert digest(identity(config)) == before and len(config.settings.sets) == 5


def test_workers_that_read_other_files_disagree(files):
    def told():
        config = compose([*RESNET, "tracker=none"])
        return facts(config, plan_run(config, environ={}))

    before = told()
    for text in ("checkpoint.every: 3ep", "export.at_end: false", "plan.precision: float64", "eval.every: 2ep"):
        files.of_folder(text)
        assert told() != before, text
    files.of_folder("data.dir: elsewhere\nrun.root: r\n")  # places, which may differ
    assert told() == before


def test_a_trained_run_is_what_its_folder_says(files):
    folder = files.project / "it"
    folder.mkdir()
    (folder / "config.yaml").write_text(compose([*OWN_CODE, "extensions.allow=[my_models.]", "checkpoint.keep=3"]).yaml)
    files.of_user("checkpoint.keep: 9\nrun.root: /u\ndata.dir: /mnt/data\n")
    with pytest.raises(SecurityRefused, match="for itself"):
        compose_run(folder)
    files.of_user("checkpoint.keep: 9\ndata.dir: /mnt/data\nextensions.allow: [my_models.]\n")
    config = compose_run(folder)
    assert config.checkpoint.keep == 3 and set(config.settings.sets) == {"extensions.allow"}
    other = compose_run(folder, ["data=prepared", "data.name=x"])
    assert other.data.dir == "/mnt/data" and not other.settings.left_out


def test_a_run_that_was_begun_without_the_file_does_not_begin_at_zero(files):
    before = locate(compose(RESNET))
    files.of_user("run.root: ~/runs\n")
    moved = compose(RESNET)
    refuse_moved(moved, locate(moved))  # nothing to go on with
    before.checkpoints.mkdir(parents=True)
    with pytest.raises(UsageError, match=f"{before.path} holds this run already") as error:
        refuse_moved(moved, locate(moved))
    assert "run.root=runs goes on with it" in error.value.fix
    for words in ("run.root=runs", "resume.mode=never"):
        config = compose([*RESNET, words])
        refuse_moved(config, locate(config))
    locate(moved).path.mkdir(parents=True)  # begun anew, as somebody wished
    refuse_moved(moved, locate(moved))


def test_what_is_composed_for_other_machines_knows_no_files_of_this_one(files):
    from tfscale.k8s.printed import text_of

    usual = text_of([*RESNET, "job=job", "job.image=it", "job.run_claim=runs"])
    files.of_user("run.root: /u\ntrain.log_every: 1m\n")
    assert compose_raw(RESNET).run.root == "runs"
    printed = text_of([*RESNET, "job=job", "job.image=it", "job.run_claim=runs"])
    (note,) = set(printed.splitlines()) - set(usual.splitlines())
    assert note.startswith(f"# Note: settings of this machine don't count here: {USERS} (run.root, train.log_every)")


def test_the_doctor_looks_where_settings_say(files):
    assert look_at_settings(compose_places([]).settings) == []
    files.of_user("data.dir: ~/d\nrun.root: /r\ntracker: none\n")
    places = compose_places([], environ={})
    assert (places.runs, places.data) == (Path("/r"), files.home / "d")
    (found,) = look_at_settings(places.settings)
    assert (found.verdict, found.fact) == ("ok", f"{USERS} sets data.dir, run.root, tracker")


def test_programs_say_which_files_they_read(cli, files):
    files.of_user("tracker: none\n")
    files.of_folder("run.root: here\nplan.precision: float32\n")
    job, at = (
        (*RESNET, "plan.dry_run=true"),
        {"cwd": files.project, "environ": files.environ, "program": ("-c", PROGRAM)},
    )
    line = f"settings: {USERS} sets tracker; tfscale.yaml sets run.root, plan.precision"
    ended = cli(*job, **at)
    first, *plan = ended.out.splitlines()
    assert ended.code == 0 and first.endswith(f" {line}") and any("precision" in one for one in plan), ended
    json_lines = cli(*job, "log.format=json", **at).out.splitlines()
    told = json.loads(json_lines[0])
    assert told["message"] == line
    assert told["settings"] == {USERS: ["tracker"], "tfscale.yaml": ["run.root", "plan.precision"]}
    quiet = cli(*job, "run.quiet=true", **at)
    assert "settings" not in quiet.out and quiet.code == 0
    files.of_folder("extensions.allow: [mine.]\n")
    refused = cli(*job, **at)
    assert refused.code == 77 and "tfscale.yaml:extensions.allow" in refused.err and not refused.out


def test_every_worker_of_a_launched_job_says_it(cli, files):
    files.of_folder("tracker: none\n")
    ended = cli("--workers", "2", "--", *RESNET, "plan.dry_run=true", program=("-m", "tfscale.launch"),
                cwd=files.project, environ=files.environ)  # fmt: skip
    said = [line for line in ended.out.splitlines() if line.endswith("settings: tfscale.yaml sets tracker")]
    assert ended.code == 0 and sorted(line.split()[0] for line in said) == ["worker:0", "worker:1"], ended
