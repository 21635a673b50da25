"""`tfscale init`: names and folders that are refused, and a project that is what its README says: it trains, its tests pass,
its manifest is rendered."""

from __future__ import annotations

import fnmatch
import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as some

import tfscale
from tfscale.__main__ import main
from tfscale.errors import OutputError, SecurityRefused, UsageError
from tfscale.new_project import project_files as project_files_module
from tfscale.new_project.package_name import MAX_LENGTH, check_name, proposed
from tfscale.new_project.project_files import LAST, project_files
from tfscale.new_project.tfscale_origin import pip_argument
from tfscale.new_project.written_project import write_project

ROOT = Path(__file__).parents[2]
NAME = "wave_net"
ALLOW = f"extensions.allow=[{NAME}.]"
RECIPE = (f"+recipe={NAME}", ALLOW)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("projects") / NAME
    assert main(["init", NAME, "--directory", str(folder)]) == 0
    return folder


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def made_here(project, tmp_path):
    """Calls `make` in the project, with this environment in the place of a .venv: what it would install is here."""
    ready = tmp_path / "ready"
    ready.touch()  # newer than the project

    def make(*words: str) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        command = ["make", *words, f"VENV={sys.prefix}", f"READY={ready}"]
        return subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, timeout=120)

    return make


# -- names


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("my-model", "my_model"),
        ("MyModel", "my_model"),
        ("3d", "model_3d"),
        ("Größe 2", "groe_2"),
        ("x_", "x"),
        ("", "my_model"),
        ("..", "my_model"),
        ("class", "class_model"),  # a word of Python
        ("json", "json_model"),  # of its library
        ("numpy", "numpy_model"),
        ("tensorflow", "tensorflow_model"),
        ("keras", "keras_model"),
        ("tfscale", "tfscale_model"),
        ("yaml", "yaml_model"),  # installed
        ("resnet", "resnet_model"),  # a recipe of ours
        ("mnist", "mnist_model"),  # a source
        ("tests", "tests_model"),  # a folder of the project
        ("null", "null_model"),  # a value
        ("a" * 41, "a" * 34),
        ("projects/digits", "digits --directory projects/digits"),
    ],
)
def test_a_name_that_does_not_do_is_answered_with_one_that_does(name, better, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", name]) == 64
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"tfscale: error[E-0064] {name!r} can't be the name of a project: ")
    assert said.err.endswith(f"| NAME | tfscale init {better}\n") and list(tmp_path.iterdir()) == []
    assert main(["init", *better.split()]) == 0


@given(some.text(max_size=60))
@settings(max_examples=50, deadline=None)
def test_what_is_proposed_always_does(name):
    better = proposed(name)
    check_name(better)
    assert better.isidentifier() and len(better) <= MAX_LENGTH


def test_no_name_is_a_wrong_command(capsys):
    assert (main(["init"]), main(["init", "one", "two"])) == (64, 64)
    first, second = capsys.readouterr().err.splitlines()
    assert "required: NAME" in first and "'two'" in second


# -- folders


def test_nothing_is_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name, said in (("full", "it holds README.md"), ("file", "no folder"), ("link", "no folder")):
        assert main(["init", NAME, "--directory", name]) == 73
        assert said in capsys.readouterr().err
    assert below(tmp_path) == {"full/README.md", "file"} and (tmp_path / "file").read_text() == "mine"
    (tmp_path / NAME / ".git").mkdir(parents=True)
    (tmp_path / NAME / ".git" / "HEAD").write_text("mine")
    assert main(["init", NAME]) == 0
    assert below(tmp_path / NAME) == {*project_files(NAME), ".git/HEAD"}
    assert main(["init", NAME]) == 73, "a project is never written twice"


