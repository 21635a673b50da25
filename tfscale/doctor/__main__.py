"""Entry point: `tfscale doctor [run.root=PATH ...]`: parse, look at everything, print it."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tfscale.cli import Program, number, place
from tfscale.composition.composed_places import Places, compose_places
from tfscale.console import columns, table, write_line
from tfscale.console.messages import RESULT, bare, figures, shown
from tfscale.doctor.cluster_check import look_at_cluster
from tfscale.doctor.diagnosis import OK, WARNING, WRONG, Finding, guarded, hide_secrets, shareable, worst
from tfscale.doctor.machine import look_at_machine
from tfscale.doctor.packages import look_at_packages
from tfscale.doctor.places import look_at_folder, look_at_settings, look_at_store, look_at_tracker
from tfscale.doctor.self_test import self_test
from tfscale.doctor.tensorflow_check import look_at_tensorflow
from tfscale.errors import CheckFailed
from tfscale.files import dumps
from tfscale.hardware import Hardware, memory_kills, probe
from tfscale.version import __version__

_log = logging.getLogger("tfscale.doctor")
_TRAININGS = 5  # times the seconds of an import that a training of the self-test has
_FORMAT = 1  # of --json; another number once a key goes or means something else


def main(argv: Sequence[str] | None = None) -> int:
    """Looks; returns the exit code, 1 where something is wrong."""
    program = Program(
        "doctor",
        "Says what is wrong with this machine before a run is tried on it: hardware, TensorFlow, cluster, disks,"
        " tracker, store and versions. Without secrets, to be pasted into a bug report. It takes a run's overrides.",
        example="tfscale doctor run.root=/mnt/runs run.store=s3://bucket/runs",
    )
    program.add_argument("--json", action="store_true", help="one JSON document in place of the table")
    program.add_argument("--self-test", action="store_true", help="also train a few steps under each strategy")
    text = "seconds to import TensorFlow (default 60); five times as long for each training of --self-test"
    program.add_argument("--timeout", type=_seconds, default=60.0, metavar="S", help=text)
    program.word("data.dir", "PATH", "the folder of data, where no recipe is named", type=place)
    return program.run(argv, _doctor)


def _seconds(text: str) -> float:
    found = number(text)
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return found


def _doctor(options: argparse.Namespace, _: dict) -> int:
    began, environ = time.monotonic(), dict(os.environ)
    hide_secrets(environ)
    places = compose_places(options.overrides, data=options.data_dir, config_dir=options.config_dir, environ=environ)
    hardware = Hardware.load(places.hardware) if places.hardware else probe(environ=environ)
    with shown(places.log_format):
        findings = examine(places, hardware, environ=environ, seconds=options.timeout)
        if options.self_test:
            trained = self_test(hardware, environ=environ, seconds=_TRAININGS * options.timeout)
            findings += guarded("self_test", lambda: trained)
        findings = shareable(findings, environ)
        if options.json:
            write_line(as_json(findings, time.monotonic() - began))
        else:
            _tell(findings)
    wrong = [one.check for one in findings if one.verdict == WRONG]
    if wrong:
        raise CheckFailed(f"{len(wrong)} wrong", where=", ".join(dict.fromkeys(wrong)), fix="see the fixes above")
    return 0


def examine(places: Places, hardware: Hardware, *, environ: Mapping[str, str], seconds: float) -> list[Finding]:
    """Everything but the self-test, at once, in an order that is always the same."""
    kills = None if places.hardware else memory_kills()
    looks: dict[str, Callable[[], Iterable[Finding]]] = {
        "hardware": lambda: look_at_machine(hardware, kills=kills),
        "tensorflow": lambda: look_at_tensorflow(hardware, environ=environ, seconds=seconds),
        "launcher": lambda: look_at_cluster(environ),
        "settings": lambda: look_at_settings(places.settings),
        "runs": lambda: [look_at_folder("runs", places.runs, key=places.runs_key)],
        "data": lambda: [look_at_folder("data", places.data, key="data.dir")],
        "tracker": lambda: look_at_tracker(places.tracker, places.beside),
        "store": lambda: look_at_store(places.store),
        "versions": lambda: look_at_packages(environ),
    }
    with ThreadPoolExecutor(len(looks)) as threads:
        begun = [threads.submit(guarded, check, look) for check, look in looks.items()]
    return [one for each in begun for one in each.result()]


def as_json(findings: Sequence[Finding], seconds: float) -> str:
    """The findings for programs."""
    told = {
        "format": _FORMAT,
        "tfscale": __version__,
        "verdict": worst(findings),
        "seconds": round(seconds, 2),
        "findings": [dataclasses.asdict(one) for one in findings],
    }
    return dumps(told, indent=1)


def _tell(findings: Sequence[Finding]) -> None:
    rows = [(one.verdict, f"{one.check}: {one.fact}" + (f"\n-> {one.fix}" if one.fix else "")) for one in findings]
    told = [dataclasses.asdict(one) for one in findings]
    _log.log(
        RESULT, table(rows, ("verdict", "finding"), whole=[0], width=columns()), extra=bare("findings", found=told)
    )
    counts = {verdict: sum(one.verdict == verdict for one in findings) for verdict in (WRONG, WARNING, OK)}
    text = f"{counts[WRONG]} wrong, {counts[WARNING]} warning{'s' * (counts[WARNING] != 1)}, {counts[OK]} ok"
    _log.log(RESULT, text, extra=figures(**counts))


if __name__ == "__main__":
    sys.exit(main())
