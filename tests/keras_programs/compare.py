"""Runs people's Keras programs as they are and with tfscale's fit, and compares: python tests/keras_programs/compare.py

The other files of this folder are programs that know nothing of tfscale. Each is run in processes of its own: by itself,
and with `keras.Model.fit` replaced (recorded_run.py); every History and the weights after every fit are compared. With
--devices 2 ours runs over two logical devices of the CPU and is compared with Keras on one device, and, where that
differs, as it may where replicas draw random numbers or normalize their part of a batch, with Keras's MirroredStrategy.
With --workers 2 the program is run by `tfscale run --workers 2`, and compared with one device, or with ours on two.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PROGRAMS = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("compare", "recorded_run"))
# One for each mechanism: callbacks and a file loaded again; text; an own train_step; several optimizers; several fits
# of one model; named inputs and outputs with weights
QUICK = ("unet_segmentation", "text_from_scratch", "vae", "gan", "transfer_learning", "multi_task_ranking")
CLOSE = 1e-4


class Ran(NamedTuple):
    """What came of one run: its file, which holds the fits that ended, and the error that ended it."""

    out: Path
    error: str = ""


class Verdict(NamedTuple):
    """How two runs compare, in a word, and the figures or the reason."""

    word: str
    why: str


def run(program: str, how: str, devices: int, folder: Path, seconds: float) -> Ran:
    """One run in a process and a working folder of its own.

    Args:
        how: as recorded_run.py takes it; "script": by `tfscale run` in so many workers.
        folder: what it prints and writes is left there.
    """
    here = folder / f"{program}-{how}-{devices}"
    (here / "work").mkdir(parents=True)
    script, out = HERE / "recorded_run.py", here / "out.npz"
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1", "MPLBACKEND": "Agg"}
    command = [sys.executable]
    if how == "script":
        command += ["-m", "tfscale", "run", "--workers", str(devices)]
    with open(here / "output.txt", "wb") as output:
        try:
            code = subprocess.run(
                [
                    *command,
                    str(script),
                    str(HERE / f"{program}.py"),
                    how,
                    str(out),
                    "1" if how == "script" else str(devices),
                ],
                cwd=here / "work",
                env=environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
            ).returncode
        except subprocess.TimeoutExpired:
            return Ran(out, f"not ended after {seconds:.0f} s")
    return Ran(out, reason((here / "output.txt").read_text(errors="replace")) if code else "")


def reason(output: str) -> str:
    """The error that ended a program, on one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    traces = [index for index, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    tail = lines[traces[-1] :] if traces else lines[-1:]
    kinds = ("Error", "Exit", "Exception")
    named = [index for index, line in enumerate(tail) if line.split(":")[0].split(".")[-1].endswith(kinds)]
    return " ".join(tail[named[0] :] if named else tail[-1:])[:300] or "it printed nothing"


def verdict(reference: Ran, ours: Ran) -> Verdict:
    """Compares all fits, or those before the reference failed."""
    import numpy as np

    if ours.error:
        return Verdict("refused" if ours.error.startswith("tfscale.errors.") else "fails", ours.error)
    if not reference.out.exists():
        return Verdict("no reference", reference.error)
    first, second = np.load(reference.out), np.load(ours.out)
    if reference.error and not first.files:
        return Verdict("no reference", reference.error)
    names = set(first.files)
    if not reference.error and names != set(second.files):
        return Verdict("differs", f"only one has {', '.join(sorted(names ^ set(second.files))[:3])}")
    for name in first.files:
        if name not in second or first[name].shape != second[name].shape:
            return Verdict("differs", f"in the length of {name}")
    if all(first[name].tobytes() == second[name].tobytes() for name in names):
        return Verdict("equal", "to the bit")
    apart = {name: difference(first[name], second[name]) for name in first.files}
    weights = max((value for name, value in apart.items() if "/weights/" in name), default=0.0)
    where = max((name for name in apart if "/weights/" not in name), key=apart.__getitem__)
    history = f"{apart[where]:.0e} in {where}" if apart[where] else "History to the bit"
    return Verdict("close" if apart[where] <= CLOSE else "differs", f"{history}, weights {weights:.0e}")


def difference(first: Any, second: Any) -> float:
    """The largest, relative to the largest value; infinite where only one is finite."""
    import numpy as np

    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    finite = np.isfinite(first)
    if not np.array_equal(finite, np.isfinite(second)):
        return float("inf")
    if not finite.any():
        return 0.0
    apart = np.abs(first - second)[finite].max()
    return float(apart / max(np.abs(first[finite]).max(), 1e-6))


def compared(program: str, given: argparse.Namespace, folder: Path) -> list[str]:
    """The columns of the program's row, the verdict the first."""

    def ran(how: str, devices: int, where: str = "one") -> Ran:
        return run(program, how, devices, folder / where, given.seconds)

    one = ran("keras", 1)
    if given.keras:
        stock = ran("keras", given.devices, "two")
        return [*verdict(one, stock)]
    if given.workers > 1:
        workers = ran("script", given.workers)
        alone = verdict(one, workers)
        if alone.word != "differs":
            return [*alone]
        devices = verdict(ran("tfscale", given.workers), workers)
        if devices.word in ("equal", "close"):
            return [f"{devices.word} to {given.workers} devices", devices.why]
        return [alone.word, f"{alone.why}; from {given.workers} devices: {devices.word}, {devices.why}"]
    ours = ran("tfscale", given.devices)
    alone = verdict(one, ours)
    if given.devices == 1 or alone.word != "differs":
        return [*alone]
    mirrored = verdict(ran("built", given.devices), ours)
    if mirrored.word in ("equal", "close"):
        return [f"{mirrored.word} to Keras on {given.devices} devices", mirrored.why]
    return [alone.word, f"{alone.why}; from Keras on {given.devices} devices: {mirrored.word}, {mirrored.why}"]


def first_line(program: str) -> str:
    """What the program says of itself."""
    return (HERE / f"{program}.py").read_text().split('"""')[1].splitlines()[0]


def table(programs: list[str], row: Callable[[str], list[str]], at_once: int) -> int:
    """Prints a row per program as it comes, and the count of each verdict; 0 if all are equal or close."""
    words = []
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        print("| program | what it covers | verdict | why |\n|---|---|---|---|", flush=True)
        for program, (word, why) in zip(programs, pool.map(row, programs), strict=True):
            words.append(word)
            print(f"| {program} | {first_line(program)} | {word} | {why.replace('|', '/')} |", flush=True)
    print("\n" + ", ".join(f"{words.count(word)} {word}" for word in sorted(set(words))) + f", of {len(words)}")
    return int(not all(word.startswith(("equal", "close")) for word in words))


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("programs", nargs="*", default=PROGRAMS, help="their names; all where none is given")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--devices", type=int, default=1, help="logical devices of the CPU")
    parser.add_argument("--workers", type=int, default=1, help="processes of `tfscale run`")
    parser.add_argument("--keras", action="store_true", help="Keras in our place: whether a program repeats itself")
    parser.add_argument("--at-once", type=int, default=2, help="how many programs run at a time")
    parser.add_argument("--seconds", type=float, default=240, help="the longest that one run may take")
    parser.add_argument("--keep", type=Path, help="an empty folder for what the programs print and write")
    given = parser.parse_args()
    programs = [Path(name).stem for name in (QUICK if given.quick else given.programs)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.keep or Path(scratch)).resolve()
        return table(programs, lambda program: compared(program, given, folder), given.at_once)


if __name__ == "__main__":
    sys.exit(main())
