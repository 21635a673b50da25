"""The house rules: floors, no circles, TensorFlow only where it belongs, small files and functions."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import structure
from packaging.requirements import Requirement
from packaging.version import Version
from structure import ROOT, all_imports, graph, modules

import tfscale

# Importing these must not import TensorFlow: a run is planned, and refused, without it.
LIGHT = (
    "launch.__main__",
    "launch.workers",
    "parity.__main__",
    "parity.check",
    "parity.worker",
    "parity.report",
    "task",
    "run.api",
    "run.attempt",
    "run_dir.evaluated",
    "preflight",
    "run.session",
    "run.periodic_evaluation",
    "run.training_report",
    "run.context",
    "recovery.data_errors",
    "run.finish",
    "assembly.parts",
    "run.building",
    "assembly.assembled",
    "measures.counted",
    "recovery.same_state",
    "run.tracked",
    "recovery.roll_back",
    "process.stopping",
    "console",
    "files",
    "run_dir.lease",
    "run_dir.attempts",
    "run_dir.goodput",
    "process.watchdog",
    "process.maintenance",
    "run_dir.manifest",
    "run_dir.choice",
    "run_dir.store_access",
    "run_dir.store_fence",
    "run_dir.store",
    "run_dir.store_copy",
    "train",
    "evaluate",
    "predict",
    "report.report_request",
    "trained.restored_run",
    "trained.predictions",
    "export.run_export",
    "export.verified",
    "export.__main__",
    "k8s.manifests",
    "k8s.__main__",
    "k8s.apply",
    "k8s.configuration",
    "k8s.plans",
    "cli",
    "plan.execution_plan",
    "config.schema",
    "run_dir.experiment",
    "composition.hydra_compose",
    "composition.composed_places",
    "composition.value_origins",
    "config.settings_files",
    "doctor.__main__",
    "hardware.probing",
    "cluster",
    "data.source",
    "data.tfds",
    "data.mnist",
    "data.canvas",
    "data.synthetic",
    "data.records",
    "data.bad_records",
    "data.reach",
    "data.prepare",
    "keras_fit.from_python",
    "keras_fit.arguments",
    "keras_fit.callbacks",
    "data.keras_source",
    "trained.warm_start",
    "redaction",
    "user_code",
    "hooks.keras_hooks",
    "hooks.tensorflow_hooks",
    "keras_task.file",
    "keras_task.given_model",
    "keras_task.kept",
    "keras_task.named",
    "data.arrays",
    "data.given",
    "data.plain_arrays",
    "keras_task.label_kinds",
    "keras_task.fixed_batch",
    "labels",
    "data.csv",
    "data.folder_tree",
    "data.image_folder",
    "data.index_file",
    "data.numpy_files",
    "data.pictures",
    "data.tfrecord",
    "data.prepared",
    "importer.__main__",
    "importer.dataset",
    "importer.frames",
    "importer.shard_writer",
    "importer.tables",
    "text.rows",
    "text.text_task",
    "text.given_texts",
    "models.transformer",
    "tracking.mlflow",
    "tracking.mlflow_sink",
    "tracking.delivery",
    "tracking.spool",
    "tracking.train_job",
    "models.resnet",
    "run_folders.__main__",
    "run_folders.compare_runs",
    "run_folders.clean_runs",
    "run_report.__main__",
    "run_report.run_page",
    "new_project.__main__",
    "tabular.tabular_task",
    "recipes.resnet",
)
FILES = [*modules().values(), *sorted(ROOT.glob("recipes/*.py"))]


def test_every_room_stands_on_a_floor_and_few_modules_on_top():
    rooms = {structure.room(name) for name in modules()}
    floors = [name for floor in structure.FLOORS for name in floor]
    assert rooms == set(floors) and len(floors) == len(set(floors))
    tops = [name for name, path in modules().items() if "." not in name and path.name[:2] != "__"]
    assert len(tops) <= structure.TOP and len(structure.FLOORS) <= 9


def test_only_lower_floors_are_imported():
    assert structure.upward(graph()) == []


def test_every_package_is_installed():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {f"tfscale.{name}".rstrip(".") for name, path in modules().items() if path.name == "__init__.py"}
    assert set(told) == found | {"tfscale.configs", "tfscale.recipes"}


def test_no_circles():
    assert structure.circles(structure.rooms(graph())) == []
    assert structure.circles(graph()) == []


def test_the_rules_see_what_they_forbid(tmp_path):
    for name, text in {
        "errors.py": "",
        "hardware.py": "def f():\n    from tfscale.plan.a import x\n",
        "plan/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tfscale.plan import b\n",
        "plan/b.py": "import tfscale.plan.a\nfrom tfscale import hardware\n",
        "plan/__init__.py": "def long(a, b, c, d, e, f, g, h): pass\n",
    }.items():
        path = tmp_path / "tfscale" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = graph(tmp_path)
    assert structure.upward(found) == ["hardware -> plan.a"]
    assert structure.circles(structure.rooms(found)) == [["hardware", "plan"]]
    assert [name for name in structure.circles(found)[0] if name.startswith("plan.")] == ["plan.a", "plan.b"]
    assert ("plan:long", 1, 8) in list(structure.functions(tmp_path))


@pytest.mark.parametrize("floor", range(3))
def test_no_tensorflow_in_facts_and_decisions(floor):
    heavy = {"tensorflow", "keras", "tensorflow_datasets", "mlflow"}
    parts = {"autograph", "layers", "state"}  # what is traced
    for name, path in modules().items():
        if structure.room(name) in set(structure.FLOORS[floor]) - parts:
            assert not {i.split(".")[0] for i in all_imports(path, inside=False)} & heavy, name


def test_what_is_private_of_others_stands_in_one_room():
    names = {path: name for name, path in modules().items()}
    for path in FILES:
        name = names.get(path, "")
        if structure.room(name) != structure.HOOKS:
            found = structure.private_access(path, structure.PERMITTED.get(name, ()))
            assert not found, f"{path}: make it a function of tfscale/hooks, with a test in tests/hooks: {found}"


PRIVATE = """
import keras
from tensorflow.python.framework import config
import tensorflow as tf
class Own(keras.layers.Layer):
    def __init__(self): self._mine = self._layers