def test_folders_above_it_are_made_and_the_present_one_may_be_it(tmp_path, monkeypatch, capsys):
    assert main(["init", NAME, "--directory", str(tmp_path / "a b" / "c")]) == 0
    assert below(tmp_path / "a b") == {f"c/{path}" for path in project_files(NAME)}
    assert f"    cd '{tmp_path}/a b/c'\n    make train" in capsys.readouterr().out
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["init", NAME, "--directory", "."]) == 0
    shown = capsys.readouterr().out
    assert "cd " not in shown and [line.split()[1] for line in shown.splitlines() if line.startswith("    make ")] == [
        "train", "test", "notebook"]  # fmt: skip


LIMITED = """
import resource, sys
from tfscale.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.exit(main(["init", "wave_net"]))
"""


@pytest.mark.parametrize("begun", [(), ("wave_net",), ("wave_net", "wave_net/.git")])
def test_what_can_not_be_finished_leaves_nothing(begun, tmp_path):
    """The first file is written, and the second is larger than the process may write."""
    for name in begun:
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.rglob("*"))
    files = project_files("wave_net")
    assert [len(text.encode()) > 2000 for text in files.values()][:2] == [False, True]
    command = [sys.executable, "-B", "-c", LIMITED]  # -B: nor may it write half of a module's bytecode
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 73 and "wave_net can't be written: File too large | --directory" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


class Racing(dict[str, str]):
    """Files of a project, during whose writing somebody else writes one of them."""

    def __init__(self, folder: Path):
        super().__init__({"a/one": "1", "two": "2"})
        self._folder = folder

    def items(self):
        yield "a/one", self["a/one"]
        (self._folder / "two").write_text("mine")
        yield "two", self["two"]


def test_what_makes_it_a_project_comes_last_and_a_file_that_came_meanwhile_stays(tmp_path):
    assert list(project_files(NAME))[-1] == LAST
    with pytest.raises(OutputError, match="can't be written: File exists"):
        write_project(tmp_path, Racing(tmp_path))
    assert below(tmp_path) == {"two"} and (tmp_path / "two").read_text() == "mine" and not (tmp_path / "a").exists()


# -- what is in it


def test_every_template_goes_somewhere_and_into_the_wheel():
    folder = ROOT / "tfscale" / "new_project" / "templates"
    found = {path.name for path in folder.iterdir()}
    assert found == {f"{name}.tmpl" for name in project_files_module._TARGETS}
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    patterns = told["tfscale.new_project"]
    assert all(any(fnmatch.fnmatch(f"templates/{name}", pattern) for pattern in patterns) for name in found)


@pytest.mark.parametrize("name", ["w", NAME, "w" * MAX_LENGTH])
def test_its_python_is_clean_by_its_own_rules(name, tmp_path):
    write_project(tmp_path / "it", project_files(name))
    assert not [text for text in project_files(name).values() if "{{" in text]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
            cwd=tmp_path / "it", capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_its_files_are_what_they_are_called(project):
    told = tomllib.loads((project / "pyproject.toml").read_text())
    assert told["project"]["name"] == NAME and told["tool"]["setuptools"]["packages"] == [NAME]
    assert told["project"]["dependencies"] == [f"tfscale[mlflow]=={tfscale.__version__}"]
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(project / "notebooks" / "quickstart.ipynb", as_version=4))
    table = (project / "README.md").read_text() + (ROOT / "docs" / "init.md").read_text().replace("my_model", NAME)
    assert [path for path in project_files(NAME) if f"`{path}`" not in table and "__init__" not in path] == []


def test_git_takes_all_of_it(project, tmp_path):
    """Such as configs/data, where folders of data are ignored."""
    git = ["git", f"--git-dir={tmp_path / 'git'}", f"--work-tree={project}"]
    subprocess.run([*git, "init", "-q"], check=True)
    asked = [*git, "ls-files", "--others", "--exclude-standard"]
    listed = subprocess.run(asked, cwd=project, check=True, capture_output=True, text=True).stdout.split()
    assert set(project_files(NAME)) <= set(listed)


