"""Entry point: `python -m tfscale.export run.dir=PATH|URL [checkpoint=best]`: parse, convert, call."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tfscale.cli import Program, choice, number, place, whole
from tfscale.console.messages import RESULT, bare
from tfscale.errors import UsageError
from tfscale.export.conversion import MOST_LOSS, PRECISIONS, Conversion
from tfscale.export.model_card import in_words

_log = logging.getLogger("tfscale.export")


def main(argv: Sequence[str] | None = None) -> int:
    """Exports; returns the exit code."""
    program = Program(
        "export",
        "A trained run as Keras file and SavedModel in <run.dir>/export, or in a folder beside it as SavedModel in "
        "bfloat16 or as a file of LiteRT or ONNX; checked in a process of its own.",
        example="tfscale export run.dir=runs/resnet/563a34baa8",
    )
    program.trained_run()
    text = "of how many examples it is checked (default: export.examples of the run, 8)"
    program.word("export.examples", "N", text, type=_count)
    text = "savedmodel for TensorFlow and Keras, litert (extra litert) or onnx (extra onnx)"
    program.word("format", "|".join(PRECISIONS), text, type=choice(*PRECISIONS), default="savedmodel")
    text = "bfloat16 of savedmodel, float16 and int8 of litert: the run's metrics are measured before and after"
    names = tuple(dict.fromkeys(name for known in PRECISIONS.values() for name in known))
    program.word("precision", "|".join(names), text, type=choice(*names), default="float32")
    text = f"how much worse the run's metric may become by that (default {MOST_LOSS}); else nothing is exported"
    program.word("most_loss", "NUMBER", text, type=number)
    text = "a copy as FOLDER/1, 2, ...: the next version, as TensorFlow Serving and KServe read them"
    program.word("versions", "FOLDER", text, type=place)
    text = "true makes it again where it is there already, from the same checkpoint (what lies beside it always is)"
    program.word("fresh", "true|false", text, type=choice("true", "false"), default="false")
    return program.run(argv, _export)


def _count(text: str) -> int:
    """The type of a number of examples."""
    if (count := whole(text)) < 1:
        raise argparse.ArgumentTypeError(f"{count} is no number of examples")
    return count


def _export(options: argparse.Namespace, _: dict) -> int:
    from tfscale.run_dir.choice import parse_choice

    wanted = Conversion(options.format, options.precision, options.most_loss)
    wanted.check()
    if wanted.format != "savedmodel" and options.versions:
        raise UsageError(
            "numbered versions are of SavedModels", where="versions", fix="leave versions away, or format=savedmodel"
        )
    which = parse_choice(options.checkpoint)
    found = _found(options, wanted, which)
    path = found or _made(options, wanted, which)
    _show(path, options.checkpoint)
    _log.log(RESULT, f"{'is there already' if found else 'exported to'}: {path}")
    if options.versions:
        from tfscale.export.model_versions import add_version

        _log.log(RESULT, f"version {add_version(path, options.versions)}")
    return 0


def _found(options: argparse.Namespace, wanted: Conversion, which: str | int) -> Path | None:
    """The export that need not be made again; None: there is none, or it was asked for another one."""
    from tfscale.export.found_export import found_export

    own = options.overrides or options.export_examples or wanted.apart
    if options.fresh == "true" or own or "://" in options.run_dir:
        return None
    return found_export(Path(options.run_dir), which)


def _made(options: argparse.Namespace, wanted: Conversion, which: str | int) -> Path:
    from tfscale.export.run_export import Exported, export_run
    from tfscale.run_dir.folder import RunDir
    from tfscale.trained.restored_run import RestoredRun

    with RestoredRun.open(options.run_dir, options.overrides, checkpoint=which, config_dir=options.config_dir) as run:
        RunDir(run.folder).check_writable()
        if options.export_examples is not None:
            run.config.export.examples = options.export_examples
        if wanted.apart:
            from tfscale.export.converted import export_converted

            return export_converted(run, wanted)
        known = run.folder, run.checkpoint.identity, run.class_names
        return export_run(Exported(run.task, run.state, run.config, run.plan, *known), run.folder / "export")


def _show(path: Path, which: str) -> None:
    from tfscale.console.progress import summary
    from tfscale.export.export_folder import read_about

    about = read_about(path)
    left_out = about.get("left_out", {})
    size: dict[str, int] = dict.fromkeys(about["differences"], 0)
    for name, file in about["files"].items():
        if (part := name.split("/")[0]) in size:
            size[part] += file["bytes"]
    rows = {
        part: f"{size[part] / 1e6:.1f} MB, differs by {about['differences'][part]:.2g} from the trained weights"
        for part in size
    }
    rows.update({part: f"left out: {why}" for part, why in left_out.items()})
    if "difference_to_live" in about:
        rows["precision"] = f"trained in {about['live_precision']}, which differs by {about['difference_to_live']:.2g}"
    if lost := about.get("loss_of_precision"):
        rows["precision"] = in_words(lost, about["precision"])
    if about.get("imports"):
        rows["needs"] = f"whoever loads saved_model/ must import {', '.join(about['imports'])} before"
    rows["checked on"] = f"{about['samples']} examples, in a process without tfscale"
    if (compared := about.get("preprocessing") or {}).get("with"):
        same = "all" if compared["equal"] == about["samples"] else f"{compared['equal']} of {about['samples']}"
        told = f" ({compared['remark']})" if compared["remark"] else ""
        rows["inputs"] = f"of {same} equal to the bit to those of the {compared['with']}{told}"
    table = summary({"checkpoint": f"step {about['step']} ({which})", **rows})
    _log.log(RESULT, table, extra=bare("export", export=about))


if __name__ == "__main__":
    sys.exit(main())
