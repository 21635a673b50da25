"""The house in numbers, and the rules that tests/test_structure.py holds: python -m tests.structure [ROOT]

Every import counts, those inside functions and under TYPE_CHECKING, too. A room is a package or a module at the top of
tfscale/; the floors rank rooms, and a room imports only from floors below its own. `from package import name` is an
import of the package's face.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the ground up. On the first floor a room may import those to its left.
FLOORS = (
    [
        "errors",
        "version",
        "files",
        "redaction",
        "user_code",
        "labels",
        "hooks",
        "task",
        "autograph",
        "console",
        "layers",
    ],
    ["hardware", "state", "config", "cluster", "process", "tracking", "statistics"],
    ["plan", "run_dir"],
    ["peers", "runtime", "data", "checkpoint", "models", "optimizers", "engine"],
    ["composition", "preflight", "assembly", "keras_task", "tabular", "text"],
    ["cli", "trained", "measures", "parameter_server", "recovery", "keras_fit"],
    [
        "export",
        "launch",
        "evaluator",
        "generate",
        "importer",
        "data_service",
        "report",
        "workflow",
        "doctor",
        "new_project",
        "sweep",
    ],
    ["run", "parity", "evaluate", "predict", "validation", "inspection", "serving", "promotion", "k8s", "run_folders"],
    ["train", "train_and_deploy", "configuration", "run_report", "__main__", "__init__"],
)
SPINE = ("train.py", "run", "plan", "runtime", "data/pipeline.py", "assembly", "engine")
TOP, LINES, FUNCTION, PARAMETERS = 15, 400, 60, 7
HOOKS = "hooks"  # the room of all that is private of others
# Private by name alone: documented by Python, or for those who extend fsspec; and what MLflow doesn't tell otherwise.
PERMITTED = {
    "": {"_exit", "_replace", "_asdict", "_fields"},
    "composition.hydra_compose": {
        "_left_out",
        "_overridden",
        "_settings",
        "_yaml",
    },  # of RunConfig, which reads them by properties
    "keras_fit.from_python": {"_overridden"},
    "run_dir.store_access": {"_strip_protocol"},
    "tracking.mlflow_sink": {"_active_experiment_id"},
}
# They have Keras's signature, or one that people call; each hands one typed object down.
PUBLIC = ("fit", "evaluate_model", "predict_model", "launch_workers")


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted names below tfscale and their files; "" is tfscale itself."""
    package = root / "tfscale"
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: Iterable[str], *, inside: bool = True) -> set[str]:
    """The modules of ours that a file imports; `inside` also in functions and under TYPE_CHECKING."""
    return {name for name in all_imports(path, known, inside=inside) if name in known}


