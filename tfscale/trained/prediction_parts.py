"""The parts of a prediction: the folder <output>.parts/, which one or several workers fill, and the join of them.

Owns what the parts are of, which worker writes which of them, and who holds what. Refuses to know tasks, models and
what becomes of the parts (`prediction_output.py`).

    parts = Parts(Output.of("preds.jsonl"), pinned, count=1000, rows=256, share=Share(1, 4))
    with parts.claimed():
        missing = parts.begin()               # of this worker's share; None: the output is there already
        for number in missing or ():
            parts.write(number, columns)
        parts.finish()                        # joins where all parts are there: the worker that ends last does

In the folder:
  - part-NUMBER-DIGEST: the digest is of what they are of, so that parts of two checkpoints or inputs never meet.
  - manifest.json: the same in full; once the output is there, it says so to a worker that is started once more, or
    that another command has started for the same output.
  - worker-I-of-N/: the lease of a share, held as long as its worker works.
  - .lock: held for a moment at the start, and while parts are looked for and joined. The last one that takes it sees
    the parts of all others, also on a volume whose listings lag behind: taking it changes the folder.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.data.table_files import Columns
from tfscale.errors import ClusterFault, InternalError, IOFailure, OutputError
from tfscale.files import digest_of, replacing
from tfscale.process import fault_points as faults
from tfscale.run_dir.folder import RunDir
from tfscale.run_dir.lease import Claim, is_free
from tfscale.trained.prediction_output import Output

_log = logging.getLogger(__name__)

_MANIFEST, _WHOLE = "manifest.json", "whole"
_PAUSE = 0.5  # seconds between two tries to get the folder


@dataclass(frozen=True)
class Share:
    """Which of the parts a worker writes: neighbours, so that it reads its examples in one go.

    Args:
        worker: from 0.
        workers: how many share the work.
    """

    worker: int = 0
    workers: int = 1

    @property
    def is_all(self) -> bool:
        return self.workers == 1

    def parts(self, total: int) -> range:
        """Those of so many; every part is one worker's."""
        return range(total * self.worker // self.workers, total * (self.worker + 1) // self.workers)

    def __str__(self) -> str:
        return f"worker {self.worker} of {self.workers}"


class Parts:
    """The parts of one output, and this worker's share of them.

    Args:
        pinned: what the parts are of, as JSON can hold it.
        count: examples.
        rows: of a part; the last one may have fewer.
    """

    def __init__(
        self,
        output: Output,
        pinned: Mapping[str, Any],
        *,
        count: int,
        rows: int,
        share: Share,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.kind, self.output, self.folder = output.kind, output, output.parts_folder
        self.pinned, self.count, self.rows, self.share = dict(pinned), count, rows, share
        self.total = -(-count // rows)
        self._digest = digest_of(self.pinned)[:8]
        self._sleep = sleep
        self._place = self.folder / f"worker-{share.worker}-of-{share.workers}"
        self._claim = Claim()

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds this worker's share against any other process.

        Raises:
            OutputError: another process has it.
            ClusterFault: a process on another machine has it, such as an earlier pod that is slow to end.
            OSError: nothing can be written there.
        """
        self._place.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            self._claim = stack.enter_context(_taken(self._place))
            yield

    def path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}-{self._digest}{self.kind.suffix}"

    def begin(self) -> list[int] | None:
        """The parts of this share that are missing, or None where the output is there already, as another worker of
        this prediction has joined it. Parts of something else are removed by a worker that has all for itself.

        Raises:
            OutputError: the parts are of something else, and there are several workers: others may be writing them.
        """
        manifest = RunDir(self.folder)
        with _alone(self.folder, self._sleep):
            found = manifest.read_json(_MANIFEST)
            if not self._is_ours(found):
                self._remove_others(found)
                manifest.write_json(_MANIFEST, self.pinned)
            elif found and _WHOLE in found:
                if not self.share.is_all and found[_WHOLE] == self.output.seen():
                    self._remove_parts()
                    return None
                manifest.write_json(_MANIFEST, self.pinned)
        mine = self.share.parts(self.total)
        missing = [number for number in mine if not self.path(number).is_file()]
        if done := len(mine) - len(missing):
            row = min(self.count, (missing[0] if missing else mine.stop) * self.rows)
            whose = "" if self.share.is_all else f"{self.share}: "
            more = f": going on at row {row}" if missing or self.share.is_all else ""
            _log.info(f"{whose}{done} of {len(mine)} parts are there already{more}")
        return missing

    def write(self, number: int, columns: Columns) -> None:
        """Raises OutputError where this process was silent for so long that another has its share."""
        with replacing(self.path(number), durable=True) as temporary:
            self.kind.write(columns, temporary)
            self._claim.check()

    def finish(self) -> bool:
        """Joins the parts where all are there. Waits for another worker that is at it.

        Returns:
            Whether it did: else others have parts to write, and the last of them joins, or one of them has.

        Raises:
            OutputError: another command has taken the folder for other parts.
            IOFailure: somebody has removed parts of this share.
        """
        with _alone(self.folder, self._sleep) as claim:
            found = RunDir(self.folder).read_json(_MANIFEST)
            if not self._is_ours(found):
                raise OutputError(
                    f"another command has begun anew in {self.folder}", where="output", fix="leave it to that one"
                )
            if found and _WHOLE in found and found[_WHOLE] == self.output.seen():
                _log.info("another worker has joined the parts")
                self._remove_parts()
                return False
            paths = [self.path(number) for number in range(self.total)]
            missing = {number for number, path in enumerate(paths) if not path.is_file()}
            if missing.intersection(self.share.parts(self.total)):
                raise IOFailure(
                    "somebody has removed finished parts", where=str(self.folder), fix="run the same command again"
                )
            if missing:
                there = self.total - len(missing)
                _log.info(f"{there} of {self.total} parts are there: whoever writes the last one joins them")
                return False
            faults.point("predict.join")
            self.output.put(paths, self.folder, {**self.pinned, "examples": self.count}, claim.check)
            if self.share.is_all and not _held(self.folder, but=self._place):
                shutil.rmtree(self.folder, ignore_errors=True)
                return True
            RunDir(self.folder).write_json(_MANIFEST, {**self.pinned, _WHOLE: self.output.seen()})
            self._remove_parts()
            if self.share.is_all:
                _log.info(f"other workers may be at work on {self.output.path}: {self.folder} stays for them")
            return True

    def _is_ours(self, found: dict[str, Any] | None) -> bool:
        return {key: value for key, value in (found or {}).items() if key != _WHOLE} == self.pinned

    def _remove_others(self, found: dict[str, Any] | None) -> None:
        """Parts of something else; call it while the folder is held."""
        old = list(self.folder.glob("part-*"))
        if not old and found is None:
            return
        finished = bool(found and _WHOLE in found)
        if not self.share.is_all and not finished:
            raise OutputError(
                f"{self.folder} holds parts of another checkpoint or input, which other workers may be writing",
                where="output",
                fix="remove it where none is at work, or choose another output=PATH",
            )
        for place in self.folder.glob("worker-*-of-*"):
            if not finished and place.name != "worker-0-of-1":  # which is ours
                with _taken(place):  # it is nobody's
                    pass
        self._remove_parts()
        if old and not finished:
            _log.info(f"{self.folder} holds parts of another checkpoint or input: starting afresh")

    def _remove_parts(self) -> None:
        """Those that the output holds, and what killed workers left unfinished, where nobody else may be at work."""
        unfinished = [] if _held(self.folder, but=self._place) else self.folder.glob(".*.tmp")
        for path in [*self.folder.glob("part-*"), *unfinished]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def clear_whole(output: Output) -> None:
    """Removes what several workers have left beside an output that they have joined, once none of them comes again.
    Where another command for the same output has begun meanwhile, the folder is that one's.

    Raises:
        IOFailure: somebody has removed the output.
        InternalError: they haven't joined it.
        OSError: the folder can't be locked.
    """
    folder, seen = output.parts_folder, output.seen()
    if seen is None:
        fix = "run the same command again"
        raise IOFailure(f"somebody has removed {output.path}, which was whole", where=str(folder), fix=fix)
    if not folder.is_dir():
        return
    with _alone(folder, time.sleep):
        found = RunDir(folder).read_json(_MANIFEST) or {}
        if _held(folder):
            _log.info(f"another command has begun to predict {output.path}: {folder} stays for that one")
        elif found.get(_WHOLE) == seen:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            raise InternalError(
                f"all workers ended well, but {output.path} isn't theirs",
                where=str(folder),
                fix="look into their lines above",
            )


def _held(folder: Path, *, but: Path | None = None) -> bool:
    """Whether a process may be at work on a share, other than on this one."""
    return any(place != but and not is_free(place) for place in folder.glob("worker-*-of-*"))


@contextlib.contextmanager
def _alone(folder: Path, sleep: Callable[[float], None]) -> Iterator[Claim]:
    """Holds the folder, and waits for whoever holds it as long as that one lives; raises OSError."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                claim = stack.enter_context(RunDir(folder).claimed())
                break
            except (OutputError, ClusterFault) as error:
                if isinstance(error.__cause__, OSError):  # it can't be locked
                    raise error.__cause__ from None
            sleep(_PAUSE)
        yield claim


@contextlib.contextmanager
def _taken(place: Path) -> Iterator[Claim]:
    with contextlib.ExitStack() as stack:
        try:
            claim = stack.enter_context(RunDir(place).claimed(job="predict"))
        except (OutputError, ClusterFault) as error:
            if isinstance(error.__cause__, OSError):  # it can't be locked
                raise error.__cause__ from None
            kind = type(error)
            raise kind(error.what, where="output", fix="wait for it, or choose another output=PATH") from None
        yield claim