def test_its_recipe_composes_where_the_command_allows_it(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project))
    configs = str(project / "configs")
    config = tfscale.compose([*RECIPE, "data.noise=0.5"], config_dir=configs)
    assert (type(config.task).__module__, config.data.noise, config.run.recipe) == (f"{NAME}.task", 0.5, NAME)
    with pytest.raises(SecurityRefused, match=r"extensions\.allow"):
        tfscale.compose([RECIPE[0]], config_dir=configs)
    with pytest.raises(UsageError, match="did you mean"):
        tfscale.compose([*RECIPE, "task.widht=8"], config_dir=configs)


def test_where_tfscale_came_from(tmp_path, monkeypatch):
    """As installers write it down beside a package, which is found before the one that is installed."""
    there = tmp_path / "tfscale 1.whl"
    there.touch()
    info = tmp_path / "path" / "tfscale-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tfscale\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(info.parent))
    assert pip_argument() == "", "from an index"
    for told, argument in (
        ({"url": there.as_uri(), "archive_info": {}}, str(there)),
        ({"url": (tmp_path / "gone.whl").as_uri(), "archive_info": {}}, ""),
        ({"url": "https://x.example/t.whl", "archive_info": {}}, "https://x.example/t.whl"),
        (
            {"url": "https://x.example/t.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            "git+https://x.example/t.git@c0ffee",
        ),
    ):
        (info / "direct_url.json").write_text(json.dumps(told))
        assert pip_argument() == argument


# -- what it does


def test_it_trains_and_what_it_exports_was_checked(project, cli, tmp_path):
    short = ("train.until=6st", "data.train_examples=128", "data.test_examples=64", "tracker=none")
    ended = cli("--config-dir", "configs", *RECIPE, *short, f"run.dir={tmp_path / 'run'}", cwd=project)
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["step"]) == ("complete", 6)
    assert {path.name for path in (tmp_path / "run" / "export").iterdir()} >= {
        "model.keras",
        "saved_model",
        "export.json",
    }


def test_make_train_is_that_command(made_here):
    done = made_here("train", "OVERRIDES=plan.dry_run=true data.noise=0.5")
    assert done.returncode == 0, done.stderr
    words = ["--config-dir", "configs", *RECIPE, "plan.dry_run=true", "data.noise=0.5"]
    assert shlex.split(done.stdout.splitlines()[0])[1:] == ["-m", "tfscale.train", *words]
    assert "execution plan" in done.stdout


def test_its_own_tests_pass(made_here):
    done = made_here("test")
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_its_manifest_brings_the_recipe_and_runs_the_same_command(project, made_here):
    done = made_here("manifest", "IMAGE=registry.example/wave:1")
    assert done.returncode == 0, done.stderr
    assert f"the image must hold {NAME}" in done.stderr
    found = list(yaml.safe_load_all((project / "manifest.yaml").read_text()))
    [job] = [each for each in found if each["kind"] == "Job"]
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert job["metadata"]["name"] == "wave-net-worker" and container["image"] == "registry.example/wave:1"
    assert container["args"] == ["train", "--config-dir", "/etc/tfscale/config", *RECIPE]
    [held] = [each for each in found if each["kind"] == "ConfigMap"]
    assert sorted(held["data"].values()) == sorted(
        (project / "configs" / kind / f"{NAME}.yaml").read_text() for kind in ("data", "recipe")
    )
    (project / "manifest.yaml").unlink()


@pytest.mark.slow
def test_its_notebook_runs_and_shows_curves(project, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(project))  # where it isn't installed
    book = nbformat.read(project / "notebooks" / "quickstart.ipynb", as_version=4)
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(project / "notebooks")}}).execute()
    drawn = [out for cell in book.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    assert len(drawn) == 2
    result = json.loads((project / "runs" / "quickstart" / "result.json").read_text())
    assert result["metrics"]["accuracy"] > 0.5
