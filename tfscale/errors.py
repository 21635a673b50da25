"""The errors that a run can end with: one class per exit code.

Owns the exit codes and the one final line. Refuses to know who catches them: only entry points do.

Every error states the fact (`what`), where it was found (`where`: a key, a file, a variable) and what to do about it
(`fix`: the override or command that mends it).
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import re
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

_FRAME_TEXT = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)')
_SECRETS: set[str] = set()
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of a name: split at _, -, ., digits and capitals
_SECRET_PARTS = {"pass", "password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "credentials"}
_SECRET_PARTS |= {"auth", "authorization", "bearer"}
_KEY_PARTS = {"api", "access", "private", "secret", "account", "encryption", "signing"}  # with "key" behind them
_RUN_TOGETHER = re.compile(r".*(password|passwd|pwd|secret|token)|.*(api|access|private|secret|account)key|dbpass")
_PLAIN = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?|true|false|null|none|yes|no|on|off", re.IGNORECASE)
_URL = re.compile(r"\b[A-Za-z][\w+.-]*://[^\s'\"<>|]+")
_DATABASES = ("postgresql", "mysql", "mariadb", "mssql", "oracle", "mongodb", "redis")
_PORT = re.compile(r"\d*")
_SIGNED = {"sig", "signature", "jwt"}  # of a URL's query that gives access to whoever has it
# What TensorFlow prints around the cause of a graph's error, and SQLAlchemy, by way of MLflow, before a database's.
_FRAME = (
    "Graph execution error",
    "Detected at node",
    "<stack traces",
    "File ",
    "[[",
    "{{",
    "(raised as a result of",
    "Exception encountered when calling",
)
_NODE = re.compile(r"^\s*\{\{function_node [^}]*\}\}")  # before an eager operation's cause
_NAMED = re.compile(r"[\w.]*(Error|Exception|Warning): ")  # a cause that says its kind itself


class TfscaleError(Exception):
    """Base of all errors that tfscale raises on purpose.

    Args:
        what: the fact and its consequence, one sentence.
        where: the configuration key, file, environment variable or step it concerns.
        fix: what the user can do, as an override or a command where one exists.
    """

    exit_code = 70
    title = "internal error"

    def __init__(self, what: str, *, where: str = "", fix: str = ""):
        super().__init__(what)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        return " | ".join(part for part in (self.what, self.where, self.fix) if part)

    def line(self) -> str:
        """The one line that an entry point prints to standard error before it exits."""
        parts = [self.what, self.where or "-", self.fix or "-"]
        text = " | ".join(_one_line(part) for part in parts)
        return f"tfscale: error[E-{self.exit_code:04d}] {without_secrets(text)}"

    def as_dict(self) -> dict[str, str | int]:
        """The same facts for exit.json."""
        return {
            "exit_code": self.exit_code,
            "title": self.title,
            "what": without_secrets(self.what),
            "where": without_secrets(self.where),
            "fix": without_secrets(self.fix),
        }


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


class CheckFailed(TfscaleError):
    """A check that was asked for (parity, validate, doctor) did not hold."""

    exit_code, title = 1, "check failed"


class UsageError(TfscaleError):
    """Bad command line or configuration: unknown key, wrong type, missing or impossible value."""

    exit_code, title = 64, "bad command line or configuration"


class DataCorrupt(TfscaleError):
    """Data does not match its checksum, or can't be decoded; or the workers of a script have other data or lines."""

    exit_code, title = 65, "data corrupt, or workers differ"


class DataMissing(TfscaleError):
    """Data or a model is missing, empty or unknown."""

    exit_code, title = 66, "data or model missing"


class InternalError(TfscaleError):
    """An exception that nobody foresaw."""

    exit_code, title = 70, "internal error"


class OutputError(TfscaleError):
    """The run folder can't be created or written, or another run holds it."""

    exit_code, title = 73, "cannot create output"


class IOFailure(TfscaleError):
    """Writing failed for good: disk full, or a store that stays away."""

    exit_code, title = 74, "input/output error"


class CheckpointUnusable(TfscaleError):
    """Checkpoints exist, but none can be used by this run."""

    exit_code, title = 76, "no usable checkpoint"


class SecurityRefused(TfscaleError):
    """Refused for security: a target outside the allow-list, a path outside its root, an unsafe artefact."""

    exit_code, title = 77, "refused for security"


