"""What is compared with what: splits with each other, new data or a server's requests with others, a training split
with its baseline.

Owns the order of the looks. Refuses to know how examples are read and what is measured of them.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tfscale.console.messages import RESULT
from tfscale.data.prepared import Prepared
from tfscale.errors import DataMissing, UsageError, nearest
from tfscale.files import read_json
from tfscale.importer.import_request import VERSION, ImportRequest
from tfscale.importer.recognise import recognised
from tfscale.run_dir.registered_run import FILES
from tfscale.statistics.baseline import baseline_profile, is_baseline, keep_baseline, refuse_no_baseline, split_profile
from tfscale.statistics.findings import Finding, Limits, findings
from tfscale.statistics.protos import PICTURE
from tfscale.validation.answered_classes import beside_labels
from tfscale.validation.copies import copies, twice
from tfscale.validation.example_sides import side_of_records, sides_of_path
from tfscale.validation.label_noise import label_noise
from tfscale.validation.request_logs import ReadLog, is_log, read_log, without_label
from tfscale.validation.side import Side
from tfscale.validation.table_sides import as_imported, side_beside, side_of_files, side_of_split

_log = logging.getLogger(__name__)


def compared(request: ImportRequest, against: str | None, limits: Limits) -> Iterator[Finding]:
    """What is wrong with data, by themselves or beside others.

    Args:
        against: files, the name of a data set, or a folder that holds a baseline; None: the splits of the data.

    Raises:
        UsageError, DataMissing, DataCorrupt: what is named can't be read.
    """
    if is_log(request.path):
        yield from _logged(request, against, limits)
        return
    if against is None:
        yield from _splits(request, limits)
        return
    base = _base(request, against)
    if not _is_path(request, against):
        request = as_imported(request, against)
    for new in _new(request, base):
        _log.info(f"{new.name}: {new.about['rows']:,} {new.unit}, beside {base.about['rows']:,} of {base.name}")
        yield from _differences(base, new, limits)
        yield from _by_itself(new, limits)
        for one in copies(base, new, limits):  # which may be meant so: they are no splits
            yield dataclasses.replace(one, fails=False)


def _splits(request: ImportRequest, limits: Limits) -> Iterator[Finding]:
    sides = _sides(request, request.path)
    yield from _by_itself(sides[0], limits)
    if not _is_path(request, request.path):
        yield from _beside_baseline(request, limits)
    for other in sides[1:]:
        _log.info(f"{other.name} beside {sides[0].name}: {other.about['rows']:,} {other.unit}")
        found = [*_differences(sides[0], other, limits), *_bad(other), *other.found, *twice(other, limits)]
        yield from _named(other, found)
    for place, one in enumerate(sides):
        for other in sides[place + 1 :]:
            yield from _named(other, copies(one, other, limits))


def _logged(request: ImportRequest, against: str | None, limits: Limits) -> Iterator[Finding]:
    """What a server was asked, beside what its model was trained on."""
    if against is None:
        raise UsageError(
            "a log of requests is compared with what the model was trained on",
            where="against",
            fix="against=RUN, or the name of the data set",
        )
    base, log = _base(request, against), read_log(request)
    found, why = beside_labels(log.answers, base.about.get("label"), limits, _names(against))
    if log.columns and base.unit == "rows":
        yield from _asked(base, log, limits)
    elif why:
        raise DataMissing(
            f"nothing in it can be compared: its inputs are no columns of the base's, and {why}",
            where=request.path,
            fix="compare the files themselves: tfscale data validate FOLDER against=NAME",
        )
    else:
        _log.info(
            f"what was asked isn't compared: {base.name} holds {base.unit}, and the log has none of their figures"
        )
    if why:
        _log.info(f"what the model answered isn't compared with the labels: {why}")
    else:
        _log.info(f"{len(log.answers):,} answers, beside the labels of {base.name}")
    yield from found


def _asked(base: Side, log: ReadLog, limits: Limits) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as scratch:
        new = side_beside(log.as_table(Path(scratch)), base)
    yield from _differences(
        dataclasses.replace(base, about=without_label(base.about, new.about["columns"])), new, limits
    )
    yield from _bad(new)


def _names(against: str) -> list[str]:
    """Of the classes as a run's export numbers them; none where there is no export."""
    about = read_json(Path(against) / "export" / "export.json")
    return list(about.get("classes") or []) if isinstance(about, dict) else []


def accept_as_baseline(request: ImportRequest) -> None:
    """Makes the training split of a data set what its data are to be like.

    Raises:
        UsageError: it is no data set, or has no statistics.
    """
    if _is_path(request, request.path):
        raise UsageError("files have no baseline", where="accept", fix="name a data set, or leave accept away")
    folder = _folder(request, request.path)
    if split_profile(folder, "train") is None:
        raise UsageError(
            f"{request.path} has no statistics of its training split", where="accept", fix="import it again: fresh=true"
        )
    keep_baseline(folder, folder)
    _log.log(RESULT, f"the baseline is now as the training split: {folder}")


