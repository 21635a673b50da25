"""Programs without the seconds of `import tensorflow`: a server has imported it and forks for each of them.

    process = warm.Popen([sys.executable, "-m", "tfscale.train", *overrides], cwd=..., env=..., stdout=PIPE)

Code that begins with `LIGHT` is a program that fails where TensorFlow is imported: a second server forks for those, which
has imported Hydra and its like alone.

It is a `subprocess.Popen` of a real process with its own pid, signals, session, environment and streams, which only
didn't begin by exec. The server has started nothing of TensorFlow: no operation, no device, no thread, so what a
program sets before TensorFlow starts still counts. It holds nothing of tfscale, which every program imports anew. A run
leaves the same bits (tests/test_train.py). Owns the servers, two for a process of pytest, and what a program finds as
after a start of Python. Refuses what a fork can't give: where a variable differs that TensorFlow, Keras or Python read
at an import, the command is started as ever; so it is where a test is marked `cold` or
`container`.

Two things differ: the matmul peak, a figure of a run's result, is taken from a small product in little time; and what
a program starts to prepare data, to check an export or as its workers is forked, too.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import io
import logging
import os
import pickle
import re
import runpy
import select
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_PROGRAM = re.compile(r"tfscale(\.(train|evaluate|predict|export|importer|launch|parity|parity\.worker|run))?$")
# Read when TensorFlow, Keras, NumPy or Python itself are imported
_AT_IMPORT = re.compile(r"TF_|KERAS|CUDA|XLA|OMP_|OPENBLAS|MKL|GRPC|ABSL|LD_|MALLOC|LANG$|LC_|PYTHON")
# Read later, or given on
_LATER = ("TF_CONFIG", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_CPU_ALLOCATOR_USE_BFC", "PYTHONPATH")
_ODD = {"preexec_fn", "pass_fds", "umask", "user", "group", "extra_groups", "process_group", "executable", "shell"}
_MOST = 2**20  # bytes of a request
_START = "import sys; sys.path.insert(0, sys.argv[1]); from support import warm; del sys.path[:2]; warm.serve()"
_CODE = "-c"  # of Python
LIGHT = "import sys; sys.modules['tensorflow'] = None; "

spent = 0.0  # processor seconds of the programs that have ended
_address = ""  # where the server listens, once there is one
_imported_with: dict[str, str] = {}


class Popen(subprocess.Popen):
    """Popen with its arguments; `cold` starts Python."""

    _line: socket.socket | None = None

    def __init__(self, command: Sequence[str], *, cold: bool = False, **options: Any):
        self._cold = cold or not _can_be_forked(command, options)
        super().__init__(command, **options)

    # private in subprocess, alike in Python 3.11 to 3.13: what starts a process, and what asks for its end
    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others):  # type: ignore
        if self._cold:
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others)
            return
        pipes, new_session = others[3:9], others[-2]  # of each stream the child's end and ours, or the other way round
        request = {
            "argv": list(map(str, args))[1:],
            "cwd": os.path.abspath(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "new_session": new_session,
            "cores": os.sched_getaffinity(0),
        }
        given = [fd if fd != -1 else number for number, fd in enumerate((pipes[0], pipes[3], pipes[5]))]
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(_server(_is_light(command=args)), [pickle.dumps(request)], [*given, theirs.fileno()])
        self.pid = int(self._line.recv(64) or _fail())
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _internal_poll(self, _deadstate=None, **private):  # type: ignore
        if self._line is None:
            return super()._internal_poll(_deadstate, **private)
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                pid, status = self._try_wait(os.WNOHANG) if self.returncode is None else (0, 0)
                if pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, wait_flags):  # type: ignore
        global spent
        if self._line is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc]
        try:
            told = self._line.recv(64, socket.MSG_DONTWAIT if wait_flags & os.WNOHANG else 0)
        except BlockingIOError:
            return 0, 0
        status, seconds = (told or _fail()).split()
        spent += float(seconds)
        self._line.close()
        return self.pid, int(status)


def run(
    command: Sequence[str],
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess:
    """`subprocess.run`."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    if capture_output:
        options["stdout"] = options["stderr"] = subprocess.PIPE
    with Popen(command, **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


class _PopenOfModules(Popen):
    """Code is what tests give in the place of a worker's program; it is light. What a shell would keep waiting begins at
    once."""

    def __init__(self, command: Sequence[str], **options: Any):
        if command[0] == "/bin/sh" and list(command[3:4]) == ["sh"]:
            command = command[4:]
        super().__init__(command, cold=list(command[1:2]) != ["-m"], **options)


# What stands in the place of `subprocess` in modules of ours that start Python
_OWNERS = {
    "tfscale.data.prepare": SimpleNamespace(run=run),
    "tfscale.export.verify": SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired),
    "tfscale.process.children": SimpleNamespace(
        Popen=_PopenOfModules,
        PIPE=subprocess.PIPE,
        DEVNULL=subprocess.DEVNULL,
        TimeoutExpired=subprocess.TimeoutExpired,
    ),
}


def _can_be_forked(command: Sequence[str], options: Mapping[str, Any]) -> bool:
    python = command[0] == sys.executable and sys.platform == "linux" and not options.keys() & _ODD
    if not python or not (command[1] == _CODE or (command[1] == "-m" and _PROGRAM.match(command[2]))):
        return False
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        return False  # lines are counted from the start of a process
    _server(_is_light(command))
    return _at_import(options.get("env") or os.environ) == _imported_with


