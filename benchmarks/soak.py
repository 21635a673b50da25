"""The soak: a job whose workers are killed again and again comes to the weights of the job that nobody touched.

    python -m benchmarks.soak --kills 20 --seconds 150 --seed 1

`tfscale launch --max-restarts` runs two workers once undisturbed and once with SIGKILL or SIGTERM sent to a random
worker at random moments: one in five while the processes start, the others when the attempt has trained for 0.5 to 1.5
times `--seconds`. The seed tells them all. Compared are the losses of all steps and the weights, bit by bit; goodput is
what result.json says of both (see tfscale/run_dir/goodput.py). The usual options take an hour on two cores.
With `--pause` each step rests, as processors do while an accelerator computes, and both runs go on side by side; with
`--pause 0` one follows the other, which takes twice as long.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
JOB = (
    "extensions.allow=[benchmarks.]",
    "+task._target_=benchmarks.soak_task.Perceptron",
    "data=synthetic",
    "data.image_size=28",
    "data.channels=1",
    "data.num_classes=10",
    "data.train_examples=51200",
    "data.test_examples=2560",
    "tracker=none",
    "optimizer.learning_rate=0.05",
    "train.global_batch=256",
    "train.log_every=10st",
    "eval.every=10ep",
    "checkpoint.every=3s",
    "plan.deterministic=true",
)
_EARLY = 0.2  # the share of the signals that come while the processes start
_START_SECONDS = 8.0  # within which they do
_POLL = 0.05


@dataclass(frozen=True)
class Hit:
    """A signal to come: to which worker, and when it has trained, or run, for so many seconds."""

    signum: signal.Signals
    worker: int
    early: bool
    seconds: float

    def __str__(self) -> str:
        when = "after the start" if self.early else "into the training"
        return f"{self.signum.name} to worker:{self.worker} {self.seconds:.1f} s {when}"


@dataclass(frozen=True)
class Soaked:
    """What a run came to."""

    code: int
    losses: dict[int, str]
    weights: str  # SHA-256 over the newest checkpoint's files
    result: Mapping[str, Any]
    hits: int  # signals that were sent
    restarts: int  # as the launcher tells them

    @property
    def goodput(self) -> Mapping[str, Any]:
        return self.result.get("goodput") or {}


def schedule(kills: int, seconds: float, seed: int, workers: int) -> list[Hit]:
    """Args: seconds: of training between two signals, on average."""
    chance, hits = random.Random(seed), []
    for _ in range(kills):
        early = chance.random() < _EARLY
        after = chance.uniform(0.0, _START_SECONDS) if early else seconds * chance.uniform(0.5, 1.5)
        signum = chance.choice((signal.SIGKILL, signal.SIGTERM))
        hits.append(Hit(signum, chance.randrange(workers), early, after))
    return hits


def soak(
    overrides: Sequence[str],
    run_dir: Path,
    hits: Sequence[Hit] = (),
    *,
    log: Path,
    environ: Mapping[str, str],
    workers: int = 2,
    deadline: float = 3600.0,
    say=print,
) -> Soaked:
    """Runs a job in `run_dir` to its end, with these signals on its way; raises TimeoutError."""
    options = ("--workers", str(workers), "--max-restarts", str(2 * len(hits) + 1))
    command = [sys.executable, "-m", "tfscale.launch", *options, "--", *overrides, f"run.dir={run_dir}"]
    end = time.monotonic() + deadline
    with log.open("ab") as stream, _running(command, environ, stream) as launcher:
        sent, before = 0, frozenset[int]()
        for hit in hits:
            pids = _fresh_workers(launcher, workers, before, end)
            if not pids or not _moment(hit, launcher, run_dir, end):
                break  # the job has ended
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[hit.worker], hit.signum)
                sent += 1
                say(f"{sent} of {len(hits)}: {hit}, at step {_last_step(run_dir)}")
            before = frozenset(pids)
        code = launcher.wait(max(1.0, end - time.monotonic()))
    return Soaked(
        code,
        _losses(run_dir),
        _weights(run_dir),
        json.loads((run_dir / "result.json").read_text()) if code == 0 else {},
        sent,
        log.read_text(errors="replace").count("| restart "),
    )


@contextlib.contextmanager
def _running(command: list[str], environ: Mapping[str, str], stream: Any) -> Iterator[subprocess.Popen]:
    told = {k: v for k, v in environ.items() if k != "TF_CONFIG"}
    launcher = subprocess.Popen(
        command, env=told, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
    )
    try:
        yield launcher
    finally:
        launcher.kill()  # its guard ends the workers
        launcher.wait()


def _fresh_workers(launcher: subprocess.Popen, count: int, before: frozenset[int], end: float) -> list[int]:
    """The workers' processes by index, none of them one of `before`; [] where the job has ended."""
    while launcher.poll() is None:
        found = dict(sorted((index, pid) for pid, index in _children(launcher.pid) if pid not in before))
        if len(found) == count:
            return list(found.values())
        _wait(end)
    return []


