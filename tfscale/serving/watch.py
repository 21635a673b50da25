"""Entry point: `tfscale watch metrics=URL model=NAME`: a served model is watched, and taken back where it doesn't hold.

Owns the words and what the command ends with. Refuses to know how it is watched, which is watched_servers.py's, and how
it is taken back, which is taken_back.py's.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfscale.cli import Program, choice, number, place, whole
from tfscale.console.messages import RESULT, figures, shown
from tfscale.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from tfscale.serving.taken_back import WayBack
    from tfscale.serving.watched_servers import Asked, Outcome

_log = logging.getLogger("tfscale.watch")
_OF_BACK = ("as", "name", "run.dir", "tracker.uri", "versions", "extensions.allow")  # without back=true in vain
_LEAST = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Watches; returns the exit code: 1 where a bound was passed."""
    return program().run(argv, _watch)


def program() -> Program:
    """Its words."""
    found = Program(
        "watch",
        "Watches what a server counts of a model, and ends with 1 as soon as too many requests fail or take too long;"
        " with back=true the alias goes back to whom it had before.",
        example="tfscale watch metrics=http://127.0.0.1:8081/metrics model=digits back=true",
        configured=False,
    )
    text = "of the server's metrics, at serve.probes_port; several: URL,URL or dns+URL"
    found.word("metrics", "URL", text, required=True)
    found.word("model", "NAME", "by which the server knows it", required=True)
    found.word("watch.seconds", "SECONDS", "how long, once the version is served", type=_above_zero, default=300.0)
    text = "of the requests that may fail, from 0 to 1"
    found.word("watch.most_errors", "SHARE", text, type=_share, default=0.01)
    found.word("watch.most_p99", "SECONDS", "that 99 of 100 requests may take; else any", type=_above_zero)
    text = "that the model may not take (400, 422), from 0 to 1"
    found.word("watch.most_refused", "SHARE", text, type=_share, default=0.5)
    text = f"before so many nothing is judged (default {_LEAST}); given, fewer at the end are 1"
    found.word("watch.least_requests", "N", text, type=_least)
    text = "without an answer, after which a server counts as gone"
    found.word("watch.gone", "SECONDS", text, type=_above_zero, default=60.0)
    found.word("watch.every", "SECONDS", "between two looks", type=_above_zero, default=2.0)
    text = "gives the alias back where a bound is passed"
    found.word("back", "true|false", text, type=choice("true", "false"))
    found.word("as", "ALIAS", "the alias; else champion")
    found.word("name", "NAME", "of the registered model; else that of model=")
    found.word("run.dir", "PATH", "a run whose tracker says which registry it is", type=place)
    found.word("tracker.uri", "URI", "of the registry; else the variables', the run's tracker's")
    text = "of numbered versions, of which the newest goes back, too"
    found.word("versions", "FOLDER", text, type=place)
    found.word("extensions.allow", "[NAME,...]", "modules of the run's own code that its configuration may name")
    return found


def _watch(options: argparse.Namespace, _: dict) -> int:
    _refuse_in_vain(options)
    from tfscale.serving.watched_servers import each_of, watch

    with shown("auto"):
        asked, back = asked_of(options), _way_back(options)
        asked = dataclasses.replace(asked, addresses=each_of(asked.addresses))
        if back is not None:
            asked = dataclasses.replace(asked, version=back.served)
        told = f", version {asked.version}," if asked.version else ""
        _log.info(f"watches {asked.model}{told} for {asked.seconds:g} s: {', '.join(asked.addresses)}")
        _end(watch(asked), asked, back, strict=options.watch_least_requests is not None)
    return 0


def asked_of(options: argparse.Namespace) -> Asked:
    """What the words ask for; raises UsageError."""
    from tfscale.serving.watched_servers import Asked
    from tfscale.serving.watched_window import Bounds

    least = options.watch_least_requests
    addresses = tuple(dict.fromkeys(one.strip() for one in options.metrics.split(",")))
    return Asked(
        options.model,
        addresses,
        Bounds(
            options.watch_most_errors,
            options.watch_most_p99,
            options.watch_most_refused,
            _LEAST if least is None else least,
        ),
        seconds=options.watch_seconds,
        gone=options.watch_gone,
        every=options.watch_every,
    )


def _refuse_in_vain(options: argparse.Namespace) -> None:
    vain = [name for name in _OF_BACK if getattr(options, name.replace(".", "_")) is not None]
    if options.back != "true" and vain:
        raise UsageError(f"{vain[0]} has no effect where nothing is taken back", where=vain[0], fix="add back=true")


def _way_back(options: argparse.Namespace) -> WayBack | None:
    if options.back != "true":
        return None
    from tfscale.serving.taken_back import Back, WayBack

    run_dir, folder = (None if one is None else Path(one) for one in (options.run_dir, options.versions))
    alias = getattr(options, "as") or "champion"
    asked = Back(options.name or options.model, alias, options.tracker_uri, run_dir, folder)
    return WayBack.of(asked, options.extensions_allow)


def _end(outcome: Outcome, asked: Asked, back: WayBack | None, *, strict: bool) -> None:
    """Says how it ended; raises CheckFailed, and of taking back what that does.

    Args:
        strict: whether too few requests are a failure.
    """
    where, tally = ", ".join(asked.addresses), outcome.tally
    if outcome.passed and back is None:
        fix = f"tfscale promote name={asked.model} back=true gives the alias back; back=true here does so by itself"
        raise CheckFailed(outcome.passed, where=where, fix=fix)
    if outcome.passed:
        assert back is not None
        told = back.take(outcome.passed)
        raise CheckFailed(f"{outcome.passed}; {told}", where=where, fix="the server's log says more")
    if outcome.too_few and not strict:
        _log.warning(f"{outcome.unjudged}; {asked.model} stays as it is")
        return
    if outcome.unjudged:
        few, other = "watch longer: watch.seconds", "a server that follows no alias needs versions=FOLDER"
        raise CheckFailed(
            f"{outcome.unjudged}; nothing was taken back", where=where, fix=few if outcome.too_few else other
        )
    numbers = figures(requests=tally.judged, failed=tally.failed, p99=tally.p99)
    _log.log(RESULT, f"{asked.model} held for {asked.seconds:g} s: {tally.sentence}", extra=numbers)


def _above_zero(text: str) -> float:
    found = number(text)
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return found


def _share(text: str) -> float:
    found = number(text)
    if not 0 <= found <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share from 0 to 1")
    return found


def _least(text: str) -> int:
    found = whole(text)
    if found < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of 1 or more")
    return found


if __name__ == "__main__":
    sys.exit(main())
