"""How long a checkpoint holds training up: tfscale's beside Keras's, TensorFlow's and Orbax's, and beside a plain copy.

    python -m benchmarks.checkpoint_stall --report benchmarks/results/DATE-checkpoint.md

The state is a dense network's and Adam's, float32. Three times are told. `call`: how long the call blocks. `first`:
with what the first step behind it takes longer, which pays for copies that were put off. `stall`: how much longer the
call and all steps until the write has ended take than these steps take without a save, so that a writer that takes
cores away from training counts too. All files are compared with the state at the call. Orbax is installed into
build/orbax at the first run; without it the rest is measured. The usual size takes about 7 GB of memory, 5 GB of disk
and, on two cores, three quarters of an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.checkpoint_stall_member import LEAST_STEPS, Window
from benchmarks.checkpoint_stall_savers import BATCH, COPIES, DEPTH, counted, width_for
from benchmarks.scaling_processes import ProcessGroup
from benchmarks.side_by_side import (
    LATE_SECONDS,
    ROOT,
    START_SECONDS,
    ContestantFailed,
    Ratio,
    in_blocks,
    median_interval,
)
from tfscale.hardware import probe

ORBAX = ROOT / "build" / "orbax"  # an environment with Orbax, which needs JAX, on top of this one
REQUIREMENT = "orbax-checkpoint==0.12.8"
FOLDER = ROOT / "build" / "checkpoint-stall"
STATES_IN_MEMORY = 6  # of a process at its peak, with the pages of its files
STATES_ON_DISK = 4  # with what some write twice
SECONDS = ("call", "first", "stall")  # the fields of Window that are claimed about
SLACK = 0.05  # of the copy's time: a difference of the A/A control that matters to no bound


@dataclass(frozen=True)
class Contestant:
    """`function` is that of checkpoint_stall_savers.py."""

    name: str
    function: str


OURS = Contestant("ours", "ours")
AGAIN = Contestant("ours again", "ours")
KERAS = Contestant("keras ModelCheckpoint", "keras_file")
MANAGER = Contestant("CheckpointManager", "manager")
MANAGER_ASYNC = Contestant("CheckpointManager, async", "manager_async")
ORBAX_ASYNC = Contestant("orbax", "orbax")
REUSED = Contestant("copy, reused memory", "copy_reused")
FRESH = Contestant("copy, fresh memory", "copy_fresh")
CONTESTANTS = (OURS, AGAIN, KERAS, MANAGER, MANAGER_ASYNC, ORBAX_ASYNC, REUSED, FRESH)


@dataclass(frozen=True)
class Claim:
    """That `seconds`, one of SECONDS, of ours are at most `high` times another's; without `high`, how they compare."""

    seconds: str
    under: Contestant
    high: float | None = None

    @property
    def text(self) -> str:
        bound = f" <= {self.high:g}" if self.high else ""
        return f"{self.seconds}: ours / {self.under.name}{bound}"


CLAIMS = tuple(
    Claim(seconds, under, high)
    for under, high in (
        (KERAS, 0.1),
        (REUSED, 1.5),
        (FRESH, 1.5),
        (MANAGER, None),
        (MANAGER_ASYNC, None),
        (ORBAX_ASYNC, None),
    )
    for seconds in SECONDS
)

NOTES = (
    "call: how long the call blocks. first: how much longer the call and the first step behind it take than a step"
    " without a save, which is the price of copies that were put off. stall: how much longer the call and the steps"
    f" until the write has ended, at least {LEAST_STEPS}, take than as many steps without a save, by the mean of those"
    " before and after in the same window; noise of the steps can make a small one negative. Files are removed and the"
    " disk is synced after each save, outside of all times.",
    "written: from the call until the write has ended. For ours that is the commit, with checksums, a check for NaN and"
    " fsync of every file; Orbax syncs its files too; Keras and TensorFlow leave theirs to the system's cache, and what"
    " the disk does later is not in their times.",
    "CPU s: processor time of all threads of the process above that of the steps, without the kernel's own threads.",
    "Every save is the third of its process. After each, all arrays in its files were compared by checksum with the"
    " state at the call, which had trained on meanwhile: all were equal.",
    "The copies are the limit: numpy.copyto of as many arrays of these sizes, without files and without training.",
    "CheckpointManager with experimental_enable_async_checkpoint=True gets a list of tf.Variables: given a Keras 3.15"
    " model and optimizer, its second save raises ValueError (tf.function only supports singleton tf.Variables).",
    "All train the same network in float32 with the threads that tfscale plans: ours by Trainer.train, the others in a"
    " tf.function with keras.optimizers.Adam.",
)


# -- Orbax