def _children(parent: int) -> Iterator[tuple[int, int]]:
    """Process and index of those that this process has started with a TF_CONFIG."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) != parent:
                continue
            for entry in (folder / "environ").read_bytes().split(b"\0"):
                if entry.startswith(b"TF_CONFIG="):
                    yield int(folder.name), json.loads(entry.partition(b"=")[2])["task"]["index"]


def _moment(hit: Hit, launcher: subprocess.Popen, run_dir: Path, end: float) -> bool:
    """Waits for it; False where the job has ended before."""
    if not hit.early:
        began = _begun(run_dir)
        while _begun(run_dir) == began:  # until this attempt has restored its state
            if launcher.poll() is not None:
                return False
            _wait(end)
    until = time.monotonic() + hit.seconds
    while time.monotonic() < until:
        if launcher.poll() is not None:
            return False
        _wait(end)
    return True


def _begun(run_dir: Path) -> int:
    """How often training has begun."""
    with contextlib.suppress(OSError):
        return (run_dir / "attempts.jsonl").read_text().count('"kind": "begin"')
    return 0


def _wait(end: float) -> None:
    if time.monotonic() > end:
        raise TimeoutError("the soak has not ended in time")
    time.sleep(_POLL)


def _rows(run_dir: Path) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(OSError):
        for line in (run_dir / "metrics.jsonl").read_text().splitlines():
            with contextlib.suppress(ValueError):  # just being written, or torn by a kill
                yield json.loads(line)


def _last_step(run_dir: Path) -> int:
    return max((row["step"] for row in _rows(run_dir)), default=0)


def _losses(run_dir: Path) -> dict[int, str]:
    return {row["step"]: float(row["loss"]).hex() for row in _rows(run_dir) if row["kind"] == "train"}


def _weights(run_dir: Path) -> str:
    newest = max(run_dir.glob("checkpoints/step-*/manifest.json"), default=None)
    if newest is None:
        return ""
    files = json.loads(newest.read_text())["files"]
    return hashlib.sha256(
        json.dumps(sorted((name, said["sha256"]) for name, said in files.items())).encode()
    ).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 where the bits are the same and all signals were sent."""
    from benchmarks import report

    made = argparse.ArgumentParser(prog="benchmarks.soak", description=(__doc__ or "").splitlines()[0])
    made.add_argument("--kills", type=int, default=20, help="signals that are sent (default 20)")
    made.add_argument("--seconds", type=float, default=150.0, help="of training between two, on average (default 150)")
    made.add_argument("--seed", type=int, default=None, help="of workers, signals and moments (default: a new one)")
    made.add_argument("--pause", type=float, default=0.1, help="seconds that each step rests (default 0.1)")
    made.add_argument("--dir", type=Path, default=ROOT / "build" / "soak", help="where the runs are kept")
    made.add_argument("--report", type=Path, help="a Markdown file to write; must not exist yet")
    options = made.parse_args(argv)
    if options.report and options.report.exists():
        made.error(f"{options.report} exists; reports are never overwritten")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10_000)
    hits = schedule(options.kills, options.seconds, seed, 2)
    print(f"seed {seed}: {options.kills} signals, on average {options.seconds:g} s of training apart", flush=True)
    steps, clean, hurt = _both(options, seed, hits)
    same = clean.weights == hurt.weights != "" and clean.losses == hurt.losses
    report.publish(_report(options, seed, steps, clean, hurt, same=same), options.report)
    return 0 if same and (clean.code, hurt.code) == (0, 0) and hurt.hits == len(hits) else 1


def _both(options: argparse.Namespace, seed: int, hits: Sequence[Hit]) -> tuple[int, Soaked, Soaked]:
    folder = options.dir / f"seed-{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True)
    python_path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    environ = {**os.environ, "PYTHONPATH": python_path}

    paused = (f"+task.pause={options.pause:g}", "+task.width=256") if options.pause else ()

    def run(name: str, steps: int, hits: Sequence[Hit] = ()) -> Soaked:
        deadline = 600 + 4 * options.kills * (options.seconds + 60)
        overrides = [*JOB, *paused, f"train.until={steps}st"]
        log = folder / f"{name}.txt"
        ran = soak(overrides, folder / name, hits, log=log, environ=environ, deadline=deadline, say=_say)
        _say(f"{name}: {steps} steps ended with {ran.code}, goodput {ran.goodput.get('share', 0):.1%}; {log}")
        return ran

    speed = run("speed", 200).result["examples_per_second"]
    # A signal in mid-training costs its time and the restart's; those in the start-up cost no training
    steps = int(1.1 * options.kills * options.seconds * speed / 256)
    with ThreadPoolExecutor(2 if options.pause else 1) as pool:
        clean, hurt = pool.submit(run, "clean", steps), pool.submit(run, "hurt", steps, hits)
        return steps, clean.result(), hurt.result()


def _say(text: str) -> None:
    print(text, flush=True)


def _report(options: argparse.Namespace, seed: int, steps: int, clean: Soaked, hurt: Soaked, *, same: bool) -> Any:
    from benchmarks import report

    rows = [
        (
            name,
            str(ran.code),
            str(ran.hits),
            str(ran.restarts),
            f"{ran.goodput.get('wall_seconds', 0):.0f}",
            f"{ran.goodput.get('share', 0):.3f}",
            ", ".join(f"{cause} {lost:.0f}" for cause, lost in ran.goodput.get("losses", {}).items() if lost >= 0.5),
            ran.weights[:16],
        )
        for name, ran in (("undisturbed", clean), ("disturbed", hurt))
    ]
    columns = ("run", "code", "signals", "restarts", "seconds", "goodput", "lost seconds by cause", "weights")
    notes = (
        f"{options.kills} signals (SIGKILL or SIGTERM to one of two workers), seed {seed}: one in five in the "
        f"start-up, the others after {0.5 * options.seconds:g} to {1.5 * options.seconds:g} s of training",
        *([f"each step rests for {options.pause:g} s; both runs side by side"] if options.pause else ()),
        f"{steps} steps; all losses and the weights of both runs have {'the same' if same else 'DIFFERENT'} bits",
    )
    return report.Report("Soak", report.surroundings(), [report.Table("two workers", columns, rows, notes)])


if __name__ == "__main__":
    sys.exit(main())
