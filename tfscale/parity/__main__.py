"""The door `python -m tfscale.parity +recipe=resnet [parity.steps=20] [override ...]`: parse, convert, call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tfscale.cli import arguments, guard, own_options
from tfscale.console import write_result
from tfscale.errors import CheckFailed, OutputError, UsageError
from tfscale.files import dumps

_DEFAULTS = {
    "parity.steps": "20",
    "parity.layouts": "2,4,2w,2wx2,accumulate",
    "parity.timeout": "1800",
    "parity.json": "",
}
_WORKER = "--worker"  # a process of the check itself, which gets a folder


def main(argv: Sequence[str] | None = None) -> int:
    """Checks; returns the exit code: 0 if all judged numbers agree, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="tfscale parity",
        description="Train the first steps of a recipe as 1 replica and in other layouts, and compare their numbers.",
        epilog="options: parity.steps=20 parity.layouts=2,4,2w,2wx2,accumulate parity.timeout=SECONDS (of one layout)"
        " parity.json=FILE; example: tfscale parity +recipe=resnet task.width=4",
    )
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [_WORKER]:
        return guard(lambda seen: _work(words[1], seen))
    return guard(lambda seen: _check(arguments(parser, words), seen))


def _work(folder: str, seen: dict) -> int:
    from tfscale.parity.worker import work

    seen["traceback"] = True  # shown where the layout fails
    work(folder)
    return 0


def _check(options: argparse.Namespace, seen: dict) -> int:
    own, overrides = own_options(options.overrides, _DEFAULTS)
    if options.cfg:
        from omegaconf import OmegaConf

        from tfscale.composition.hydra_compose import compose_raw

        write_result(OmegaConf.to_yaml(compose_raw(overrides, config_dir=options.config_dir), resolve=False))
        return 0
    seen["traceback"] = "debug.traceback=true" in overrides
    file = Path(own["parity.json"]) if own["parity.json"] else None
    if file is not None and not file.absolute().parent.is_dir():
        raise OutputError(f"there is no folder {file.parent}", where="parity.json", fix="make it")
    from tfscale.parity.check import check_parity

    report = check_parity(
        overrides,
        int(_number(own, "parity.steps")),
        layouts=[name.strip() for name in own["parity.layouts"].split(",") if name.strip()],
        timeout=_number(own, "parity.timeout"),
        config_dir=options.config_dir,
        say=lambda line: print(line, flush=True),
    )
    write_result(report.table())
    if file is not None:
        try:
            file.write_text(dumps(report.to_dict(), indent=2) + "\n")
        except OSError as error:
            raise OutputError(f"it can't be written: {error.strerror}", where=str(file), fix="choose another") from None
    if not report.holds:
        fix = report.problem[1] if report.problem else "the table above shows where the numbers part"
        raise CheckFailed(report.verdict, where="parity", fix=fix)
    return 0


def _number(own: dict[str, str], name: str) -> float:
    try:
        return float(own[name]) if "." in own[name] else int(own[name])
    except ValueError:
        raise UsageError(f"{own[name]!r} is not a number", where=name, fix=f"{name}={_DEFAULTS[name]}") from None


if __name__ == "__main__":
    sys.exit(main())