def f(model, self):
    model._flatten_layers()
    getattr(model, "_compile_loss", None)
    tf.__internal__.autograph
    keras.Model.fit = f
    object.__setattr__(model, "optimizer", None)
    model.__module__.startswith("keras.src.ops.")
"""


def test_private_access_is_seen(tmp_path):
    (tmp_path / "it.py").write_text(PRIVATE)
    found = structure.private_access(tmp_path / "it.py")
    assert sorted({int(line.split(":")[0]) for line in found}) == [3, 6, 8, 9, 10, 11, 12, 13]
    for plain in (
        "self._x",
        "os._exit(1)",
        "point._replace(x=1)",
        "import _thread",
        "object.__setattr__(self, 'a', 1)",
    ):
        (tmp_path / "it.py").write_text(plain)
        assert structure.private_access(tmp_path / "it.py") == [], plain


def test_light_modules_leave_tensorflow_alone():
    code = "import sys, importlib\nfor n in sys.argv[1:]: importlib.import_module('tfscale.' + n)\n"
    code += "bad = {'tensorflow', 'keras', 'mlflow', 'hydra', 'fsspec'} & set(sys.modules)\nassert not bad, bad"
    subprocess.run([sys.executable, "-c", code, *LIGHT], check=True)


def test_tfscale_never_imports_recipes():
    for name, path in modules().items():
        assert not any(i.startswith("recipes") for i in all_imports(path)), name


def test_no_two_modules_share_a_name():
    """A stem says which file is meant, in a message as in a talk."""
    seen: dict[str, str] = {}
    for name, path in modules().items():
        if path.stem not in ("__init__", "__main__"):
            assert path.stem not in seen, f"{name} and {seen[path.stem]}"
            seen[path.stem] = name


def test_loggers_stand_below_ours():
    """A program that is started by its name is `__main__`."""
    for name, path in modules().items():
        text = path.read_text()
        if '__name__ == "__main__"' in text:
            assert "getLogger(__name__)" not in text, name


def test_files_and_functions_stay_small():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= structure.LINES, path
    for place, lines, parameters in structure.functions():
        assert lines <= structure.FUNCTION, place
        assert parameters <= structure.PARAMETERS, place


def test_the_walk_and_the_table_name_what_there_is():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    walk = text[text.index("## A walk") : text.index("## Rules")]
    hops = [line for line in walk.splitlines() if line[:1].isdigit()]
    named = [line.split("`")[1] for line in hops]
    assert len(named) > 20 and all((ROOT / name).is_file() for name in named), named
    assert max(int(line.split(".")[0]) for line in hops) <= 8
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    told = {name.strip("`/"): int(number) for _, number, rooms, *_ in rows for name in rooms.split()}
    floors = {name: number for number, floor in enumerate(structure.FLOORS, 1) for name in floor}
    assert told == {name: number for name, number in floors.items() if name != "__init__"}


def test_the_budgets_are_those_of_ci():
    given = re.search(r"^tiers=\((.*)\)$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert given is not None
    table = re.findall(r"^\| `([\w-]+)`.* \| (\d+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert [f"{name}:{minutes}" for name, minutes in table] == given[1].split()


def test_every_module_says_what_it_is():
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_no_default_holds_the_environment():
    """A signature shows its defaults, in help(), editors and generated pages, and environments hold passwords."""
    for path, node in ((file, node) for file in FILES for node in ast.walk(ast.parse(file.read_text()))):
        defaults: list[ast.expr | None] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            defaults = [*node.args.defaults, *node.args.kw_defaults]
        elif isinstance(node, ast.ClassDef):  # the fields of a dataclass
            defaults = [child.value for child in node.body if isinstance(child, ast.Assign | ast.AnnAssign)]
        for default in defaults:
            text = ast.unparse(default) if default is not None else ""
            assert "environ" not in text and "getenv" not in text, f"{path.name}:{node.lineno}: {text}"


def test_what_documents_name_is_where_it_was():
    """Modules and classes that README, docs, configurations and recipes have named since version 0.1."""
    for place in [
        "plan.Footprint",
        "plan.PlanRequest",
        "config.RunConfig",
        "errors.UsageError",
        "task.Task",
        "data.source.Source",
        "tracking.tracker.NoTracker",
        "tracking.mlflow.MlflowTracker",
        "keras_task.named.NamedModel",
        "keras_task.kept.KeptModel",
        "data.csv.Csv",
        "data.image_folder.ImageFolder",
        "data.numpy_files.NumpyFiles",
        "data.tfrecord.TfRecord",
        "data.tfds.Tfds",
        "data.prepared.Prepared",
        "data.mnist.Mnist",
        "data.canvas.Canvas",
        "data.fashion_mnist.FashionMnist",
        "data.synthetic.Synthetic",
        "layers.partitioned_embedding.PartitionedEmbedding",
        "composition.compose",
        "run.fit",
    ]:
        module, _, name = place.rpartition(".")
        assert getattr(importlib.import_module(f"tfscale.{module}"), name).__name__ == name


def test_the_changelog_knows_the_version():
    """What a release is named by, newest first; the program's own number is the newest or comes next."""
    first, *named = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", name) for name in named), named
    numbers = [Version(name.split()[0]) for name in named]
    assert numbers == sorted(set(numbers), reverse=True)
    assert Version(tfscale.__version__) >= max(numbers, default=Version("0"))


