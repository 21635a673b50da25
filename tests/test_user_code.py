"""Code of people's own: what is missing is told at once, what fails is told with its line, both before anything is left."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tfscale.errors import UsageError
from tfscale.user_code import check_code_exists, load_code, load_code_apart

# Fails where it is imported: the surest proof that it is only looked at.
MODELS = """
import os.path as place
from json import loads as read, dumps
try:
    import nothing_of_that_name
except ImportError:
    nothing_of_that_name = None
if place:
    def late(): ...
LEFT, (MIDDLE, *RIGHT) = 1, (2, 3)
class Net:
    def inner(self): ...
def build():
    global declared
    declared = 1
with open(__file__) as me: pass
raise RuntimeError("imported")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "theirs" / "models.py").write_text(MODELS)
    (tmp_path / "anything.py").write_text("def __getattr__(name): return name\n")
    (tmp_path / "stars.py").write_text("from json import *\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("theirs", "anything", "stars", "broken", "fails"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "name", ["late", "LEFT", "MIDDLE", "RIGHT", "Net", "build", "declared", "me", "place", "read", "dumps",
             "nothing_of_that_name"]
)  # fmt: skip
def test_what_is_there_is_found_without_an_import(here, name):
    check_code_exists(f"theirs.models.{name}", key="task.model")


@pytest.mark.parametrize("name", ["anything.you_like", "stars.loads", "json.loads", "keras.applications.ResNet50",
                                  "tfscale.models.resnet.build", "math.sqrt"])  # fmt: skip
def test_what_cannot_be_told_by_looking_is_left_to_the_import(here, name):
    check_code_exists(name, key="task.model")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("thiers.models.build", "no module 'thiers'"),
        ("theirs.model.build", "no module 'theirs.model'; did you mean 'models'?"),
        ("theirs.models.biuld", "theirs.models has no 'biuld'; did you mean 'build'?"),
        ("theirs.models.inner", "has no 'inner'"),
        ("theirs.models.build.more", "no module 'theirs.models.build'"),
        ("broken.f", "isn't Python: invalid syntax"),
        ("build", "names no function in a module"),
        ("json.laods", "json has no 'laods'; did you mean 'loads'?"),
    ],
)
def test_what_is_missing_is_told_without_an_import(here, name, told):
    with pytest.raises(UsageError, match="task.model|broken.py:1|models.py|json") as caught:
        check_code_exists(name, key="task.model")
    assert told in str(caught.value)


def test_an_error_inside_names_its_line_here_and_in_a_child(here):
    (here / "fails.py").write_text("import json\n\n\ndef load():\n    return json.loads('{')\n\n\nload()\n")
    for load in (load_code, load_code_apart):
        with pytest.raises(UsageError, match="fails can't be imported: JSONDecodeError") as caught:
            load("fails.load", key="task.model")
        assert caught.value.where == "fails.py:5 in load"
    (here / "fails.py").write_text("import broken\n\ndef load(): ...\n")
    sys.modules.pop("fails", None)
    for load in (load_code, load_code_apart):
        with pytest.raises(UsageError, match="fails can't be imported: SyntaxError") as caught:
            load("fails.load", key="task.model")
        assert caught.value.where == "broken.py:1"


TABLE = "a,b,kind\n" + "".join(f"{i},{i * 7 % 5},{i % 3}\n" for i in range(30))
MODEL = """import keras
def small():
    m = keras.Sequential([keras.layers.Dense(3, activation="softmax")])
    m.compile("sgd", "sparse_categorical_crossentropy")
    return m
"""
RUN = ("train", "task=keras", "extensions.allow=[mine.]", "data=csv", "data.path=t.csv", "data.label=kind",
       "train.until=1ep", "train.global_batch=10")  # fmt: skip
INSTALLED = (str(Path(sys.executable).with_name("tfscale")),)


@pytest.fixture
def program(cli, tmp_path):
    """The installed program in a folder with a table and the file mine.py."""
    (tmp_path / "t.csv").write_text(TABLE)

    def run(content, *arguments, **kind):
        (tmp_path / "mine.py").write_text(content)
        return cli(*RUN, *arguments, program=INSTALLED, **kind)

    return run


@pytest.mark.parametrize("name", ["mine.smal", "mine2.small", "mine.small.x"])
@pytest.mark.parametrize("dry", [(), ("plan.dry_run=true",)])
def test_a_misspelt_name_is_told_within_seconds_and_leaves_nothing(program, tmp_path, name, dry):
    ended = program("import tensorflow\n" + MODEL, f"task.model={name}", "extensions.allow=[mine.,mine2.]", *dry)
    assert ended.code == 64 and ended.seconds < 5, ended.err
    assert name.rpartition(".")[2 if name == "mine.smal" else 0] in ended.err
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "mine.py"}


def test_an_error_at_the_import_leaves_nothing(program, tmp_path):
    for more in ((), ("plan.dry_run=true",)):
        ended = program(MODEL + "small(1)\n", "task.model=mine.small", *more)
        assert ended.code == 64, ended.err
        assert "TypeError: small() takes 0 positional arguments but 1 was given | mine.py:6 |" in ended.err
        assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"t.csv", "mine.py"}


def test_the_installed_program_finds_the_current_folder(program, tmp_path):
    """Also of a module that starts TensorFlow as it is imported."""
    ended = program(MODEL + "flip = keras.layers.RandomFlip()\n", "task.model=mine.small", "tracker=none", "run.dir=r")
    assert ended.code == 0, ended.err
    assert "plan's are not applied" not in ended.err
    assert (tmp_path / "r" / "result.json").exists()