class ClusterConfigError(TfscaleError):
    """TF_CONFIG or another description of the cluster is wrong or contradicts itself."""

    exit_code, title = 78, "bad cluster description"


class Diverged(TfscaleError):
    """The loss or the gradients became NaN or infinite; `step` is the first such step, where it is known."""

    exit_code, title = 81, "diverged"
    step: int | None = None


class Interrupted(TfscaleError):
    """SIGINT, with the checkpoint committed."""

    exit_code, title = 130, "interrupted"


class ClusterFault(TfscaleError):
    """A peer was lost or never came, or a step hung. Retryable."""

    exit_code, title = 138, "cluster fault"


class Preempted(TfscaleError):
    """SIGTERM, with the checkpoint committed. Retryable: the same command resumes."""

    exit_code, title = 143, "preempted"


KILLED = 137  # SIGKILL: nobody answered it, so that it has no class
# Rather the fault of another process, or of the machine: the same command may end better.
RETRYABLE = (ClusterFault.exit_code, KILLED, Preempted.exit_code)


def killed_by(returncode: int) -> str:
    """What became of a child process that a signal ended, "" where it ended by itself: its last line on standard error
    says nothing about that."""
    import signal

    if returncode >= 0:
        return ""
    known = {int(one): one.name for one in signal.Signals}
    memory = ", as the kernel does where memory runs out" if -returncode == signal.SIGKILL else ""
    return f"killed by {known.get(-returncode, f'signal {-returncode}')}{memory}"


def kind_of(exit_code: int, otherwise: type[TfscaleError] = InternalError) -> type[TfscaleError]:
    """The class whose exit code this is."""
    return {kind.exit_code: kind for kind in TfscaleError.__subclasses__()}.get(exit_code, otherwise)