def orbax_python(say: Callable[[str], None]) -> Path:
    """The interpreter of an environment that adds Orbax to this one, made where it is missing; raises RuntimeError."""
    python, ready = ORBAX / "bin" / "python", ORBAX / ".ready"
    if ready.exists() and ready.read_text() == REQUIREMENT:
        return python
    say(f"installing {REQUIREMENT} into {ORBAX}")
    venv.create(ORBAX, clear=True, with_pip=True)
    here = [path for path in sys.path if path.endswith("site-packages")]
    site = ORBAX / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "beside.pth").write_text("\n".join(here) + "\n")  # TensorFlow and the rest, as pip sees them too
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
        REQUIREMENT,
    ]
    done = subprocess.run(pip, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "pip said nothing").splitlines()[-1]
        raise RuntimeError(f"{REQUIREMENT} could not be installed ({last})")
    ready.write_text(REQUIREMENT)
    return python


# -- measuring


@dataclass(frozen=True)
class _Told:
    """What a contestant's process is told, as a group tells its members."""

    parameters: int
    folder: str

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


class Process(ProcessGroup):
    """A contestant's process, for one window: a group of one."""

    def __init__(self, contestant: Contestant, python: Path, told: _Told):
        command = [str(python), "-m", "benchmarks.checkpoint_stall_member", contestant.function]
        super().__init__(contestant.name, command, [told])  # type: ignore[list-item]  # as JSON, which is all it takes

    def wait_until_ready(self) -> None:
        self.facts = json.loads(self._answers(START_SECONDS)[0])

    def measure(self, seconds: float) -> Window:
        stdin = self._processes[0].stdin
        assert stdin
        with contextlib.suppress(BrokenPipeError):  # then the answer is missing too, and says why
            stdin.write(f"{seconds}\n".encode())
            stdin.flush()
        return Window(**json.loads(self._answers(10 * seconds + LATE_SECONDS)[0]))


class Windows:
    """The windows of one contestant, each in a process of its own: all states at once would not fit into memory."""

    def __init__(self, contestant: Contestant, python: Path, told: _Told):
        self.name = contestant.name
        self._process: Callable[[], Process] = lambda: Process(contestant, python, told)
        self.all: list[Window] = []
        self.facts: dict[str, Any] = {}

    def window(self, seconds: float) -> tuple[int, float, float]:
        """One save between twice this many seconds of training; returns (1, seconds of stall, of processor time).

        Raises:
            ContestantFailed: the process ended or hung, or its files are not the state at the call.
        """
        process = self._process()
        with process:
            process.wait_until_ready()
            window = process.measure(seconds)
            self.facts = process.facts
        if window.lost:
            raise ContestantFailed(f"{self.name!r} saved another state than that at the call: {window.lost} arrays")
        self.all.append(window)
        return 1, window.stall, window.cpu


@dataclass
class Measured:
    """The windows by contestant, one per block."""

    windows: dict[str, list[Window]]
    facts: dict[str, dict[str, Any]]
    seed: int

    def all(self, name: str, what: str) -> np.ndarray:
        """This field of Window: float64 [blocks]."""
        return np.array([getattr(window, what) for window in self.windows[name]], np.float64)

    def median(self, name: str, what: str) -> Ratio:
        return median_interval(self.all(name, what), seed=self.seed)

    def ratio(self, what: str, over: str, under: str) -> Ratio:
        """Within each block."""
        return median_interval(self.all(over, what) / self.all(under, what), seed=self.seed)

    def control(self, what: str) -> Ratio:
        """What the second process of ours took longer than the first; a difference, since a stall may be near 0."""
        return median_interval(self.all(AGAIN.name, what) - self.all(OURS.name, what), seed=self.seed)

    def control_holds(self, what: str) -> bool:
        control = self.control(what)
        slack = SLACK * self.median(REUSED.name, "call").median
        return control.low <= 0 <= control.high or abs(control.median) <= slack

    def verdict(self, claim: Claim) -> str:
        ratio = self.ratio(claim.seconds, OURS.name, claim.under.name)
        if not self.control_holds(claim.seconds):
            return "inconclusive (A/A control off)"
        if claim.high is None:
            return "less" if ratio.high < 1 else "more" if ratio.low > 1 else "no difference seen"
        if ratio.high <= claim.high:
            return "holds"
        return "does not hold" if ratio.low > claim.high else "inconclusive (the interval crosses the bound)"


