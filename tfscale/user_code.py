"""Code of people's own, named in a configuration: whether it is there, told without running it, and its import.

Owns the look into their files, so that a misspelt name costs no start of TensorFlow, and the error that names the line
of theirs that fails. Refuses to decide what may be imported: plug_points.py does.

    check_code_exists("my_models.small", key="task.model")    # UsageError; nothing is imported
    function = load_code("my_models.small", key="task.model")
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from tfscale.errors import TfscaleError, UsageError, first_line, nearest, place_of

_ENTRY = "import sys; sys.path[:0] = sys.argv[2:]; from tfscale.user_code import child; sys.exit(child(sys.argv[1]))"
_LAZY = ("__getattr__", "__path__", "globals", "exec", "setattr")  # with these a module may have more than is written


def check_code_exists(name: str, *, key: str) -> None:
    """Raises UsageError where there is no such module, where its file isn't Python, or where it has no such name."""
    module, _, attribute = name.rpartition(".")
    if not module or module in sys.modules:
        _look(module, attribute, key)
        return
    spec = _find(module, key)
    file = Path(spec.origin) if spec is not None and spec.origin else None
    if file is None or file.suffix != ".py" or not file.is_file():
        return  # compiled, or made by something of its own: its import will tell
    names = _names(file, key)
    if names is not None and attribute not in names:
        raise _no_name(module, attribute, sorted(names), key, str(file))


def load_code(name: str, *, key: str) -> Any:
    """Imports it; raises UsageError, naming the line of theirs that fails."""
    check_code_exists(name, key=key)
    module, _, attribute = name.rpartition(".")
    try:
        found = importlib.import_module(module)
    except TfscaleError:
        raise
    except Exception as error:  # whatever people's code raises
        raise UsageError(
            f"{module} can't be imported: {type(error).__name__}: {first_line(error)}",
            where=place_of(error) or key,
            fix=f"mend it: python -c 'import {module}' must work",
        ) from error
    if not hasattr(found, attribute):
        raise _no_name(module, attribute, dir(found), key, str(getattr(found, "__file__", "")))
    return getattr(found, attribute)


def load_code_apart(name: str, *, key: str) -> None:
    """`load_code` in a process of its own, for one that mustn't start TensorFlow yet; raises UsageError."""
    command = [sys.executable, "-c", _ENTRY, json.dumps([name, key]), *(path or os.getcwd() for path in sys.path)]
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == UsageError.exit_code:
        raise UsageError(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode:
        tail = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UsageError(f"{name} can't be imported: {tail[0][:300]}", where=key)


def child(order: str) -> int:
    """That process's whole work."""
    name, key = json.loads(order)
    try:
        load_code(name, key=key)
    except UsageError as error:
        print()
        print(json.dumps({"what": error.what, "where": error.where, "fix": error.fix}))
        return error.exit_code
    return 0


def _look(module: str, attribute: str, key: str) -> None:
    if not module:
        raise UsageError(f"{attribute!r} names no function in a module", where=key, fix=f"write {key}=MODULE.FUNCTION")
    found = sys.modules[module]
    if not hasattr(found, attribute):
        raise _no_name(module, attribute, dir(found), key, str(getattr(found, "__file__", "")))


def _find(module: str, key: str) -> ModuleSpec | None:
    """Where a module lies, found without importing the packages around it; None where only their import would tell."""
    spec, path, parent = None, None, ""
    for part in module.split("."):
        name = f"{parent}.{part}".lstrip(".")
        spec = _spec(name, path) if path is not None or not parent else None  # without a path it would begin anew
        if spec is None:
            if parent and _is_lazy(parent):
                return None
            raise UsageError(
                f"there is no module {name!r}{nearest(part, _neighbours(path))}",
                where=key,
                fix=f"run the command in the folder that holds {part}.py, or install its package"
                if not parent
                else f"correct {key}: {parent} has no {part}",
            )
        path, parent = spec.submodule_search_locations, name
    return spec


def _spec(name: str, path: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except (AttributeError, ImportError, ValueError):  # a finder of another kind, or a name it can't take
            continue
        if spec is not None:
            return spec
    return None


def _is_lazy(package: str) -> bool:
    """Whether a package's own file finds submodules otherwise than in its folder."""
    spec = sys.modules[package].__spec__ if package in sys.modules else _find(package, "")
    file = Path(spec.origin) if spec is not None and spec.origin else None
    return file is None or not file.is_file() or any(word in file.read_text(errors="replace") for word in _LAZY)


def _neighbours(path: Any) -> list[str]:
    folders = list(path) if path is not None else [p for p in (os.getcwd(), *sys.path[:1]) if os.path.isdir(p)]
    return sorted({file.stem for folder in folders for file in Path(folder).glob("*.py")})


def _names(file: Path, key: str) -> set[str] | None:
    """What a module's file binds at its top, None where that can't be told by looking at it."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UsageError(f"{key} names code that isn't Python: {first_line(error)}", where=f"{file}{line}") from None
    words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found = set(_bound(tree.body))
    return None if "*" in found or (words | found) & set(_LAZY) else found


def _bound(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
        for one in ast.walk(node):
            if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                yield one.id
            elif isinstance(one, ast.Global):
                yield from one.names
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _bound(getattr(node, part, []))
        for inner in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
            yield from _bound(inner.body)


def _no_name(module: str, attribute: str, names: list[str], key: str, file: str) -> UsageError:
    what = f"{module} has no {attribute!r}{nearest(attribute, names)}"
    return UsageError(what, where=file or key, fix=f"correct {key}")