def all_imports(path: Path, known: Iterable[str] = (), *, inside: bool = True) -> set[str]:
    """The same with those of others by their own names, ours without "tfscale."."""
    found: set[str] = set()

    def short(name: str) -> str:
        return name.removeprefix("tfscale").removeprefix(".") if name.split(".")[0] == "tfscale" else name

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if not inside and (
                isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            ):
                continue
            if isinstance(child, ast.Import):
                found.update(short(alias.name) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:
                    full = short(f"{child.module}.{alias.name}")
                    if full in known:
                        found.add(full)
                    found.add(short(child.module))  # Python runs the face first, and so it counts
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def room(name: str) -> str:
    return name.split(".")[0] or "__init__"


@functools.cache
def graph(root: Path = ROOT) -> dict[str, set[str]]:
    known = modules(root)
    return {name: imported(path, known) - {name, ""} for name, path in known.items()}


def rooms(imports: Mapping[str, set[str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, others in imports.items():
        found.setdefault(room(name), set()).update(room(other) for other in others if room(other) != room(name))
    return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Every set of rooms or modules that import each other, directly or not."""

    def reach(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for other in graph.get(todo.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return seen

    reached = {name: reach(name) for name in graph}
    found = {tuple(sorted(o for o in reached[n] if n in reached.get(o, ()))) for n in graph if n in reached[n]}
    return [list(circle) for circle in sorted(found)]


def upward(imports: Mapping[str, set[str]]) -> list[str]:
    """Imports of a room on the same floor or above."""
    floors = {name: (number, place) for number, floor in enumerate(FLOORS) for place, name in enumerate(floor)}
    found = []
    for name, others in imports.items():
        for other in others:
            mine, its = floors.get(room(name), (99, 0)), floors.get(room(other), (99, 0))
            below = its[0] < mine[0] or (its[0] == mine[0] == 0 and its[1] < mine[1])
            if room(name) != room(other) and not below:
                found.append(f"{name or 'tfscale'} -> {other}")
    return sorted(found)


def functions(root: Path = ROOT) -> Iterator[tuple[str, int, int]]:
    """(place, lines, parameters) of every function, self and cls left out."""
    for name, path in modules(root).items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args]
                own = bool(arguments) and arguments[0].arg in ("self", "cls")
                count = len(arguments) + len(node.args.kwonlyargs) - own
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                public = node.name in PUBLIC
                yield f"{name}:{node.name}", 0 if public else length, 0 if public else count


def spine(root: Path = ROOT) -> int:
    """Lines of what a newcomer reads first."""
    package = root / "tfscale"
    files = [
        f for place in SPINE for f in ([package / place] if place.endswith(".py") else (package / place).glob("*"))
    ]
    return sum(len(file.read_text().splitlines()) for file in files if file.suffix == ".py" and file.exists())


def _private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__") and name != "__internal__")


def _foreign(module: str) -> bool:
    return module.split(".")[0] not in {"tfscale", "recipes", *sys.stdlib_module_names}


def _private_module(module: str) -> bool:
    first, *parts = module.split(".")
    inside = first in ("tensorflow", "keras") and parts[:1] in (["python"], ["src"])
    return _foreign(module) and (inside or any(map(_private, parts)))


def _defined(tree: ast.AST) -> set[str]:
    """Names that this code gives to attributes, functions, classes and variables of its own."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return found


def private_access(path: Path, permitted: Iterable[str] = ()) -> list[str]:
    """What a file does with others' private names, as far as names tell: "line: what".

    That is modules, attributes (also of `self` below a class of others, and by getattr), and patches: attributes of
    imported modules and classes that are assigned, and `object.__setattr__` of anything but self.
    """
    tree = ast.parse(path.read_text())
    own = _defined(tree) | PERMITTED[""] | set(permitted)
    imported = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if _foreign(node.module or "" if isinstance(node, ast.ImportFrom) else alias.name)
    }
    known = {}  # below a class of others `self` has more than this file gives it
    for cls in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        if any(ast.unparse(base).split(".")[0] in imported for base in cls.bases):
            known.update(dict.fromkeys((id(node) for node in ast.walk(cls)), _defined(cls)))

    def wrong(node: ast.AST) -> bool:
        if isinstance(node, ast.Import):
            return any(_private_module(alias.name) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            return any(_private_module(f"{node.module}.{alias.name}") for alias in node.names)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value.startswith(("keras.src", "tensorflow.python"))
        if isinstance(node, ast.Call) and node.args:
            called, first = ast.unparse(node.func), ast.unparse(node.args[0])
            named = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else ""
            by_name = called in ("getattr", "hasattr", "setattr", "delattr") and isinstance(named, str)
            return first != "self" and ((by_name and _private(str(named))) or called == "object.__setattr__")
        if not isinstance(node, ast.Attribute):
            return False
        if isinstance(node.ctx, ast.Store) and ast.unparse(node.value).split(".")[0] in imported:
            return True
        if ast.unparse(node.value) in ("self", "cls", "super()"):
            return _private(node.attr) and node.attr not in known.get(id(node), {node.attr})
        return _private(node.attr) and node.attr not in own

    return [f"{node.lineno}: {ast.unparse(node)}" for node in ast.walk(tree) if wrong(node)]  # type: ignore[attr-defined]


def figures(root: Path = ROOT) -> dict[str, object]:
    """What `python -m tests.structure` prints."""
    known, imports = modules(root), graph(root)
    tops = [n for n, path in known.items() if n and "." not in n and path.name not in ("__init__.py", "__main__.py")]
    packages = [n for n, path in known.items() if n and "." not in n and path.name == "__init__.py"]
    sizes = {name: len(path.read_text().splitlines()) for name, path in known.items()}
    found = list(functions(root))
    ofrooms, ofmodules = circles(rooms(imports)), circles(imports)
    longest, most = max(found, key=lambda f: f[1]), max(found, key=lambda f: f[2])
    return {
        "files": len(known),
        "lines": sum(sizes.values()),
        "modules at the top": len(tops),
        "packages": len(packages),
        "floors": len(FLOORS),
        "circles of rooms": len(ofrooms),
        "circles of modules": f"{len(ofmodules)} (largest {max(map(len, ofmodules), default=0)})",
        "upward imports": len(upward(imports)),
        f"files over {LINES} lines": sum(size > LINES for size in sizes.values()),
        "longest function": f"{longest[1]} ({longest[0]})",
        "most parameters": f"{most[2]} ({most[0]})",
        f"functions over {PARAMETERS} parameters": sum(count > PARAMETERS for *_, count in found),
        "lines of the spine": spine(root),
    }


def main(roots: list[str]) -> None:
    columns = [figures(Path(root)) for root in roots or [str(ROOT)]]
    for name in columns[0]:
        print(f"{name:<30}", *(f"{column[name]!s:<42}" for column in columns))


if __name__ == "__main__":
    main(sys.argv[1:])
