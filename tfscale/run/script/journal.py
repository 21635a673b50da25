"""What an interrupted script has done: which of its fits lies in which folder.

Owns script.json and the names of the folders. Refuses to know models and Keras: a fit is a place in the script, a
digest and how many equal ones came before it.

    with Journal(RunDir("runs/train"), "train.py").open(fresh=False) as journal:
        entry = journal.enter("train.py:31", "563a34baa8", "sequential")
        entry.folder                     # runs/train/01-sequential, the same when the script is started again
        journal.ended = True             # it has come to its end: the next start begins anew
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tfscale.errors import OutputError, TfscaleError, UsageError
from tfscale.run_dir.folder import RunDir

_log = logging.getLogger(__name__)

FILE = "script.json"
_PREVIOUS = "previous"
FITS = r"\d{2,}-[A-Za-z0-9_.-]+"  # the names of the fits' folders
_FOLDER = re.compile(FITS)


@dataclass(frozen=True)
class Fit:
    """One fit of the script; `count` of those with this place and digest came before it."""

    place: str
    digest: str
    count: int
    folder: str

    @property
    def key(self) -> tuple[str, str, int]:
        return self.place, self.digest, self.count


@dataclass(frozen=True)
class Entered:
    """Where a fit lives, and what of an earlier start is there.

    Attributes:
        number: of the fits of this start, from 1.
        is_known: whether an interrupted start has begun it.
        has_changed: whether that start had another fit at its turn at this place.
    """

    number: int
    folder: Path
    is_known: bool
    has_changed: bool


class Journal:
    """The fits of one script.

    Args:
        run_dir: of the script; each fit has a folder of its own in it.
        program: the script as people name it.
    """

    def __init__(self, run_dir: RunDir, program: str):
        self.run_dir, self.program = run_dir, program
        self.ended = False
        self.resumes = False  # whether an interrupted start is gone on with
        self._fits: list[Fit] = []
        self._before: dict[str, list[Fit]] = {}  # of the interrupted start, by place
        self._equal: Counter[tuple[str, str]] = Counter()
        self._turns: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def open(self, *, fresh: bool) -> Iterator[Journal]:
        """Holds the folder, and looks at what an earlier start has left.

        Args:
            fresh: begin anew, whatever is there.

        Raises:
            OutputError: another one holds it, or it can't be written.
            UsageError: it holds another script that was interrupted.
        """
        self.run_dir.check_writable()
        self.run_dir.create()
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.run_dir.claimed())
            except OutputError as error:
                error.where, error.fix = "--run-dir", "wait for it or stop it, or give this one --run-dir DIR"
                raise
            self._read(fresh=fresh)
            self._write()
            yield self
            try:
                self._write()
            except TfscaleError as error:  # the script's own end is what counts
                _log.warning(f"{error}; a start that comes next takes this one for interrupted")

    def enter(self, place: str, digest: str, name: str) -> Entered:
        """The folder of a fit that begins.

        Args:
            place: in the script, such as "train.py:31".
            digest: of the model, the data and the arguments.
            name: for people.
        """
        with self._lock:
            before, turn = self._before.get(place, []), self._turns[place]
            key = (place, digest, self._equal[place, digest])
            self._turns[place] += 1
            self._equal[place, digest] += 1
            number = self._turns.total()
            for known in before:
                if known.key == key:
                    return Entered(number, self.run_dir.path / known.folder, True, False)
            fit = Fit(*key, folder=self._new_name(name))
            self._fits.append(fit)
            self._write()
            return Entered(number, self.run_dir.path / fit.folder, False, turn < len(before))

    def _new_name(self, name: str) -> str:
        number = len(self._fits) + 1
        while any(self.run_dir.path.glob(f"{number:02d}-*")):
            number += 1
        return f"{number:02d}-{name}"

    def _read(self, *, fresh: bool) -> None:
        known = self.run_dir.read_json(FILE) or {}
        fits = [Fit(**one) for one in known.get("fits", ()) if _is_fit(one)]
        interrupted = known.get("status") == "running"
        if interrupted and not fresh and known.get("script") != self.program:
            raise UsageError(
                f"{self.run_dir.path} holds the fits of {known.get('script')}, which was interrupted",
                where="--run-dir",
                fix="give another --run-dir, or --fresh, which puts them aside",
            )
        if interrupted and not fresh:
            self._fits, self.resumes = fits, bool(fits)
            for fit in fits:
                self._before.setdefault(fit.place, []).append(fit)
        elif fits:
            self._put_aside(fits)

    def _put_aside(self, fits: list[Fit]) -> None:
        """The fits of a start that has ended; those of the one before it go."""
        place, previous = self.run_dir.path, self.run_dir.path / _PREVIOUS
        shutil.rmtree(previous, ignore_errors=True)
        previous.mkdir()
        for name in (FILE, *(fit.folder for fit in fits)):
            if (place / name).exists():
                (place / name).rename(previous / name)
        _log.info(f"what the start before has left in {place} is in {previous} until the next one")

    def _write(self) -> None:
        status = "ended" if self.ended else "running"
        fits = [asdict(fit) for fit in self._fits]
        self.run_dir.write_json(FILE, {"script": self.program, "status": status, "fits": fits})


def _is_fit(record: object) -> bool:
    """Whether it is a record of ours, whose folder lies where it should."""
    if not isinstance(record, dict) or set(record) != {"place", "digest", "count", "folder"}:
        return False
    return isinstance(record["count"], int) and bool(_FOLDER.fullmatch(str(record["folder"])))