def foreseen(error: BaseException) -> TfscaleError:
    """The error itself where it is one of ours, else the one that stands for it."""
    if isinstance(error, TfscaleError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted by the keyboard", fix="run the same command again to resume")
    if isinstance(error, OSError) and error.errno in (*NO_ROOM, errno.EROFS):
        return IOFailure(
            f"writing failed: {error.strerror}",
            where=str(error.filename or ""),
            fix="free space or choose a folder that can be written, then run the same command again",
        )
    import traceback

    kind, frames, cause = type(error).__name__, traceback.extract_tb(error.__traceback__), first_line(error)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return InternalError(
        cause if _NAMED.match(cause) else f"{kind}: {cause}",
        where=place_of(error) or where,
        fix="debug.traceback=true shows the whole traceback",
    )


def first_line(error: BaseException) -> str:
    """The line of an error's text that says the cause, at most 300 characters; its type's name where it has none."""
    text = _COLOURS.sub("", str(error))  # Keras paints what it says of a layer's call
    lines = [found for line in text.splitlines() if (found := _NODE.sub("", line).strip())] or [type(error).__name__]
    if lines[0].startswith("in user code"):  # AutoGraph: the frames follow, and the cause behind them
        last = max((i for i, line in enumerate(lines) if line.startswith("File ")), default=0)
        lines = [line for line in lines[last + 1 :] if _NAMED.match(line)] or lines[-1:]
    if "Exception encountered when calling" in lines[0] and lines[1:]:  # Keras: the cause stands in bold below
        if "Error encountered:" in lines[1] and lines[2:]:
            lines[1] = lines[2]
        return f"{lines[1]} (in {lines[0].rpartition(' calling ')[2].rstrip('.')})"[:300]
    return next((line for line in lines if not line.startswith(_FRAME)), lines[0])[:300]


def is_secret(name: str) -> bool:
    """Whether what stands under this key, or in an environment variable of this name, is to be hidden."""
    parts = [part.lower() for part in _PARTS.findall(name)]
    if any(part in _SECRET_PARTS or _RUN_TOGETHER.fullmatch(part) for part in parts):  # PGPASSWORD, apikey
        return True
    pairs = itertools.pairwise(parts)
    return any((one in _KEY_PARTS and two == "key") or (one, two) == ("connection", "string") for one, two in pairs)


def is_plain(value: object) -> bool:
    """Whether this is a number, a truth value or nothing, which are no secrets under any name."""
    return value is None or isinstance(value, bool | int | float) or bool(_PLAIN.fullmatch(str(value).strip()))


def keep_secret(values: Iterable[str]) -> None:
    """No message shows these values from now on; shorter ones than six characters would hide half of a text."""
    _SECRETS.update(value for value in values if len(value) >= 6)


def without_secrets(text: str) -> str:
    """The text without the values that `keep_secret` was told, nor users, passwords and tokens in addresses."""
    for value in sorted(_SECRETS, key=len, reverse=True):
        text = text.replace(value, "<redacted>")
    return _URL.sub(lambda found: _redacted_url(found[0]), text) if "://" in text else text


def _redacted_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user = place.rpartition("@")[0]
    slashed = not _PORT.fullmatch(place.partition(":")[2]) or scheme.partition("+")[0] in _DATABASES
    if not user and "@" in rest and place and slashed:
        user = rest.rpartition("@")[0]  # a password with a slash, which databases' libraries take
    if user:
        rest = f"<redacted>@{rest[len(user) + 1 :]}"
    mark = re.search(r"[?#;]", rest)
    cut = mark.end() if mark else len(rest)
    return f"{scheme}://{rest[:cut]}" + re.sub(r"([^&;=#?]+)=([^&;#]*)", _redacted_field, rest[cut:])


def _redacted_field(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    word = urllib.parse.unquote(name)
    signed = _SIGNED & {part.lower() for part in _PARTS.findall(word)} or word == "key"
    whole = re.search(r"(?i)(pwd|password)(=|%3d)", value)  # a connection string in a field of its own
    hide = (is_secret(word) or signed or whole) and value and not is_plain(value)
    return f"{name}=<redacted>" if hide else found[0]


def nearest(word: str, choices: list[str] | tuple[str, ...]) -> str:
    """A suffix such as "; did you mean 'resnet'?" for error messages, or "" when nothing is near."""
    import difflib

    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def place_of(error: BaseException) -> str:
    """The innermost place in the user's code, such as "mine.py:12 in loss": not AutoGraph's, Keras's or ours; "" where
    none is known.

    Of a SyntaxError it is the line that isn't Python, which never ran. TensorFlow keeps the frames of code that it has
    rewritten, or called from a graph, as a text.
    """
    import traceback

    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        # A text is of code that was rewritten, or runs inside a graph: further in than the frames here.
        quoted = [(found["file"], int(found["line"]), found["name"]) for found in _FRAME_TEXT.finditer(str(current))]
        frames = traceback.extract_tb(current.__traceback__)
        wrong = [(current.filename or "", current.lineno or 0, "<module>")] if isinstance(current, SyntaxError) else []
        for places in (wrong, quoted, [(frame.filename, frame.lineno or 0, frame.name) for frame in frames]):
            own = [place for place in places if is_users(place[0])]
            if own:
                file, line, name = own[-1]
                return f"{_short(file)}:{line}" + (f" in {name}" if name != "<module>" else "")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return ""


@functools.cache
def _foreign() -> tuple[str, ...]:
    """Folders of code that is nobody's own: Python's, installed packages' and ours."""
    import sysconfig

    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {os.path.realpath(path) for path in paths if path}
    return tuple(f"{path}{os.sep}" for path in (*filter(None, paths), str(Path(__file__).parent)))


def is_users(file: str) -> bool:
    """Whether this is the file of somebody's own code: not Python's, an installed package's or ours."""
    if (
        not file
        or file.startswith("<")
        or "__autograph_generated_file" in file
        or "site-packages" in file.split(os.sep)
    ):
        return False
    return not file.startswith(_foreign()) and not os.path.realpath(file).startswith(_foreign())


def _short(file: str) -> str:
    """Relative to the current folder where it lies in it."""
    try:
        near = os.path.relpath(file)
    except (ValueError, OSError):  # another drive, or the folder is gone
        return file
    return file if near.startswith(os.pardir) else near


def refuse_below(thing: object, part: str, **least: float) -> None:
    """Raises UsageError for the first of these fields that is below its least value; one that is None isn't asked.

    Args:
        thing: a task, or a source.
        part: of the configuration that it is: "task" or "data".
    """
    for name, value in least.items():
        given = getattr(thing, name)
        if given is not None and given < value:
            raise UsageError(f"{given} is less than {value}", where=f"{part}.{name}", fix=f"use {value} or more")
