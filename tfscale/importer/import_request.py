"""What people ask an import for: `tfscale data import PATH name=NAME [data.KEY=VALUE ...]`.

Owns the keys, their types, and what is refused before the source is looked at. Refuses to know sources.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from tfscale.config.override_syntax import plain_path
from tfscale.errors import UsageError, nearest
from tfscale.importer.picture_shapes import SHAPES
from tfscale.importer.picture_sizes import PictureOptions
from tfscale.importer.record_files import FORMATS, TFRECORD
from tfscale.importer.text_options import TextOptions

VERSION = "1.0.0"  # of every data set that is written
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")  # what TFDS reads out of a shard's name
_ASIDE = ("path", "dir", "processes", "beam", "fresh", "max_bad")  # they change nothing of what is written
# Keys that there weren't always, and what they were: what was imported before is the same
_LATER = {"format": TFRECORD, "picture": dataclasses.asdict(PictureOptions())}
_EXAMPLE = "tfscale data import flights.csv name=flights data.label=arr_delay"


@dataclass
class ImportRequest:
    """One import, as it was asked for.

    Attributes:
        kind: "table", "images", ...; None: as `recognise` finds.
        label: a column of a table, or SQL such as "arr_delay > 15".
        schema: a file that says what the columns are, as an import writes it.
        where: SQL; rows of a table for which it doesn't hold are left out.
        split: of each split its share, or of a table an SQL condition; empty: the source's own, else 80, 10 and 10 %.
        split_by: "folder", or a column whose values name the splits.
        group: a column; rows with the same value stay in one split.
        shards: files of the training split; None: by its size.
        format: of these files, "tfrecord" or "array_record".
        beam: options of an Apache Beam pipeline that writes.
        max_bad: how many items may be left out, an int, or which share of them, a float of at most 1.
    """

    path: str = ""
    name: str = ""
    dir: str = "data"
    kind: Optional[str] = None
    label: Optional[str] = None
    schema: Optional[str] = None
    exclude: list[str] = field(default_factory=list)
    where: Optional[str] = None
    split: dict[str, Any] = field(default_factory=dict)
    split_by: Optional[str] = None
    group: Optional[str] = None
    stratify: bool = True
    seed: int = 0
    shards: Optional[int] = None
    format: str = TFRECORD
    drop_unlabelled: bool = False
    duplicates: str = "drop"
    max_bad: Any = 0
    processes: Optional[int] = None
    beam: Optional[str] = None
    text: TextOptions = field(default_factory=TextOptions)
    picture: PictureOptions = field(default_factory=PictureOptions)
    fresh: bool = False

    @property
    def folder(self) -> Path:
        """Where the data set lies in the end."""
        return Path(self.dir, self.name, VERSION)

    @property
    def incomplete(self) -> Path:
        """Where it lies while it is written."""
        return Path(self.dir, f"incomplete.{self.name}")

    def fractions(self) -> dict[str, float] | None:
        """The shares of the splits; None: a table's conditions, or nothing was asked for."""
        shares = {name: value for name, value in self.split.items() if not isinstance(value, str)}
        return {name: float(value) for name, value in shares.items()} if shares else None

    def conditions(self) -> dict[str, str] | None:
        """The SQL of each split; None: shares, or nothing was asked for."""
        return {name: value for name, value in self.split.items() if isinstance(value, str)} or None

    def allowed_bad(self, count: int) -> int:
        """How many of so many items may be left out."""
        return int(self.max_bad * count + 1e-6) if isinstance(self.max_bad, float) else int(self.max_bad)

    def meaning(self) -> dict[str, Any]:
        """What decides the bytes that are written, besides the source; JSON."""
        given = {key: value for key, value in dataclasses.asdict(self).items() if key not in _ASIDE}
        said = {key: value for key, value in given.items() if key not in _LATER or value != _LATER[key]}
        if self.schema:
            said["schema"] = Path(self.schema).read_text(encoding="utf-8")
        return said

    def check(self) -> None:
        """Raises UsageError for what no source makes right."""
        if not self.path or not self.name:
            missing = "PATH" if not self.path else "name"
            raise UsageError(f"no {missing} was given", where="command line", fix=_EXAMPLE)
        if not _NAME.fullmatch(self.name):
            better = re.sub(r"\W", "_", self.name).strip("_") or "mine"
            raise UsageError(
                f"{self.name!r} can't name a data set: a letter, then letters, digits and _",
                where="name",
                fix=f"name={better if better[0].isalpha() else f'd{better}'}",
            )
        if self.duplicates not in ("drop", "keep", "refuse"):
            near = nearest(self.duplicates, ("drop", "keep", "refuse"))
            raise UsageError(
                f"{self.duplicates!r} is nothing to do with copies{near}",
                where="data.duplicates",
                fix="data.duplicates=drop, keep or refuse",
            )
        if self.format not in FORMATS:
            raise UsageError(
                f"{self.format!r} is no format of records{nearest(self.format, FORMATS)}",
                where="data.format",
                fix=f"data.format={' or '.join(FORMATS)}",
            )
        for name, least in (("shards", 1), ("processes", 1), ("max_bad", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{value} is too few", where=f"data.{name}", fix=f"data.{name}={least} or more")
        if self.beam is not None and self.processes is not None:
            raise UsageError(
                "a Beam pipeline has its own workers", where="data.processes", fix="leave it away, or data.beam"
            )
        if isinstance(self.max_bad, float) and not self.max_bad <= 1:
            raise UsageError(
                f"{self.max_bad:g} is more than all", where="data.max_bad", fix="data.max_bad=10, or data.max_bad=1%"
            )
        if self.schema and not Path(self.schema).is_file():
            raise UsageError(
                f"there is no file {self.schema}", where="data.schema", fix="data.schema=FILE that is there"
            )
        self.picture.check()
        self._check_splits()

    def check_drop_unlabelled(self) -> None:
        """Raises UsageError where rows without a label are to be left out, and no label is named."""
        if self.drop_unlabelled and self.label is None:
            raise UsageError(
                "data.drop_unlabelled takes no effect without a label",
                where="data.drop_unlabelled",
                fix="data.label=NAME of the column or field that is the label, or leave data.drop_unlabelled away",
            )

    def check_options(self, kind: str, told: str) -> None:
        """Raises UsageError where options of texts or pictures are given for data of another kind, called `told`."""
        if kind != "text" and self.text != TextOptions():
            raise UsageError(
                f"data.text takes no effect on {told}", where="data.text", fix="leave it away, or data.kind=text"
            )
        if kind not in SHAPES and self.picture != PictureOptions():
            raise UsageError(f"data.picture takes no effect on {told}", where="data.picture", fix="leave it away")

    def _check_splits(self) -> None:
        shares, conditions = self.fractions(), self.conditions()
        for name in self.split:
            if not _NAME.fullmatch(name):
                raise UsageError(f"{name!r} can't name a split", where="data.split", fix="data.split.train=0.8")
        if shares and conditions:
            raise UsageError(
                "some splits are shares and some are conditions",
                where="data.split",
                fix='give all as shares (0.8), or all as SQL ("month <= 9")',
            )
        if shares and (min(shares.values()) < 0 or sum(shares.values()) > 1 + 1e-9):
            raise UsageError(
                f"the shares {', '.join(f'{name} {share:g}' for name, share in shares.items())} are more than all",
                where="data.split",
                fix="data.split.train=0.8 data.split.validation=0.1 data.split.test=0.1",
            )
        if self.split and "train" not in self.split:
            raise UsageError("no split is named train", where="data.split", fix="data.split.train=...")
        if self.split and self.split_by:
            raise UsageError(
                "splits are given twice", where="data.split_by", fix="leave data.split or data.split_by away"
            )


_FIELDS = {one.name: one for one in dataclasses.fields(ImportRequest)}
# Their values are texts as they stand: SQL and names, which YAML may read as something else.
_TEXTS = {name for name, one in _FIELDS.items() if one.type in ("str", "Optional[str]")}


def parse_request(words: Sequence[str], also: Collection[str] = ()) -> ImportRequest:
    """The request that the command line's words make; a word without "=" is the path.

    Args:
        also: further keys that the caller knows and has taken out, for messages.

    Raises:
        UsageError: with the nearest key, or what is wrong with a value.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    schema = OmegaConf.structured(ImportRequest(dir=os.environ.get("TFSCALE_DATA_DIR") or "data"))
    request, seen = schema, []
    for word in words:
        key, value = _split_word(word, also)
        seen.append(key)
        if seen.count(key) > 1:
            raise UsageError(f"{key} was given twice", where=word, fix=f"give {key} once")
        try:
            OmegaConf.update(request, key, value)
        except (OmegaConfBaseException, ValueError) as error:
            told = str(error).splitlines()[0]
            raise UsageError(f"{value!r} is no value for {key}: {told}", where=word, fix=_EXAMPLE) from None
    made = OmegaConf.to_object(request)
    assert isinstance(made, ImportRequest)
    made.check()
    return made


def _split_word(word: str, also: Collection[str]) -> tuple[str, Any]:
    """(key, value) of a word of the command line."""
    import yaml

    key, equals, text = word.partition("=")
    if not equals or "/" in key or os.path.exists(word):
        return "path", word
    name = key.removeprefix("data.")
    first, _, rest = name.partition(".")
    if first not in _FIELDS or (rest and first not in ("split", "text", "picture")):
        raise UsageError(
            f"unknown key {key!r}{nearest(name, [*also, *_FIELDS])}",
            where=word,
            fix=f"the keys are {', '.join([*also, *_FIELDS])}",
        )
    if first in ("path", "dir", "schema"):
        text = plain_path(text)
    if first in _TEXTS:
        return name, None if text in ("null", "") and first != "path" else text
    if first == "split" and rest:
        return name, _share_or_condition(text)
    if first == "max_bad":
        return name, _count_or_share(text, word)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"{text!r} can't be read", where=word, fix=f"data.{first}=...") from None
    if first == "split" and isinstance(value, Mapping):
        value = {part: _share_or_condition(str(one)) for part, one in value.items()}
    return name, [value] if first == "exclude" and not isinstance(value, list) else value


def _share_or_condition(text: str) -> float | str:
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return text


def _count_or_share(text: str, word: str) -> float | int:
    try:
        return int(text) if text.isdigit() else float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UsageError(
            f"{text!r} is neither a number nor a share", where=word, fix="data.max_bad=10, or data.max_bad=1%"
        ) from None
