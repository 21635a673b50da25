"""A script as Python runs it: `sys.argv`, `sys.path[0]`, `__main__`, its errors and its exit code.

Owns what a script sees of how it was started, and what people see of how it ends. Refuses to know Keras.

    program = find_script("train.py")       # or find_module("mine.train")
    execute(program, ["--epochs", "3"])     # returns where the script ends, and raises SystemExit as it does
"""

from __future__ import annotations

import importlib.util
import inspect
import io
import linecache
import os
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType, TracebackType

from tfscale.console import last_line, leave_reason
from tfscale.console.messages import error_line
from tfscale.errors import DataMissing, TfscaleError, is_users, nearest

_OURS = str(Path(__file__).parents[2]) + os.sep
_former: list[ModuleType] = []
_MACHINERY = ("<frozen importlib", "<frozen runpy")


@dataclass(frozen=True)
class Program:
    """What is executed as `__main__`.

    Attributes:
        name: as people gave it.
        stem: names its run folder.
        first: `sys.argv[0]`.
        folder: `sys.path[0]`.
        spec: of a module or a folder.
    """

    name: str
    stem: str
    first: str
    folder: str
    spec: ModuleSpec | None = None


class Ended(SystemExit):
    """The end of a script that it must not take for an error of its own: it was told to end, or its peers are gone."""

    def __init__(self, error: TfscaleError):
        super().__init__(error.exit_code)
        self.error = error


def find_script(name: str) -> Program:
    """Raises DataMissing or UsageError where it can't be run."""
    path = Path(name)
    if path.is_dir():
        if not (path / "__main__.py").is_file():
            raise DataMissing(
                f"{name} is a folder without __main__.py", where=name, fix="name the script, or use -m package.module"
            )
        spec = importlib.util.spec_from_file_location("__main__", path.absolute() / "__main__.py")
        return Program(name, path.absolute().name, name, str(path.absolute()), spec)
    if not path.is_file():
        there = [one.name for one in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise DataMissing(
            f"there is no script {name}{nearest(path.name, there)}", where=name, fix="name a Python script"
        )
    return Program(name, path.stem, name, os.path.dirname(os.path.realpath(name)))


def find_module(name: str) -> Program:
    """Raises DataMissing where there is none; imports the packages that it lies in, as `python -m` does."""
    sys.path[0] = os.getcwd()
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        spec = None
    except Exception as error:  # of a package that it lies in
        _show(error)
        raise SystemExit(1) from None
    if spec is None or spec.origin is None or not isinstance(spec.loader, SourceFileLoader):
        raise DataMissing(f"there is no Python module {name}", where="-m", fix="write package.module, without .py")
    return Program(f"-m {name}", name, spec.origin, os.getcwd(), spec)


def execute(program: Program, arguments: list[str], *, whole_traceback: bool = False) -> None:
    """Executes it as `__main__`.

    Args:
        whole_traceback: of our own errors, too.

    Raises:
        SystemExit: it ends otherwise than by its last line.
        KeyboardInterrupt: likewise; what Python shows of it was shown.
    """
    sys.argv = [program.first, *arguments]
    sys.path[0] = program.folder
    module = _main_module(program)
    _former.append(sys.modules["__main__"])  # whose functions are at work
    sys.modules["__main__"] = module
    try:
        exec(_code(program), vars(module))
    except Ended as ended:
        _end(ended.error, whole_traceback)
    except SystemExit:
        raise
    except TfscaleError as error:
        _end(error, whole_traceback)
    except BaseException as error:
        _show(error)
        if isinstance(error, KeyboardInterrupt):
            sys.excepthook = lambda *_: None  # it has been shown, and Python ends by the signal
            raise
        raise SystemExit(1) from None


def refused(error: TfscaleError) -> int:
    """Shows an error of ours as the last line; returns its exit code."""
    leave_reason(error)
    last_line(error_line(error))
    return error.exit_code


def _code(program: Program) -> CodeType:
    if program.spec is not None:
        assert isinstance(program.spec.loader, SourceFileLoader)
        code = program.spec.loader.get_code(program.spec.name)
        assert code is not None
        return code
    file = os.path.abspath(program.name)
    with io.open_code(file) as stream:
        return compile(stream.read(), file, "exec", dont_inherit=True)


def _main_module(program: Program) -> ModuleType:
    module, spec = ModuleType("__main__"), program.spec
    file = os.path.abspath(program.name) if spec is None else spec.origin
    loader = SourceFileLoader("__main__", str(file)) if spec is None else spec.loader
    vars(module).update(
        __file__=file,
        __cached__=None if spec is None else spec.cached,
        __loader__=loader,
        __spec__=spec,
        __package__=None if spec is None else spec.parent,
        __builtins__=__builtins__,
    )
    return module


def _show(error: BaseException) -> None:
    """As Python shows it, without our frames."""
    sys.excepthook(type(error), error, _without_ours(error))


def _end(error: TfscaleError, whole_traceback: bool) -> None:
    """Our own error: the line of the script that it comes from, and its message."""
    if whole_traceback:
        sys.__excepthook__(type(error), error, error.__traceback__)
    elif place := _place(error.__traceback__):
        last_line(place)
    raise SystemExit(refused(error)) from None


def _place(trace: TracebackType | None) -> str:
    """ "script.py:31: model.fit(...)": the last line that isn't ours before the first that is."""
    found = ""
    if trace is not None:
        trace = trace.tb_next  # `execute`
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(_OURS):
        file = trace.tb_frame.f_code.co_filename
        if "site-packages" not in file.split(os.sep) and not file.startswith("<"):
            source = linecache.getline(file, trace.tb_lineno).strip()
            found = f"{os.path.relpath(file)}:{trace.tb_lineno}: {source}"
        trace = trace.tb_next
    return found


def _without_ours(error: BaseException | None, seen: frozenset[int] = frozenset()) -> TracebackType | None:
    """The error's traceback without our frames and those of the import; also of the errors behind it."""
    if error is None or id(error) in seen:
        return None
    seen |= {id(error)}
    for other in (error.__cause__, error.__context__):
        _without_ours(other, seen)
    frames: list[TracebackType] = []
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((_OURS, *_MACHINERY)):
            frames.append(trace)
        trace = trace.tb_next
    kept: TracebackType | None = None
    for frame in reversed(frames):
        kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    error.__traceback__ = kept
    return kept


def place_of_call() -> str:
    """Where the script, or a module of its own, has called what called us, such as "train.py:31"."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return "?"
    file = frame.f_code.co_filename
    near = os.path.relpath(file)
    return f"{file if near.startswith(os.pardir) else near}:{frame.f_lineno}"
