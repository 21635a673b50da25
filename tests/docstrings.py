"""Examples in docstrings, as programs: python tests/docstrings.py FOLDER writes each for mypy, as `make check` does.

An example is a paragraph of a docstring that is indented. What it uses and neither makes nor finds in its module is
GIVEN by its type, or Any, such as the values of an array; what it calls has to be known. tests/test_docstrings.py runs
those of the public API.
"""

from __future__ import annotations

import ast
import builtins
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from structure import ROOT, modules

# Paragraphs that are no code: tables, other languages.
PROSE = {
    "cluster.kubernetes",
    "k8s.pod_file",
    "run.api",
    "run.periodic_evaluation",
    "recovery.roll_back",
    "run_dir.goodput",
}
GIVEN = {
    "cluster": "tfscale.cluster.Cluster",
    "config": "tfscale.config.schema.RunConfig",
    "plan": "tfscale.plan.execution_plan.ExecutionPlan",
    "run_dir": "tfscale.run_dir.folder.RunDir",
    "source": "tfscale.data.source.Source",
    "tracker_spec": "tfscale.tracking.tracker.TrackerSpec",
    "state": "tfscale.state.train_state.TrainState",
    "task": "tfscale.task.Task",
}
CALLED = {  # what is called and stands in no module that the docstring could import
    "Cluster": "tfscale.cluster",
    "EarlyStopping": "keras.callbacks",
    "GivenModel": "tfscale.keras_task.given_model",
    "Portion": "tfscale.data.order",
    "ResNet": "recipes.resnet",
    "Shard": "tfscale.data.order",
    "augmented": "tfscale.data.mixing",
    "build_dataset": "tfscale.data.pipeline",
    "compose": "tfscale.composition",
    "computed": "tfscale.serving.answering",
    "digest": "tfscale.run_dir.experiment",
    "feed": "tfscale.export.signature",
    "identity": "tfscale.config.schema",
    "import_mlflow": "tfscale.tracking.mlflow_sink",
    "make_ps_strategy": "tfscale.runtime.strategies",
    "mask_transforms": "tfscale.data.transforms",
    "parse_address": "tfscale.tracking.model_address",
    "probe": "tfscale.hardware",
    "read_counts": "tfscale.serving.service_metrics",
    "recognised": "tfscale.importer.recognise",
    "runtime": "tfscale",
    "stacked": "tfscale.export.saved_model",
    "transforms": "tfscale.data.transforms",
}


@dataclass(frozen=True)
class Example:
    """The code of one module's docstrings.

    Attributes:
        module: dotted name below tfscale.
        path: its file.
        code: the example, without the indentation.
    """

    module: str
    path: Path
    code: str

    def tree(self) -> ast.Module:
        return ast.parse(self.code, filename=str(self.path))


def examples(root: Path = ROOT) -> list[Example]:
    """Every example, in order of the modules."""
    return [
        Example(name, path, code)
        for name, path in modules(root).items()
        if name not in PROSE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for code in _paragraphs(ast.get_docstring(node) or "")
    ]


def _paragraphs(text: str) -> Iterator[str]:
    """Indented parts of a text that follow a blank line; what follows a heading, as below Args, is none."""
    found: list[str] = []
    before = ""
    for line in [*text.splitlines(), "end"]:
        if line.startswith("    ") and (found or not before.strip()):
            found.append(line)
        elif found and line.strip():
            yield textwrap.dedent("\n".join(found)).strip()
            found = []
        elif found:
            found.append(line)
        before = line


def _top_level(example: Example) -> dict[str, str]:
    """Names that a module defines or imports, also under TYPE_CHECKING, and the line that imports each."""
    found: dict[str, str] = {}
    todo: list[ast.AST] = list(ast.parse(example.path.read_text()).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = f"from tfscale.{example.module} import {node.name}"
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"from {node.module} import {ast.unparse(a)}" for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.asname or a.name.split(".")[0]: f"import {ast.unparse(a)}" for a in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = f"from tfscale.{example.module} import {node.id}"
        else:
            todo.extend(ast.iter_child_nodes(node))
    return found


class _Elided(ast.NodeTransformer):
    """`...` in place of an argument stands for all that are not shown, as a value for any; a body of `...` stays."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if any(isinstance(argument, ast.Constant) and argument.value is ... for argument in node.args):
            node.args = [one for one in node.args if not (isinstance(one, ast.Constant) and one.value is ...)]
            node.keywords.append(ast.keyword(None, ast.Name("elided", ast.Load())))
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return node if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return ast.Name("elided", ast.Load()) if node.value is ... else node


def program(example: Example) -> str:
    """The example with everything that it uses imported or declared, for a type checker.

    Raises:
        NameError: it calls what isn't there.
    """
    tree = example.tree()
    nodes = list(ast.walk(tree))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)} | {
        node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    own = _top_level(example)
    waits = any(isinstance(node, ast.Await) for node in nodes)  # it stands in some function's body
    lines = ["# mypy: disable-error-code=top-level-await"] * waits + ["from typing import Any", "elided: Any"]
    for name in sorted({node.id for node in names} - made):
        if name in own:
            lines.append(own[name])
        elif name in CALLED:
            lines.append(f"from {CALLED[name]} import {name}")
        elif name in GIVEN:
            module, _, kind = GIVEN[name].rpartition(".")
            lines.append(f"from {module} import {kind}; {name}: {kind}")
        elif name in vars(builtins):
            continue
        elif name in called:
            raise NameError(f"{example.path}: a docstring calls {name}(), which is neither there nor in CALLED")
        else:
            lines.append(f"{name}: Any")
    return "\n".join([*lines, ast.unparse(_Elided().visit(tree)), ""])


def main(folder: str) -> None:
    for number, example in enumerate(examples()):
        name = example.module.replace(".", "_")
        Path(folder).mkdir(parents=True, exist_ok=True)
        text = f"# {example.path.relative_to(ROOT)}\n{program(example)}"
        (Path(folder) / f"example_{number:02}_{name}.py").write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
