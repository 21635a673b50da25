"""README.md of an export: what the model is, for whoever finds the files without the run.

Owns the words and their order, with the head of Hugging Face's model cards (huggingface.co/docs/hub/model-cards).
Refuses to guess: what nobody recorded is said to be absent. Secrets are redacted.

    text = model_card(about, RunFacts(recipe="resnet", metrics={"accuracy": 0.98}, split="test"))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfscale.errors import without_secrets
from tfscale.export.run_facts import RunFacts

_ABSENT = "not recorded"
_LISTED = 100  # classes up to which each is named
# What the answers of a model that takes pictures tell of it, in Hugging Face's words
_PICTURES = {"probabilities": "image-classification", "boxes": "object-detection", "mask": "image-segmentation"}


def model_card(about: Mapping[str, Any], run: RunFacts) -> str:
    """Markdown.

    Args:
        about: what export.json says.
    """
    parts = [_head(about), _title(about, run), _files(about), _tensors(about), _data(run), _figures(about, run)]
    parts += [_training(run), _check(about), _loss(about), _versions(about), _limits(run)]
    return without_secrets("\n".join(parts))


def _head(about: Mapping[str, Any]) -> str:
    library = {"litert": "tflite", "onnx": "onnx"}.get(about.get("format", ""), "keras")
    tags = ("tensorflow", "keras", "tfscale") if library == "keras" else (library, "tfscale")
    lines = ["---", f"library_name: {library}", "tags:", *(f"- {tag}" for tag in tags)]
    kinds = [kind for name, kind in _PICTURES.items() if name in about["outputs"]]
    if "image" in about["inputs"] and kinds:
        lines.append(f"pipeline_tag: {kinds[0]}")
    return "\n".join([*lines, "---", ""])


def _title(about: Mapping[str, Any], run: RunFacts) -> str:
    name, data = run.recipe or run.task or "A model", (run.result.get("data") or run.origin).get("name")
    told = [f"step {about['step']}"]
    if run.result.get("epochs") and run.result.get("step") == about["step"]:
        told.append(f"{run.result['epochs']:.4g} epochs")
    if run.result.get("parameters"):
        told.append(f"{run.result['parameters']:,} trained parameters")
    title = f"# {name} on {data}\n" if data else f"# {name}\n"
    task = f", of the task `{run.task}`" if run.task else ""
    return f"{title}\nA Keras model{task}, trained by tfscale: {', '.join(told)}.\n"


def _files(about: Mapping[str, Any]) -> str:
    parts: dict[str, int] = {}
    for file, said in about["files"].items():
        parts[file.split("/")[0]] = parts.get(file.split("/")[0], 0) + said["bytes"]
    what = {
        "model.keras": "a file that stock Keras loads",
        "saved_model": "a TensorFlow SavedModel",
        "model.tflite": "a file of LiteRT",
        "model.onnx": "a file of ONNX",
    }
    rows = [(f"`{part}`", what.get(part, ""), f"{size / 1e6:.1f} MB") for part, size in parts.items()]
    rows.append(("`export.json`", "what this page says, for programs, and the SHA-256 of every file", ""))
    left = [f"\nThere is no `{part}`: {why}.\n" for part, why in about.get("left_out", {}).items()]
    return f"\n## Files\n\n{_table(('file', 'what it is', 'size'), rows)}{''.join(left)}"


def _tensors(about: Mapping[str, Any]) -> str:
    rows = [("in", *_row(name, one)) for name, one in about["inputs"].items()]
    rows += [("out", *_row(name, one)) for name, one in about["outputs"].items()]
    text = f"\n## Inputs and outputs\n\n{_table(('', 'name', 'shape', 'type'), rows)}\n{_code(about)}"
    if about.get("format"):
        text += (
            "\nThese are the model's own tensors: decoding pictures and reading texts doesn't convert. Where the run's "
            "SavedModel takes raw examples, its function `preprocess` makes of them what goes in here.\n"
        )
    if gaps := about.get("gaps"):
        text += f"\nNaN stands for a gap in {', '.join(gaps)}.\n"
    if classes := about.get("classes"):
        more = f", and {len(classes) - _LISTED} more in `export.json`" if len(classes) > _LISTED else ""
        text += f"\nClasses, in the order of their numbers: {', '.join(map(str, classes[:_LISTED]))}{more}.\n"
    return text


def _code(about: Mapping[str, Any]) -> str:
    """How the file is loaded and called."""
    call = ", ".join(f"{name}=..." for name in about["inputs"])
    if about.get("format") == "litert":
        return (
            "    from ai_edge_litert.interpreter import Interpreter\n\n"
            '    interpreter = Interpreter("model.tflite")\n'
            f"    answers = interpreter.get_signature_runner()({call})\n"
        )
    if about.get("format") == "onnx":
        named = ", ".join(f'"{name}": ...' for name in about["inputs"])
        return (
            "    import onnxruntime\n\n"
            '    session = onnxruntime.InferenceSession("model.onnx")\n'
            f"    answers = session.run(None, {{{named}}})\n"
        )
    imports = "".join(f"    import {name}\n" for name in about.get("imports", ()))
    return (
        f"    import tensorflow as tf\n{imports}\n"
        '    loaded = tf.saved_model.load("saved_model")\n'
        f'    answers = loaded.signatures["serving_default"]({call})\n'
    )


def _row(name: str, one: Mapping[str, Any]) -> tuple[str, str, str]:
    shape = ", ".join("any" if size is None else str(size) for size in one["shape"])
    return f"`{name}`", f"[{shape}]", one["dtype"]


def _data(run: RunFacts) -> str:
    data, origin = run.result.get("data") or {}, run.origin
    rows = [
        ("name", data.get("name") or origin.get("name") or _ABSENT),
        ("version", data.get("version") or origin.get("version") or _ABSENT),
        ("digest", f"`{data['hash']}`" if data.get("hash") else _ABSENT),
        *((name, origin.get(name) or _ABSENT) for name in ("source", "licence")),
        *((name, origin[name]) for name in ("description", "citation") if origin.get(name)),
    ]
    for split, one in data.get("splits", {}).items():
        bad = f", {one['bad_records']} of them bad" if one.get("bad_records") else ""
        rows.append((f"{split} split", f"{one['examples']:,} examples{bad}"))
    return f"\n## Data\n\n{_table(('', ''), rows)}"


def _figures(about: Mapping[str, Any], run: RunFacts) -> str:
    if not run.metrics:
        return f"\n## Figures\n\nNothing was measured at step {about['step']}.\n"
    rows = [(name, f"{value:.6g}") for name, value in run.metrics.items() if math.isfinite(value)]
    note = ""
    if about["live_precision"].startswith("mixed_"):
        own = about.get("precision", "full precision")
        note = f"\nMeasured as it was trained, in {about['live_precision']}; these files compute in {own}.\n"
    table = _table(("metric", "value"), rows)
    return f"\n## Figures\n\nOn the {run.split} split, at step {about['step']}:\n\n{table}{note}"


def _training(run: RunFacts) -> str:
    if not run.plan:
        return f"\n## Training\n\nThe run's plan is {_ABSENT}.\n"
    reasons = run.plan.get("reasons", {})
    rows = [(name.replace("_", " "), str(run.plan.get(name, _ABSENT))) for name in ("precision", "strategy")]
    rows += [
        ("devices", f"{run.plan.get('num_replicas')} in {run.plan.get('num_workers')} processes"),
        ("hardware", reasons.get("accelerator") or str(run.plan.get("accelerator"))),
        ("examples of a step", str(run.plan.get("global_batch", _ABSENT))),
        ("deterministic", "yes" if run.plan.get("deterministic") else "no"),
        ("experiment", f"`{run.result['identity']}`" if run.result.get("identity") else _ABSENT),
    ]
    command = f"\nIt is trained by\n\n    {run.command}\n" if run.command else "\nIts command is not recorded.\n"
    return f"\n## Training\n\n{_table(('', ''), rows)}{command}"


def _check(about: Mapping[str, Any]) -> str:
    where = f" of the {about['split']} split" if about.get("split") else ""
    far = "; ".join(f"`{part}` differs by at most {off:.2g}" for part, off in about["differences"].items())
    lines = [
        f"Loaded in a process without tfscale and compared with the trained weights on {about['samples']} examples"
        f"{where}: {far}, in units of the larger of 1 and an example's largest number."
    ]
    compared = about.get("preprocessing") or {}
    if compared.get("with"):
        remark = f" ({compared['remark']})" if compared["remark"] else ""
        lines.append(
            f"The inputs that its preprocessing makes of {compared['equal']} of these {about['samples']} are equal to "
            f"the bit to those of the {compared['with']}{remark}."
        )
    if about.get("difference_to_live"):
        lines.append(
            f"The model as it was trained, in {about['live_precision']}, differs by {about['difference_to_live']:.2g}."
        )
    return "\n## How it was checked\n\n" + "\n".join(lines) + "\n"


def _loss(about: Mapping[str, Any]) -> str:
    lost = about.get("loss_of_precision")
    if not lost:
        return ""
    rows = [
        (name, f"{lost['before'][name]:.6g}", f"{lost['after'].get(name, math.nan):.6g}") for name in lost["before"]
    ]
    where = f"On all {lost['examples']:,} examples of the {lost['split']} split:"
    table = _table(("metric", "float32", about["precision"]), rows)
    return f"\n## What {about['precision']} costs\n\n{where}\n\n{table}"


def in_words(lost: Mapping[str, Any], precision: str) -> str:
    """What a lower precision costs, in one line."""
    before, after = (lost[when][lost["metric"]] for when in ("before", "after"))
    where = f"on the {lost['examples']:,} examples of the {lost['split']} split"
    return f"{precision}: {lost['metric']} {after:.6g} {where}, {before:.6g} in float32"


def _versions(about: Mapping[str, Any]) -> str:
    rows = list(about["versions"].items())
    return f"\n## Versions\n\nOf the process that exported it:\n\n{_table(('package', 'version'), rows)}"


def _limits(run: RunFacts) -> str:
    known = f"the figures above, on the {run.split} split" if run.metrics else "no figure"
    return (
        f"\n## Limits\n\ntfscale knows of this model {known}. Nobody measured for this page how it answers on other "
        "data, how its errors are shared out among groups of people, or what it does with inputs made to deceive it.\n"
        "The licence of the model is not recorded: ask whoever trained it.\n"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |\n"

    return line(heads) + "|" + "---|" * len(heads) + "\n" + "".join(map(line, rows))