def measure(
    interpreters: dict[Contestant, Path],
    *,
    parameters: int,
    folder: Path,
    blocks: int,
    seconds: float,
    seed: int,
    say: Callable[[str], None],
) -> Measured:
    """Runs the blocks, each with one save per contestant in random order.

    Args:
        interpreters: the contestants that take part, and the Python that runs them.
        folder: where they write; emptied at the end.
        seconds: of training before each save, and after it.

    Raises:
        ContestantFailed: a process ended or hung, or its checkpoint was not the state at the call.
    """
    contenders = [
        Windows(contestant, python, _Told(parameters, str(folder / contestant.function)))
        for contestant, python in interpreters.items()
    ]
    try:
        in_blocks(contenders, blocks=blocks, seconds=seconds, seed=seed, say=say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Measured({c.name: c.all for c in contenders}, {c.name: c.facts for c in contenders}, seed)


# -- reporting


def build_report(
    measured: Measured, *, parameters: int, blocks: int, seconds: float, missing: str = ""
) -> report.Report:
    made = report.build("What a checkpoint costs training", [], blocks=blocks, seconds=seconds)
    method = (
        f"method: {blocks} blocks of one save per contestant in random order, each in a process of its own, one at a"
        f" time, between {seconds:g} s of training before and after; ratios within each block; medians with 95 %"
        " bootstrap interval; inconclusive unless the interval of the A/A control, a difference of seconds, contains 0"
        f" or its median is under {SLACK:.0%} of the copy into reused memory"
    )
    facts = [*made.facts[:-1], method]
    if missing:
        facts.append(f"without Orbax: {missing}")
    return dataclasses.replace(made, facts=facts, tables=[_contestants(measured, parameters), _claims(measured)])


def _contestants(measured: Measured, parameters: int) -> report.Table:
    rows = []
    for name, windows in measured.windows.items():
        training, saving = (max(window.memory[i] for window in windows) / 1e9 for i in range(2))
        rows.append(
            (
                name,
                *(str(measured.median(name, seconds)) for seconds in SECONDS),
                str(measured.ratio("stall", name, REUSED.name)),
                f"{measured.median(name, 'written').median:.2f}",
                f"{measured.median(name, 'cpu').median:.2f}",
                _steps(measured, name),
                f"{training:.2f} / {saving:.2f}",
                measured.facts[name]["how"],
            )
        )
    columns = (
        "contestant",
        *(f"{seconds}, s [95 %]" for seconds in SECONDS),
        f"stall / {REUSED.name} [95 %]",
        "written after, s",
        "CPU s",
        "steps meanwhile",
        "peak GB without / with a save",
        "how",
    )
    count = counted(parameters)
    title = (
        f"{count:,} parameters, {count * 4 * COPIES / 1e9:.3g} GB of state: {DEPTH} dense layers of"
        f" {width_for(parameters)}, Adam, batch {BATCH}, float32"
    )
    return report.Table(title, columns, rows, NOTES)


def _steps(measured: Measured, name: str) -> str:
    steps = np.median(measured.all(name, "steps"))
    return f"{steps:g} of {np.median(measured.all(name, 'step')):.3f} s" if steps else ""


def _claims(measured: Measured) -> report.Table:
    rows = []
    for what in SECONDS:
        control = "no difference that matters" if measured.control_holds(what) else "inconclusive: they differ"
        rows.append((f"A/A control, {what}: {AGAIN.name} - {OURS.name}, in s", str(measured.control(what)), control))
    for claim in CLAIMS:
        if claim.under.name in measured.windows:
            ratio = measured.ratio(claim.seconds, OURS.name, claim.under.name)
            rows.append((claim.text, str(ratio), measured.verdict(claim)))
    return report.Table("claims", ("claim", "ratio of seconds [95 %]", "verdict"), rows)


def main(arguments: list[str] | None = None) -> int:
    chosen = _parse(arguments)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    interpreters, missing = dict.fromkeys(CONTESTANTS, Path(sys.executable)), ""
    try:
        if chosen.without_orbax:
            raise RuntimeError("not asked for")
        interpreters[ORBAX_ASYNC] = orbax_python(say)
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        del interpreters[ORBAX_ASYNC]
        missing = str(error)
        say(f"without Orbax: {missing}")
    try:
        measured = measure(
            interpreters,
            parameters=chosen.parameters,
            folder=chosen.folder,
            blocks=chosen.blocks,
            seconds=chosen.seconds,
            seed=chosen.seed,
            say=say,
        )
    except ContestantFailed as error:
        say(f"checkpoint_stall: {error}")
        return 1
    made = build_report(
        measured, parameters=chosen.parameters, blocks=chosen.blocks, seconds=chosen.seconds, missing=missing
    )
    report.publish(made, chosen.report)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("python -m benchmarks.checkpoint_stall", __doc__.splitlines()[0], seconds=4.0)
    parser.set_defaults(blocks=7)
    parser.add_argument("--parameters", type=int, default=100_000_000, help="of the network, about")
    parser.add_argument("--without-orbax", action="store_true", help="neither install nor measure it")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="on the disk to measure; must not exist yet")
    chosen = report.parsed(parser, arguments)
    if chosen.parameters < DEPTH * 72:
        parser.error(f"--parameters must be at least {DEPTH * 72}")
    if chosen.folder.exists():
        parser.error(f"{chosen.folder} exists; it is removed at the end, hence it must be a new one")
    state = counted(chosen.parameters) * 4 * COPIES
    disk = shutil.disk_usage(next(path for path in chosen.folder.absolute().parents if path.exists())).free
    memory = probe().memory_bytes
    if memory < STATES_IN_MEMORY * state or disk < STATES_ON_DISK * state:
        parser.error(
            f"--parameters {chosen.parameters} takes {STATES_IN_MEMORY * state / 1e9:.0f} GB of memory and"
            f" {STATES_ON_DISK * state / 1e9:.0f} GB of disk; there are {memory / 1e9:.0f} and {disk / 1e9:.0f}"
        )
    return chosen


if __name__ == "__main__":
    sys.exit(main())