def _by_itself(side: Side, limits: Limits) -> Iterator[Finding]:
    yield from _bad(side)
    yield from side.found
    yield from twice(side, limits)
    for name, told in side.told.items():
        if told >= limits.leak:
            label = side.about["label"].get("name", "label")
            text = f"it alone tells {told:.1%} of the label {label}: is it known before the label is?"
            yield Finding(name, "leak", text)
    yield from label_noise(side, limits)


def _bad(side: Side) -> Iterator[Finding]:
    if bad := side.about.get("bad"):
        yield Finding("", "bad rows", f"{len(bad):,} {side.unit} can't be read; the first: {bad[0]}", items=bad)


def _differences(base: Side, new: Side, limits: Limits) -> list[Finding]:
    """Raises UsageError: they are of different kinds."""
    if base.unit != new.unit:
        raise UsageError(
            f"{base.name} holds {base.unit}, and {new.name} {new.unit}", where="against", fix="compare data of one kind"
        )
    return findings(base.about, new.about, limits)


def _named(side: Side, found: Iterable[Finding]) -> Iterator[Finding]:
    for one in found:
        yield dataclasses.replace(one, text=f"{side.name.partition(' of ')[0]}: {one.text}")


def _beside_baseline(request: ImportRequest, limits: Limits) -> Iterator[Finding]:
    """Of the training split what training would refuse."""
    folder = _folder(request, request.path)
    new = split_profile(folder, "train")
    if new is not None and is_baseline(folder):
        for one in findings(baseline_profile(folder), new, limits):
            if one.fails:
                yield dataclasses.replace(one, text=f"beside the baseline: {one.text}")


def _base(request: ImportRequest, against: str) -> Side:
    if all((Path(against) / name).is_file() for name in FILES[:2]):  # a run, which holds no data
        refuse_no_baseline(Path(against))
    if _is_path(request, against) and is_baseline(Path(against)):
        about = baseline_profile(Path(against))
        kinds = {one["type"] for one in about["columns"].values()}
        is_measured = any("of" in one for one in about["columns"].values())
        unit = "rows" if not is_measured else "pictures" if PICTURE in kinds else "texts"
        return Side(f"the baseline {against}", about, unit)
    return _sides(request, against)[0]


def _new(request: ImportRequest, base: Side) -> list[Side]:
    if not _is_path(request, request.path):
        return _sides(request, request.path)[:1]
    return [side_beside(request, base)] if _is_table(request) else sides_of_path(request)


def _sides(request: ImportRequest, where: str) -> list[Side]:
    """Of what is named, one for each split, that which is trained on first."""
    if _is_path(request, where):
        request = dataclasses.replace(request, path=where)
        return [side_of_files(request)] if _is_table(request) else sides_of_path(request)
    folder = _folder(request, where)
    source = Prepared(name=where, dir=request.dir)
    source.check()
    columns = source.spec().get("columns", {})
    splits = [one["name"] for one in read_json(folder / "dataset_info.json", trusted=True)["splits"]]
    splits.sort(key=lambda one: one != "train")
    if "columns" in columns:
        return [side_of_split(source, split, columns) for split in splits]
    features = read_json(folder / "features.json", trusted=True).get("featuresDict", {}).get("features", {})
    if "text" not in columns and "image" not in features:
        raise UsageError(f"{where} holds neither rows, pictures nor texts", where="PATH", fix="give one that does")
    return [
        side_of_records(f"the split {split} of {where}", source.files_of(split), folder, columns) for split in splits
    ]


def _is_table(request: ImportRequest) -> bool:
    return recognised(request)[0].name == "table"


def _is_path(request: ImportRequest, text: str) -> bool:
    """Whether it names files: no data set, which comes first where a folder here has its name, too."""
    if Path(request.dir, text, VERSION).is_dir() and "/" not in text:
        return False
    return Path(text).exists() or any(sign in text for sign in "*?[/") or "." in text


def _folder(request: ImportRequest, name: str) -> Path:
    """Of a data set; raises UsageError: there is neither such a file nor such a data set."""
    there = sorted(folder.parent.parent.name for folder in Path(request.dir).glob("*/*/dataset_info.json"))
    if name in there:
        found = Prepared(name=name, dir=request.dir).folder()
        assert found is not None
        return found
    raise UsageError(
        f"{name} is neither a file nor a data set in {request.dir}{nearest(name, there)}",
        where="PATH",
        fix="give files, or the name of what `tfscale data import` wrote",
    )
