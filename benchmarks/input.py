"""What one core feeds: photos as random-resized crops, by us, plain tf.data, PyTorch's DataLoader and Grain.

    python -m benchmarks.input clothing10-256px.tar --report benchmarks/results/DATE-input.md

The photos of a tar of class folders, as they are and resized once to each of --sides (their shorter side, JPEG of
quality 90), are read, cropped to 8-100 % of their area, resized to 224 px and put into batches of 32, on one and the
same core. libjpeg-turbo's own rate stands beside it. Ratios are of CPU seconds per image, since the core may be shared.

Two more figures of ours: how long a consumer waits that takes 80 % of what the pipeline gives, as an accelerator does,
without the core's help; and, with --million NAME, a data set of that name below --dir, how long its first batch takes
at steps 0 and 100,000, in processes started anew. The peers are installed into build/input-peers at the first run;
without them the rest is measured.
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.asking import Asking, NotAsked
from benchmarks.input_loaders import BATCH, SIZE
from benchmarks.outcomes import Outcome, of_measured
from benchmarks.report import Table
from benchmarks.side_by_side import ROOT, TOLERANCE, Claim, Contestant, ContestantFailed, Measured, Question, measure

REQUIREMENTS = Path(__file__).with_name("input_peers.txt")
PEERS = ROOT / "build" / "input-peers"
BASELINE, OURS, AGAIN = "plain tf.data", "ours", "ours again"
THEIRS = {
    "DataLoader, Pillow": "torch_pillow",
    "DataLoader, OpenCV": "torch_opencv",
    "Grain": "grain",
    "libjpeg-turbo alone": "libjpeg",
}
AS_THEY_ARE = "256"  # the part of the suite's question: photos of this shorter side
AIMS = {0: 1.4}  # of plain tf.data's rate, by the photos' shorter side; else LARGE
LARGE = 1.8
LOAD, STEPS = 0.8, 150  # of the consumer
RESUMED, STARTS = 100_000, 5
NOTES = (
    f"Batches of {BATCH} crops of {SIZE} px. Every contestant is one process on the same core, and reads files that are"
    " in the system's memory. Ours and the peers give uint8; plain tf.data gives float32, as its own functions do. Ours"
    " mirrors on the device, and the others here.",
    "Images per CPU second is what one core gives to that process alone; images per second of the clock is less where"
    " something else had its share of the core.",
)


def main(words: Sequence[str] | None = None) -> int:
    made = report.parser("python -m benchmarks.input", (__doc__ or "").splitlines()[0], seconds=2.0)
    made.add_argument("photos", type=Path)
    made.add_argument("--sides", type=int, nargs="*", default=[512, 1024], help="of larger photos, made of these")
    made.add_argument("--million", help="a prepared data set, whose first batches are timed")
    made.add_argument("--dir", type=Path, default=Path("data"))
    options = report.parsed(made, words)
    python = peers_python(print)
    results: list[Measured] = []
    tables: list[Table] = []
    with tempfile.TemporaryDirectory() as scratch:
        for side in (0, *options.sides):
            folder = photos_of(options.photos, side, Path(scratch))
            asked = question(folder, side, python)
            try:
                results.append(
                    measure(asked, blocks=options.blocks, seconds=options.seconds, seed=options.seed, say=print)
                )
            except ContestantFailed as error:
                print(error, file=sys.stderr)
                return 1
            if side == 0:
                tables.append(waiting(folder))
    if options.million:
        tables.append(resuming(options.million, options.dir))
    found = [table for measured in results for table in (rates(measured), verdicts(measured))]
    method = (
        f"method: one process per contestant, one running at a time; {options.blocks} blocks of one window of about"
        f" {options.seconds:g} s per contestant in random order; ratios of CPU seconds per image within each block;"
        f" median with 95 % bootstrap interval; inconclusive unless the A/A control reads 1.00 +- {TOLERANCE:g}"
    )
    facts = [*report.surroundings(), method]
    report.publish(report.Report("What one core feeds", facts, [*found, *tables]), options.report)
    return 0


def peers_python(say: Callable[[str], None]) -> Path | None:
    """The interpreter of the peers' environment, made where it is missing; None where that fails."""
    python, ready = PEERS / "bin" / "python", PEERS / ".ready"
    if ready.exists() and ready.read_text() == REQUIREMENTS.read_text():
        return python
    say(f"installing {REQUIREMENTS.name} into {PEERS}")
    venv.create(PEERS, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:"]
    done = subprocess.run([*pip, "-r", str(REQUIREMENTS)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        say(f"without the peers: {(done.stderr.strip().splitlines() or ['pip said nothing'])[-1]}")
        return None
    ready.write_text(REQUIREMENTS.read_text())
    return python


def photos_of(tar: Path, side: int, scratch: Path) -> Path:
    """A folder of the photos; with a side every seventh of them, resized to that."""
    from PIL import Image

    whole = scratch / "0"
    if not whole.exists():
        with tarfile.open(tar) as archive:
            archive.extractall(whole / "train", filter="data")
        for file in whole.rglob("*"):  # class folders alone, whatever lies beside them
            if file.is_file() and file.suffix != ".jpg":
                file.unlink()
    if not side:
        return whole
    folder = scratch / str(side)
    for number, file in enumerate(sorted(whole.rglob("*.jpg"))):
        if number % 7:
            continue
        image = Image.open(file).convert("RGB")
        by = side / min(image.size)
        target = folder / file.relative_to(whole)
        target.parent.mkdir(parents=True, exist_ok=True)
        image.resize((round(image.width * by), round(image.height * by)), Image.Resampling.BICUBIC).save(
            target, quality=90
        )
    return folder


def question(folder: Path, side: int, python: Path | None) -> Question:
    module, where = "benchmarks.input_loaders", (str(folder),)
    contestants = [
        Contestant(name, f"{module}:{function}", where)
        for name, function in ((BASELINE, "plain"), (OURS, "ours"), (AGAIN, "ours"))
    ]
    theirs = THEIRS if python else {}
    contestants += [Contestant(name, f"{module}:{function}", where, str(python)) for name, function in theirs.items()]
    aim = AIMS.get(side, LARGE)
    claims = [Claim(f"ours gives {aim:g} times what plain tf.data does", BASELINE, OURS, low=aim)]
    claims += [
        Claim(f"ours gives at least what {name} does", name, OURS, low=1.0)
        for name in theirs
        if theirs[name] != "libjpeg"
    ]
    what = f"photos of {side} px and more" if side else "the photos as they are, 256 px"
    return Question(what, "images/s", tuple(contestants), tuple(claims), (AGAIN, OURS), BASELINE, BATCH, NOTES)


def outcomes(part: str, asking: Asking) -> list[Outcome]:
    """Of CPU seconds per image, of photos as they are ("256") or of this shorter side.

    Raises:
        NotAsked, ContestantFailed.
    """
    if not asking.quick and not (asking.photos and asking.photos.is_file()):
        raise NotAsked("give a tar of class folders of JPEG photos by --photos FILE")
    side = 0 if part == AS_THEY_ARE else int(part)
    with tempfile.TemporaryDirectory() as scratch:
        photos = asking.photos if asking.photos and not asking.quick else drawn_photos(Path(scratch) / "photos.tar")
        python = None if asking.quick else peers_python(asking.say)
        asked = question(photos_of(photos, side, Path(scratch)), side, python)
        found = asking.measure(asked)
    limit = next(name for name, function in THEIRS.items() if function == "libjpeg")
    pairs = [(OURS, name) for name in found.seconds if name not in (OURS, AGAIN, limit)]
    return [of_measured(f"input:{part}", per_core(found), pairs=pairs, limits=[limit])]


def drawn_photos(tar: Path) -> Path:
    """A tar of a few photos, which no camera took."""
    import numpy as np
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder, tarfile.open(tar, "w") as archive:
        for number in range(2 * BATCH):
            file = Path(folder) / f"{number}.jpg"
            pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).resize((256, 256)).save(file)
            archive.add(file, f"{number % 2}/{number}.jpg")
    return tar


def per_core(measured: Measured) -> Measured:
    """The same with CPU seconds in the place of seconds."""
    return dataclasses.replace(
        measured, seconds={name: wall * measured.cpu[name] for name, wall in measured.seconds.items()}
    )


def rates(measured: Measured) -> Table:
    core = per_core(measured)
    rows = [
        (
            name,
            f"{core.figure(name):,.0f}",
            f"{measured.figure(name):,.0f}",
            "1" if name == BASELINE else str(core.ratio(BASELINE, name)),
            str(measured.facts[name]["how"]),
        )
        for name in measured.seconds
    ]
    columns = ("contestant", "images per CPU s", "images/s", f"times {BASELINE} [95 %]", "how")
    return Table(measured.question.title, columns, rows, measured.question.notes)


def verdicts(measured: Measured) -> Table:
    core = per_core(measured)
    control = "within" if core.control_holds() else "inconclusive: not within"
    rows = [(f"A/A control: {AGAIN} / {OURS}", str(core.control()), f"{control} 1.00 +- {TOLERANCE:g}")]
    rows += [(one.text, str(core.ratio(one.over, one.under)), core.verdict(one)) for one in measured.question.claims]
    return Table("claims", ("claim", "ratio of CPU s per image [95 %]", "verdict"), rows)


# -- figures of ours alone


def waiting(folder: Path) -> Table:
    """Of a consumer whose steps make 80 % of the pipeline's rate: the share of its time that it waits."""
    done = _in_python(f"from benchmarks.input import wait; wait({str(folder)!r})")
    found = [tuple(map(float, line.split()[1:])) for line in done.splitlines() if line.startswith("waited ")]
    rates, shares = zip(*found, strict=True)
    share = f"{statistics.median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%})"
    rows = [(f"{statistics.median(rates):,.0f}", f"{LOAD:.0%}", share)]
    columns = ("images/s without a consumer", "what the consumer takes of them", "it waits, of its time")
    return Table(
        f"a consumer of {STEPS} steps on the photos as they are, {STARTS} times, median (range)", columns, rows
    )


def wait(folder: str) -> None:
    """Prints the pipeline's rate and the consumer's share of waiting, several times; in a process of its own."""
    from benchmarks.input_loaders import our_batches

    batches = our_batches(folder)
    for _ in range(10):
        next(batches)
    for _ in range(STARTS):
        start = time.perf_counter()
        for _ in range(STEPS):
            next(batches)
        step = (time.perf_counter() - start) / STEPS
        waited, start = 0.0, time.perf_counter()
        for _ in range(STEPS):
            before = time.perf_counter()
            next(batches)
            waited += time.perf_counter() - before
            time.sleep(step / LOAD)  # an accelerator computes
        print("waited", BATCH / step, waited / (time.perf_counter() - start))


def _in_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def resuming(name: str, folder: Path) -> Table:
    """Seconds from a process's start to its first batch of a prepared data set, at the first step and a late one."""
    times: dict[int, list[tuple[float, float]]] = {0: [], RESUMED: []}
    for _ in range(STARTS):
        for step in times:
            start = time.perf_counter()
            call = f"first_batch({name!r}, {str(folder.resolve())!r}, {step})"
            done = _in_python(f"from benchmarks.input import first_batch; {call}")
            times[step].append((time.perf_counter() - start, float(done.split()[-1])))
    rows = [
        (
            f"{step:,}",
            *(f"{statistics.median(one):.2f} ({min(one):.2f} to {max(one):.2f})" for one in zip(*found, strict=True)),
        )
        for step, found in times.items()
    ]
    columns = ("step", "s from the process's start", "of which s for the index, the pipeline and the batch")
    return Table(f"the first batch of {name}, {STARTS} starts each, median (range)", columns, rows)


def _range(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def first_batch(name: str, folder: str, step: int) -> None:
    """Prints the seconds until the first batch, TensorFlow imported."""
    import tensorflow as tf

    from tfscale.cluster import Cluster
    from tfscale.data.order import Portion, Shard
    from tfscale.data.pipeline import build_dataset
    from tfscale.data.prepared import Prepared
    from tfscale.hardware import probe
    from tfscale.plan.execution_plan import make_plan
    from tfscale.plan.request import PlanRequest
    from tfscale.task import Task

    plan = make_plan(probe(), Cluster(), PlanRequest(global_batch=BATCH))
    assert tf.constant(0) == 0  # devices are there
    start = time.perf_counter()
    source = Prepared(name=name, dir=folder)
    source.check()
    source.prepare()
    portion = Portion("train", Shard(BATCH), training=True, start_step=step)
    next(iter(build_dataset(source, Task(), portion, plan)))
    print(time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