def test_public_names():
    names = (
        "Checkpointer Cluster ExecutionPlan Hardware PlanRequest Result RunConfig Source Task Tracker Trainer"
        " compose disable enable evaluate_model export_model fit import_table inspect_data is_chief launch_workers make_plan predict_model probe"
    )
    assert tfscale.__all__ == sorted(names.split()) == sorted(tfscale._HOMES)
    for name in tfscale.__all__:
        assert getattr(tfscale, name).__doc__, name


def test_fit_shows_its_arguments():
    """It takes what Keras's own fit takes, with the same defaults, and hands it down as one object."""
    import inspect

    import keras

    from tfscale.keras_fit.arguments import FitArguments

    taken = {name: one.default for name, one in inspect.signature(tfscale.fit).parameters.items()}
    held = {name: one.default for name, one in inspect.signature(FitArguments).parameters.items() if name != "model"}
    assert {name: taken[name] for name in held} == held
    assert set(taken) - set(held) == {"what", "data", "test", "environ", "say"}
    theirs = list(inspect.signature(keras.Model.fit).parameters.items())[1:]
    assert [(name, one.default) for name, one in theirs] == list(taken.items())[1 : 1 + len(theirs)]


def test_the_lowest_versions_are_those_of_pyproject():
    """`make test-versions` tests what pyproject.toml promises."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tried = ("mlflow", "digits", "tables", "text")
    given = [*project["dependencies"], *(one for extra in tried for one in project["optional-dependencies"][extra])]
    promised = {}
    for requirement in map(Requirement, given):
        (lowest,) = (spec.version for spec in requirement.specifier if spec.operator == ">=")
        promised[requirement.name] = lowest
        assert requirement.specifier.contains(metadata.version(requirement.name)), requirement
    lines = (ROOT / "tests/lowest.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: [*map(int, version.split("."))] for name, version in tested.items()} == {
        name: [*map(int, version.split(".")), 0, 0][:3] for name, version in promised.items()
    }