def _is_light(command: Sequence[str]) -> bool:
    return command[1] == _CODE and command[2].startswith(LIGHT)


def _at_import(environ: Mapping[str, str]) -> dict[str, str]:
    found = {name: value for name, value in environ.items() if _AT_IMPORT.match(name) and name not in _LATER}
    return {"KERAS_BACKEND": "tensorflow", **found}  # which programs of ours set before they import


def _fail() -> bytes:
    raise RuntimeError("the warm server is gone")


@functools.cache
def _server(light: bool = False) -> socket.socket:
    """A line to it; it ends with the process that started it."""
    global _address
    if _address and not light:  # a program that it has forked asks for another
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line.connect(_address)
        return line
    _imported_with.update(_at_import(os.environ))
    address = f"tfscale-{'light' if light else 'warm'}-{os.getpid()}"
    if not light:
        _address = f"\0{address}"
    line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, str(Path(__file__).parents[1]), str(theirs.fileno()), address],
            pass_fds=[theirs.fileno()],
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    @atexit.register
    def end() -> None:
        line.close()
        process.wait()

    return line


def serve() -> None:
    """The server's whole work, and that of each program."""
    global _address
    _address = f"\0{sys.argv[3]}"
    _imported_with.update(_at_import(os.environ))
    path = list(sys.path)
    _import(light="-light-" in _address)
    request = _next_request(socket.socket(fileno=int(sys.argv[2])))
    if request is not None:
        _become(request, path)


def _import(*, light: bool) -> None:
    """What programs of ours import of others, in the manner in which they do; they import tfscale itself."""
    from tfscale.console import hushed
    from tfscale.process.startup import begin_program, lean

    if light:
        sys.modules["tensorflow"] = None  # type: ignore[assignment]
    else:
        begin_program()
    for name in ("numpy", "yaml", "hydra", "rich.console", "rich.table", "rich.progress"):
        importlib.import_module(name)
    if not light:
        with hushed(), lean():
            importlib.import_module("tensorflow")
            importlib.import_module("keras")
    for known in (sys.modules, logging.root.manager.loggerDict):
        for name in [name for name in known if name.partition(".")[0] == "tfscale"]:
            del known[name]


def _next_request(life: socket.socket) -> dict[str, Any] | None:
    """Forks for each request; returns it in the child, and None in the server when nobody is left who asks."""
    waked, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(_address)
    listener.listen()
    lines, children = [life], {}
    while True:
        ready, _, _ = select.select([*lines, listener, waked], [], [])
        if waked in ready:
            os.read(waked, 4096)
            for pid in list(children):
                ended, status, usage = os.wait4(pid, os.WNOHANG)
                if ended:
                    with children.pop(pid) as teller:
                        _tell(teller, f"{status} {usage.ru_utime + usage.ru_stime}")
        if listener in ready:
            lines.append(listener.accept()[0])
        for line in [line for line in lines if line in ready]:
            message, given, _, _ = socket.recv_fds(line, _MOST, 4)
            if not message:
                lines.remove(line)
                line.close()
                if line is life:
                    return None
                continue
            request = pickle.loads(message)
            pid = os.fork()
            if pid == 0:
                if request["new_session"]:
                    os.setsid()
                with socket.socket(fileno=given.pop()) as teller:
                    _tell(teller, str(os.getpid()))
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number, descriptor in enumerate(given):
                    os.dup2(descriptor, number)
                for other in (*lines, listener, *children.values()):
                    other.close()
                for descriptor in (*given, waked, wake):
                    os.close(descriptor)
                return request
            children[pid] = socket.socket(fileno=given[3])
            for descriptor in given[:3]:
                os.close(descriptor)


def _tell(teller: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):  # whoever asked has ended
        teller.send(text.encode())


def _become(request: dict[str, Any], path: list[str]) -> None:
    """Makes of the fork what a start of Python gives, and runs the program."""
    os.sched_setaffinity(0, request["cores"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        setattr(sys, name, _stream(descriptor, getattr(sys, name)))
    how, what, *arguments = request["argv"]
    more = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = ["" if how == _CODE else request["cwd"], *more, *path]
    importlib.invalidate_caches()
    sys.modules["numpy"].random.seed()  # else each fork has the same numbers; Python's own begin anew by themselves
    program = sys.modules["__main__"] = types.ModuleType("__main__")
    if how == _CODE:
        sys.argv = [how, *arguments]
        exec(compile(what, "<string>", "exec"), program.__dict__)
        return
    start_apart_warm(lambda owner, name, value: setattr(sys.modules[owner], name, value))
    peak: Any = importlib.import_module("tfscale.measures.peak")
    peak._LARGEST["cpu"], peak._WINDOW_SECONDS = 256, 0.01
    sys.argv = [what, *arguments]
    runpy.run_module(what, run_name="__main__", alter_sys=True)


def start_apart_warm(put: Any) -> None:
    """Calls put(module, name, value) for what makes the processes warm that modules of ours start."""
    for owner, replaced in _OWNERS.items():
        importlib.import_module(owner)
        put(owner, "subprocess", replaced)


def _stream(descriptor: int, like: Any) -> io.TextIOWrapper:
    """What Python itself opens there; those of the server are nobody's terminal."""
    raw = io.FileIO(descriptor, "w" if descriptor else "r", closefd=False)
    buffered: Any = io.BufferedWriter(raw) if descriptor else io.BufferedReader(raw)
    lines = descriptor == 2 or raw.isatty()
    return io.TextIOWrapper(buffered, encoding=like.encoding, errors=like.errors, line_buffering=lines)
