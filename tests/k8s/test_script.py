"""`tfscale k8s run`: a script as it is in the pods of each kind of job, with what it imports from beside it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml
from support.controllers import laid_out, nested, pods

from tfscale.errors import SecurityRefused, TfscaleError
from tfscale.k8s.__main__ import main
from tfscale.k8s.printed import text_of_script
from tfscale.k8s.script import Script

JOB = ["job.image=registry/tfscale:1", "job.run_claim=runs"]
TRAIN = """
import sys
import keras
import numpy as np
from parts.model import make
import units
assert __file__.endswith("/train.py") and sys.argv[1:] == ["--name", "a b"]
keras.utils.set_random_seed(units.SEED)
model = make()
model.fit(np.ones((8, 2)), np.ones((8, 1)), epochs=2, verbose=0)
model.save("model.keras")
"""
MAKE = """
import keras
def make():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A script that imports a module and a package beside it; the working folder."""
    texts = {"train.py": TRAIN, "units.py": "SEED = 3\n", "parts/__init__.py": "", "parts/model.py": MAKE}
    for name, text in (texts | {"other.py": "1 / 0", "needs.txt": "einops==0.8.1\n"}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rendered(*overrides: str, **script) -> list[dict]:
    given = {"target": ("train.py",), "arguments": ("--name", "a b")} | script
    return list(yaml.safe_load_all(text_of_script(Script(**given), [*JOB, *overrides])))


@pytest.mark.parametrize("kind", ["tfjob", "trainjob", "jobset", "job"])
def test_every_pod_is_told_to_run_it_and_finds_what_it_imports(folder, tmp_path_factory, validate, kind):
    found = rendered(
        f"job={kind}", "job.workers=2", "checkpoint.every=2m", "job.env.PYTHONPATH=/code", requirements="needs.txt"
    )
    assert [problem for each in found for problem in validate(each)] == []
    place = tmp_path_factory.mktemp("scripts")
    laid_out(found, place)
    assert (place / "train.py").read_text() == TRAIN and (place / "parts" / "model.py").read_text() == MAKE
    assert sorted(one.name for one in place.iterdir() if not one.name.startswith("..")) == sorted(
        ["train.py", "units.py", "parts", "requirements.txt"]
    )
    asked = ["run", "--chdir", "/work/runs/train", "--override", "checkpoint.every=2m", "/scripts/train.py"]
    there = pods([each for each in found if each["kind"] != "ConfigMap"])
    assert [pod.args for pod in there] == 2 * [[*asked, "--name", "a b"]]
    assert {pod.environ["PYTHONPATH"] for pod in there} == {"/packages/modules:/code"}
    [[first]] = {yaml.dump(each): each for each in nested(found, "initContainers")}.values()
    assert "--requirement /scripts/requirements.txt" in first["command"][-1]
    assert {"/scripts", "/packages", "/tmp"} == {mount["mountPath"] for mount in first["volumeMounts"]}


def test_what_the_pods_are_told_trains_there(folder, tmp_path_factory):
    """In a process here: places of the container lie elsewhere, and it works in a folder that isn't there yet."""
    there = tmp_path_factory.mktemp("there")
    found = rendered("job=job")
    (there / "scripts").mkdir()
    laid_out(found, there / "scripts")
    [pod] = pods([each for each in found if each["kind"] != "ConfigMap"])
    places = {"/work/runs/train": str(there / "work" / "train"), "/scripts/train.py": str(there / "scripts/train.py")}
    words = [places.get(word, word) for word in pod.args]
    done = subprocess.run(
        [sys.executable, "-m", "tfscale", *words],
        cwd=there,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert (there / "work" / "train" / "model.keras").exists()
    assert list((there / "work" / "train" / "runs").glob("train-*/*/result.json"))


def test_a_module_or_a_path_of_the_image_needs_no_config_map(folder):
    for target, there in ((("-m", "mine.train"), ["-m", "mine.train"]), (("/app/train.py",), ["/app/train.py"])):
        found = rendered("job=job", target=target, arguments=())
        assert [each["kind"] for each in found] == ["Service", "NetworkPolicy", "Job"]
        assert pods(found)[0].args == ["run", "--chdir", "/work/runs/train", *there]


def test_a_batch_script_runs_it_where_it_lies(folder):
    text = text_of_script(Script(("train.py",), ("--name", "a b")), ["job=slurm", "job.workers=2"])
    assert "tfscale run train.py --name 'a b'\n" in text
    assert text.splitlines()[1] == "# tfscale k8s run train.py job=slurm job.workers=2 -- --name 'a b'"


@pytest.mark.parametrize(
    ("overrides", "script", "says"),
    [
        (["job=job"], {"target": ("trian.py",)}, "no script trian.py"),
        ([], {}, "no kind of job"),
        (["job=job", "job.ps=1"], {}, "in workers"),
        (["job=job", "job.evaluator=true"], {}, "in workers"),
        (["job=runtime"], {}, "for all jobs"),
        (["job=job", "checkpoint.evry=2m"], {}, "checkpoint.every"),
        (["job=slurm"], {"requirements": "needs.txt"}, "installs nothing"),
        (["job=job"], {"requirements": "no.txt"}, "can't be read"),
    ],
)
def test_what_would_fail_there_is_refused_here(folder, overrides, script, says):
    with pytest.raises(TfscaleError) as caught:
        rendered(*overrides, **script)
    assert says in caught.value.line() and caught.value.exit_code in (64, 66)


def test_what_can_not_travel_is_refused(folder):
    (folder / "parts" / "__init__.py").unlink()
    with pytest.raises(TfscaleError, match="without __init__.py"):
        rendered("job=job")
    (folder / "parts" / "__init__.py").write_text("'" + 1_000_000 * "x" + "'")
    with pytest.raises(TfscaleError, match="a ConfigMap holds 1 MiB"):
        rendered("job=job")
    (folder / "parts" / "__init__.py").write_text("URL = 'https://me:hunter2hunter2@host/data'")
    with pytest.raises(SecurityRefused) as caught:
        rendered("job=job")
    assert "hunter2" not in caught.value.line()
    (folder / "parts" / "__init__.py").write_text("")
    for words in (
        ["--api-token=hunter2hunter2"],
        ["--api-token", "hunter2hunter2"],
        ["mysql://me:hunter2hunter2@host/db"],
    ):
        with pytest.raises(SecurityRefused) as caught:
            rendered("job=job", arguments=words)
        assert "hunter2" not in caught.value.line()


def test_the_command_says_what_the_pods_do_not_have(folder, capfd):
    assert main(["run", "train.py", "job=jobset", *JOB, "job.workers=2", "--", "--epochs", "3"]) == 0
    out, err = capfd.readouterr()
    assert next(yaml.safe_load_all(out))["kind"] == "ConfigMap"
    assert "the pods have train.py, parts/__init__.py, parts/model.py, units.py; what the script reads" in err
    assert main(["run", "job=jobset", *JOB]) == 64
    assert "no script was named" in capfd.readouterr().err
