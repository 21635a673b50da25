"""The house rules: layers, no circles, TensorFlow only where it belongs, small files and functions."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tfscale"

# A module may import modules of its own or a lower layer.
LAYERS = {
    0: (
        "errors",
        "version",
        "labels",
        "user_code",
        "hardware",
        "redaction",
        "files",
        "console",
        "cluster",
        "config",
        "process",
        "run_dir",
        "composition",
    ),
    1: ("plan", "k8s"),
    2: (
        "runtime",
        "autograph",
        "task",
        "state",
        "data",
        "layers",
        "models",
        "checkpoint",
        "tracking",
        "export",
        "keras_task",
    ),
    3: ("engine",),
    4: ("run", "preflight", "peers", "parity", "launch", "trained"),
    5: ("cli", "train", "evaluate", "predict", "__main__"),
}
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
    "run.surroundings",
    "run.data_errors",
    "run.finish",
    "run.built_model",
    "run.counted",
    "run.same_state",
    "run.tracked",
    "run.recovery",
    "process.stopping",
    "console",
    "files",
    "run_dir.lease",
    "run_dir.attempts",
    "run_dir.goodput",
    "process.watchdog",
    "process.maintenance",
    "run_dir.manifest",
    "run_dir.store_access",
    "run_dir.store_fence",
    "run_dir.store",
    "run_dir.store_copy",
    "train",
    "evaluate",
    "predict",
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
    "hardware",
    "cluster",
    "data.source",
    "data.tfds",
    "data.mnist",
    "data.synthetic",
    "data.records",
    "data.bad_records",
    "data.reach",
    "data.prepare",
    "run.keras_fit",
    "trained.warm_start",
    "redaction",
    "user_code",
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
    "tracking.mlflow",
    "tracking.mlflow_sink",
    "tracking.delivery",
    "tracking.spool",
    "tracking.train_job",
    "models.resnet",
    "recipes.resnet",
)
MAX_FILE, MAX_FUNCTION = 420, 60


@functools.cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


def layer(name: str) -> int:
    parts = name.split(".")
    top = parts[-1] if parts[-1] == "__main__" else parts[0]  # the door of a package is a door
    for number, names in LAYERS.items():
        if top in names:
            return number
    raise AssertionError(f"{name} stands on no layer: add it to LAYERS")


def imports(path: Path, *, top_level_only: bool) -> set[str]:
    """The modules that a file imports, outside `if TYPE_CHECKING`."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if top_level_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:  # `from package import module` is an import of the module alone
                    full = f"{child.module}.{alias.name}"
                    found.add(full if full.removeprefix("tfscale.") in modules() else child.module)
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def own_imports(path: Path, **kind) -> set[str]:
    known = modules()
    return {name.removeprefix("tfscale.") for name in imports(path, **kind) if name.removeprefix("tfscale.") in known}


@pytest.mark.parametrize("name", modules())
def test_only_lower_layers_are_imported(name):
    for other in own_imports(modules()[name], top_level_only=False):
        assert layer(other) <= layer(name), f"{name} (layer {layer(name)}) imports {other} (layer {layer(other)})"


def test_siblings_of_parts_share_only_task_state_and_graphs():
    allowed = {"task", "state", "autograph"}
    for name, path in modules().items():
        if layer(name) != 2:
            continue
        for other in own_imports(path, top_level_only=False):
            same = other.split(".")[0] == name.split(".")[0] or layer(other) != 2
            models_to_layers = name.startswith("models") and other.startswith("layers")
            tasks_to_data = name.startswith("keras_task") and other.startswith("data")  # pictures for somebody's model
            fits = (
                same
                or models_to_layers
                or tasks_to_data
                or other.split(".")[0] in {"runtime", "state"}
                or other in allowed
            )
            assert fits, f"{name} imports its sibling {other}"


def test_no_circles():
    graph = {name: own_imports(path, top_level_only=True) for name, path in modules().items()}
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in graph[name]:
                if other != name:
                    walk(other, (*trail, name))
            done.add(name)

    for name in graph:
        walk(name, ())


@pytest.mark.parametrize("name", [n for n in modules() if layer(n) <= 1])
def test_no_tensorflow_in_facts_and_decisions(name):
    heavy = {"tensorflow", "keras", "tensorflow_datasets", "mlflow"}
    assert not {i.split(".")[0] for i in imports(modules()[name], top_level_only=True)} & heavy


def test_light_modules_leave_tensorflow_alone():
    code = "import sys, importlib\nfor n in sys.argv[1:]: importlib.import_module('tfscale.' + n)\n"
    code += "bad = {'tensorflow', 'keras', 'mlflow', 'hydra', 'fsspec'} & set(sys.modules)\nassert not bad, bad"
    subprocess.run([sys.executable, "-c", code, *LIGHT], check=True)


def test_tfscale_never_imports_recipes():
    for name, path in modules().items():
        assert not any(i.startswith(("recipes", "tfscale.recipes")) for i in imports(path, top_level_only=False)), name


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*.py")) + list(modules().values()), ids=lambda p: p.name)
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{node.name} has {length} lines"


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is(name):
    assert ast.get_docstring(ast.parse(modules()[name].read_text()))


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*.py")) + list(modules().values()), ids=lambda p: p.name)
def test_no_default_holds_the_environment(path):
    """A signature shows its defaults, in help(), editors and generated pages, and environments hold passwords."""
    for node in ast.walk(ast.parse(path.read_text())):
        defaults: list[ast.expr | None] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            defaults = [*node.args.defaults, *node.args.kw_defaults]
        elif isinstance(node, ast.ClassDef):  # the fields of a dataclass
            defaults = [child.value for child in node.body if isinstance(child, ast.Assign | ast.AnnAssign)]
        for default in defaults:
            text = ast.unparse(default) if default is not None else ""
            assert "environ" not in text and "getenv" not in text, f"{path.name}:{node.lineno}: {text}"


def test_public_names():
    import tfscale

    names = (
        "Checkpointer Cluster ExecutionPlan Hardware PlanRequest Result RunConfig Source Task Tracker Trainer"
        " compose export_model fit launch_workers make_plan probe"
    )
    assert tfscale.__all__ == sorted(names.split())
    for name in tfscale.__all__:
        assert getattr(tfscale, name).__doc__, name
