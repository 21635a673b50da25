"""What was measured, as tables for people: by rich on the terminal, as Markdown in a dated file.

report = build([measured], blocks=15, seconds=2.0)
publish(report, Path("benchmarks/results/2026-01-31-overhead.md"))
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.side_by_side import TOLERANCE, Measured
from tfscale.console import table
from tfscale.hardware import probe


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    title: str
    facts: list[str]
    tables: list[Table]


def build(title: str, results: Sequence[Measured], *, blocks: int, seconds: float) -> Report:
    """Args: what was measured, and with how many blocks of windows of which length."""
    tables = [each for measured in results for each in (_contestants(measured), _verdicts(measured))]
    return Report(title, [*surroundings(), _method(blocks, seconds)], tables)


def surroundings() -> list[str]:
    """What the machine and its software are."""
    hardware = probe()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "keras", "numpy"))
    return [
        f"date: {datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        f"machine: {hardware.describe()}; CPU model {hardware.cpu.model}, {hardware.cores:g} cores",
        f"versions: {versions}, Python {platform.python_version()}",
    ]


def _method(blocks: int, seconds: float) -> str:
    return (
        f"method: one process per contestant, one running at a time; {blocks} blocks of one window of about"
        f" {seconds:g} s per contestant in random order; ratios of seconds per step within each block; median with"
        f" 95 % bootstrap interval; inconclusive unless the A/A control reads 1.00 +- {TOLERANCE:g}"
    )


def _contestants(measured: Measured) -> Table:
    question = measured.question
    rows = []
    for name, seconds in measured.seconds.items():
        is_baseline = name == question.baseline
        facts = measured.facts[name]
        rows.append(
            (
                name,
                f"{measured.figure(name):,.1f}",
                f"{float(seconds.min()) * 1e3:.4g} to {float(seconds.max()) * 1e3:.4g}",
                f"{float(sum(measured.cpu[name]) / len(seconds)):.2f}",
                "1" if is_baseline else str(measured.ratio(name, question.baseline)),
                f"{facts['parameters']:,}" if "parameters" in facts else "",
                str(facts.get("how", "")),
            )
        )
    columns = (
        "contestant",
        f"{question.unit}, median",
        "ms/step, range",
        "CPU s per s",
        f"time per step / {question.baseline}",
        "trainable",
        "how",
    )
    return Table(question.title, columns, rows, question.notes)


def _verdicts(measured: Measured) -> Table:
    first, second = measured.question.control
    control = "within" if measured.control_holds() else "inconclusive: not within"
    rows = [(f"A/A control: {first} / {second}", str(measured.control()), f"{control} 1.00 +- {TOLERANCE:g}")]
    for claim in measured.question.claims:
        rows.append((claim.text, str(measured.ratio(claim.over, claim.under)), measured.verdict(claim)))
    return Table("claims", ("claim", "ratio of seconds per step [95 %]", "verdict"), rows)


def show(report: Report) -> None:
    """Prints the report to the terminal."""
    print(report.title, *report.facts, sep="\n")
    for each in report.tables:
        print()
        print(table(each.rows, each.columns, title=each.title))
        for note in each.notes:
            print(f"- {note}")


def markdown(report: Report) -> str:
    lines = [f"# {report.title}", "", *(f"- {fact}" for fact in report.facts)]
    for each in report.tables:
        lines += ["", f"## {each.title}" if each.title != "claims" else "### Claims", ""]
        lines += [_row(each.columns), _row(("---",) * len(each.columns)), *map(_row, each.rows)]
        if each.notes:
            lines += ["", *(f"- {note}" for note in each.notes)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def parser(prog: str, description: str, *, seconds: float) -> argparse.ArgumentParser:
    """The options that all benchmarks have; `seconds` is the usual length of a window."""
    made = argparse.ArgumentParser(prog=prog, description=description)
    made.add_argument("--blocks", type=int, default=15, help="each gives every contestant one window")
    made.add_argument("--seconds", type=float, default=seconds, help="the length of a window")
    made.add_argument("--seed", type=int, default=0, help="of the order within blocks and of the bootstrap")
    made.add_argument("--report", type=Path, help="a Markdown file to write; must not exist yet")
    return made


def parsed(made: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, held against what these options allow; ends the program otherwise."""
    chosen = made.parse_args(arguments)
    if chosen.blocks < 1 or chosen.seconds <= 0:
        made.error("--blocks and --seconds must be positive")
    if chosen.report and chosen.report.exists():
        made.error(f"{chosen.report} exists; reports are never overwritten")
    return chosen


def publish(report: Report, file: Path | None) -> None:
    """Shows the report, and writes it where a file was asked for."""
    show(report)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x") as stream:
            stream.write(markdown(report))
