"""What dividing a step among workers costs: two workers of one core each against one worker of two, same global batch.

    python -m benchmarks.scaling --workload all --report benchmarks/results/DATE-scaling.md

`digits`: the ResNet-20 of +recipe=resnet, 1 MB of gradients a step. `resnet50`: ResNet-50 at 128 px, 102 MB of them.
Beside tfscale's packs stand one pack, as Keras would reduce, and PyTorch alone and under DistributedDataParallel with
gloo. All compute in float32 and are confined to the same two cores, so that a ratio of 1 says that dividing costs
nothing. PyTorch is installed into build/torch at the first run; without it the rest is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.asking import Asking, NotAsked
from benchmarks.outcomes import Outcome, of_measured
from benchmarks.scaling_member import LEARNING_RATE, MOMENTUM, Member, Workload
from benchmarks.scaling_processes import free_addresses, started
from benchmarks.scaling_torch import REQUIREMENT
from benchmarks.side_by_side import (
    ROOT,
    TOLERANCE,
    ContestantFailed,
    Measured,
    Question,
    Ratio,
    in_blocks,
    median_interval,
)

TORCH = ROOT / "build" / "torch"  # an environment of PyTorch's own
CORES = 2
CLAIMED = 0.03  # a smaller difference is not claimed from wall time alone

WORKLOADS = {
    "digits": Workload(depth=20, width=16, image_size=28, channels=1, num_classes=10, global_batch=64),
    "resnet50": Workload(depth=50, width=64, image_size=128, channels=3, num_classes=1000, global_batch=16),
}


@dataclass(frozen=True)
class Party:
    """A contestant: `processes` share the cores and the global batch evenly."""

    name: str
    processes: int
    module: str = "benchmarks.scaling_ours"
    bytes_per_pack: int | None = None
    wire: str = "full"

    @property
    def is_torch(self) -> bool:
        return self.module == "benchmarks.scaling_torch"


ONE = Party("one worker", 1)
AGAIN = Party("one worker again", 1)
TWO = Party("two workers", 2)
ONE_PACK = Party("two workers, one pack", 2, bytes_per_pack=0)
BFLOAT16 = Party("two workers, bfloat16 wire", 2, wire="bfloat16")
TORCH_ONE = Party("torch", 1, module="benchmarks.scaling_torch")
TORCH_TWO = Party("torch DDP", 2, module="benchmarks.scaling_torch")
PARTIES = (ONE, AGAIN, TWO, ONE_PACK, BFLOAT16, TORCH_ONE, TORCH_TWO)

# Of throughputs, the first to the second.
RATIOS = (
    (TWO, ONE),
    (ONE_PACK, ONE),
    (BFLOAT16, ONE),
    (TORCH_TWO, TORCH_ONE),
    (TWO, ONE_PACK),
    (TWO, TORCH_TWO),
    (ONE, TORCH_ONE),
)

NOTES = (
    f"Equal architecture and trainable parameters, SGD({LEARNING_RATE:g}, momentum {MOMENTUM:g}), float32, uint8 images"
    " already in memory, random labels. tfscale's threads, packs and determinism are the plan's own choice.",
    "A contestant's processes are confined to the same two cores: one process to both, or two to one each. They get the"
    " same number of steps and are one unit: its time is that of its slowest process, its CPU time that of all.",
    "One pack is tfscale with plan.bytes_per_pack=0, TensorFlow's default, as Keras would leave it: Keras 3's own fit"
    " does not run in several workers. tfscale also averages BatchNorm's statistics in every step, and DDP sends those"
    " of its first process to the other one.",
)


# -- PyTorch


def torch_python(say: Callable[[str], None]) -> Path:
    """The interpreter of an environment that holds PyTorch, made where it is missing; raises RuntimeError."""
    python, ready = TORCH / "bin" / "python", TORCH / ".ready"
    if ready.exists() and ready.read_text() == REQUIREMENT:
        return python
    say(f"installing {REQUIREMENT} into {TORCH}")
    venv.create(TORCH, clear=True, with_pip=True)
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
        hint = "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu names the packages for CPUs"
        raise RuntimeError(f"{REQUIREMENT} could not be installed ({_last_line(done.stderr)}); {hint}")
    ready.write_text(REQUIREMENT)
    return python


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["pip said nothing"])[-1]


# -- measuring


def measure(
    title: str,
    workload: Workload,
    interpreters: dict[Party, Path],
    *,
    blocks: int,
    seconds: float,
    seed: int,
    say: Callable[[str], None],
) -> Measured:
    """Starts the groups one after another and runs the blocks, each with one window per group in random order.

    Args:
        interpreters: the parties that take part, and the Python that runs them.
        seconds: the length of a window.

    Raises:
        ContestantFailed: a process ended or hung, or two contestants' models differ in size.
    """
    parties = {
        party.name: ([str(python), "-m", party.module], _members(party, workload))
        for party, python in interpreters.items()
    }
    with started(parties, say) as groups:
        facts = {group.name: group.facts for group in groups}
        if len({group.facts["parameters"] for group in groups}) > 1:
            raise ContestantFailed(f"the models differ in size, so that nothing can be compared: {facts}")
        per_step, cpu = in_blocks(groups, blocks=blocks, seconds=seconds, seed=seed, say=say)
    question = Question(
        title=title,
        unit="examples/s",
        contestants=(),
        claims=(),
        control=(AGAIN.name, ONE.name),
        baseline=ONE.name,
        batch=workload.global_batch,
        notes=NOTES,
    )
    return Measured(question, per_step, cpu, facts, seed)


def _members(party: Party, workload: Workload) -> list[Member]:
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    addresses, share = free_addresses(party.processes), CORES // party.processes
    return [
        Member(workload, rank, tuple(cores[rank * share :][:share]), addresses, party.bytes_per_pack, party.wire)
        for rank in range(party.processes)
    ]


def outcomes(part: str, asking: Asking) -> list[Outcome]:
    """Raises NotAsked, ContestantFailed."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < CORES:
        raise NotAsked(f"it confines processes to {CORES} cores, which takes Linux and as many cores")
    parties = [ONE, TWO] if asking.quick else [party for party in PARTIES if not party.is_torch]
    interpreters = dict.fromkeys(parties, Path(sys.executable))
    if not asking.quick:
        try:
            interpreters |= dict.fromkeys([party for party in PARTIES if party.is_torch], torch_python(asking.say))
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            asking.say(f"without PyTorch: {error}")
    found = measure(
        _title(part, WORKLOADS[part]),
        WORKLOADS[part],
        interpreters,
        blocks=asking.blocks,
        seconds=asking.seconds,
        seed=asking.seed,
        say=asking.say,
    )
    pairs = [(TWO.name, TORCH_TWO.name), (ONE.name, TORCH_ONE.name), (TWO.name, ONE_PACK.name), (TWO.name, ONE.name)]
    return [of_measured(f"scaling:{part}", found, pairs=pairs)]


# -- reporting


def build_report(results: list[Measured], *, blocks: int, seconds: float, missing: str) -> report.Report:
    """As the other benchmarks report, with ratios of throughputs in the place of claims."""
    made = report.build("Scaling from one worker to two", results, blocks=blocks, seconds=seconds)
    method = (
        f"method: one group of long-lived processes per contestant, one running at a time while the others wait;"
        f" {blocks} blocks of one window of about {seconds:g} s per contestant in random order; ratios within each"
        f" block; median with 95 % bootstrap interval; inconclusive unless the A/A control reads 1.00 +- {TOLERANCE:g}"
    )
    facts = [*made.facts[:-1], method]
    if missing:
        facts.append(f"without PyTorch: {missing}")
    tables = []
    for contestants, measured in zip(made.tables[::2], results, strict=True):
        tables += [contestants, _ratios(measured)]
    return dataclasses.replace(made, facts=facts, tables=tables)


def _ratios(measured: Measured) -> report.Table:
    control = "within" if measured.control_holds() else "inconclusive: not within"
    verdict = f"{control} 1.00 +- {TOLERANCE:g}"
    rows = [_row(measured, f"A/A control: {AGAIN.name} / {ONE.name}", AGAIN, ONE, verdict)]
    for first, second in RATIOS:
        if first.name in measured.seconds and second.name in measured.seconds:
            ratio = measured.ratio(second.name, first.name)
            rows.append(_row(measured, f"{first.name} / {second.name}", first, second, _verdict(measured, ratio)))
    columns = ("claim", "ratio of throughputs [95 %]", "ratio of CPU s per step [95 %]", "verdict")
    return report.Table("claims", columns, rows)


def _row(measured: Measured, text: str, first: Party, second: Party, verdict: str) -> tuple[str, ...]:
    throughput = measured.ratio(second.name, first.name)
    spent = {name: measured.cpu[name] * measured.seconds[name] for name in (first.name, second.name)}
    cpu = median_interval(spent[first.name] / spent[second.name], seed=measured.seed)
    return text, str(throughput), str(cpu), verdict


def _verdict(measured: Measured, ratio: Ratio) -> str:
    if not measured.control_holds():
        return "inconclusive (A/A control off)"
    if ratio.low <= 1 <= ratio.high:
        return "no difference seen"
    if abs(ratio.median - 1) < CLAIMED:
        return f"a difference under {CLAIMED:.0%}, which is not claimed"
    return f"{abs(ratio.median - 1):.0%} {'faster' if ratio.median > 1 else 'slower'}"


def _title(name: str, workload: Workload) -> str:
    return (
        f"{name}: ResNet-{workload.depth}, width {workload.width}, {workload.image_size} px,"
        f" {workload.channels} channel(s), global batch {workload.global_batch}, float32"
    )


def main(arguments: list[str] | None = None) -> int:
    chosen = _parse(arguments)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    interpreters, missing = {party: Path(sys.executable) for party in PARTIES if not party.is_torch}, ""
    try:
        python = torch_python(say)
        interpreters |= {party: python for party in PARTIES if party.is_torch}
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        missing = str(error)
        say(f"without PyTorch: {missing}")
    names = list(WORKLOADS) if chosen.workload == "all" else [chosen.workload]
    try:
        results = [
            measure(
                _title(name, WORKLOADS[name]),
                WORKLOADS[name],
                interpreters,
                blocks=chosen.blocks,
                seconds=chosen.seconds,
                seed=chosen.seed,
                say=say,
            )
            for name in names
        ]
    except ContestantFailed as error:
        say(f"scaling: {error}")
        return 1
    made = build_report(results, blocks=chosen.blocks, seconds=chosen.seconds, missing=missing)
    report.publish(made, chosen.report)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = report.parser("python -m benchmarks.scaling", __doc__.splitlines()[0], seconds=3.0)
    parser.add_argument("--workload", choices=[*WORKLOADS, "all"], default="all")
    chosen = report.parsed(parser, arguments)
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < CORES:
        parser.error(f"it confines processes to {CORES} cores, which takes Linux and as many cores")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
