"""What a workflow is asked for: the words of its command, sorted by the command of ours that each belongs to.

Owns the groups of words, and what is refused before anything runs. Refuses to know where files lie, and what a command
makes of its words.

    request = WorkflowRequest.of(["workflow.name=digits", "evaluate.checkpoint=last", "+recipe=resnet", "data=mnist"])
    request.train       # ("+recipe=resnet", "data=mnist")
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tfscale.errors import UsageError, nearest
from tfscale.tracking.model_address import check_alias

# Words of these groups lose them before their command gets them; "serve" and "watch" keep theirs, as `tfscale serve`
# and `tfscale watch` have them.
_GROUPS = ("workflow", "import", "validate", "evaluate", "promote", "serve", "watch")
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class WorkflowRequest:
    """One workflow, as it was asked for.

    Attributes:
        name: of the model, as the registry and the server know it.
        train: overrides of the training.
        source: a path or URL to import; "" where the training's data need no import.
        importing, validate, evaluate, promote: the words of these commands.
        serve: words of the server, each with "serve." before it. watch: likewise; none where nothing is watched.
        alias: under which the registry keeps the best version.
        keep_serving: whether the server goes on after it was tried out.
        own: the other words of the workflow's own, without "workflow.".
        config_dir: a folder of people's own groups; "" for none.
    """

    name: str
    train: tuple[str, ...]
    source: str = ""
    importing: tuple[str, ...] = ()
    validate: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    promote: tuple[str, ...] = ()
    serve: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    alias: str = "champion"
    keep_serving: bool = False
    own: Mapping[str, str] = field(default_factory=dict)
    config_dir: str = ""

    @classmethod
    def of(cls, words: Sequence[str], *, own: Collection[str] = (), config_dir: str = "") -> WorkflowRequest:
        """Args: words: of the command line; own: further words of the workflow's own that its caller knows.

        Raises:
            UsageError: an unknown word of the workflow's, a missing name, or words that have no effect.
        """
        groups = _sorted(words)
        asked = dict(word.split("=", 1) for word in groups["workflow"])
        known = ("name", "as", "serve", *own)
        for name in asked:
            if name not in known:
                raise UsageError(
                    f"unknown key 'workflow.{name}'{nearest(name, known)}",
                    where=f"workflow.{name}",
                    fix=f"the keys are {', '.join(f'workflow.{one}' for one in known)}",
                )
        importing = dict(word.split("=", 1) for word in groups["import"])
        source = importing.pop("source", "")
        made = cls(
            name=asked.pop("name", ""),
            train=tuple(groups["train"]),
            source=source,
            importing=tuple(f"{key}={value}" for key, value in importing.items()),
            validate=tuple(groups["validate"]),
            evaluate=tuple(groups["evaluate"]),
            promote=tuple(groups["promote"]),
            serve=tuple(f"serve.{word}" for word in groups["serve"]),
            watch=_watched(groups["watch"]),
            alias=asked.pop("as", "champion"),
            keep_serving=truth(asked.pop("serve", "false"), "workflow.serve"),
            own=asked,
            config_dir=config_dir,
        )
        made._check()
        return made

    @property
    def data_name(self) -> str:
        """What the imported data set is called."""
        return value_in(self.importing, "name") or re.sub(r"\W", "_", self.name)

    def check_alias(self) -> None:
        """Raises UsageError for an alias that MLflow doesn't take. Argo's parameter, which stands in its place once the
        steps are written for a cluster, is none: who asked for it had its value looked at."""
        try:
            check_alias(self.alias)
        except UsageError as error:
            fix = f"{error.fix}".replace("as=", "workflow.as=")
            raise UsageError(error.what, where="workflow.as", fix=fix) from None

    def _check(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            what = f"{self.name!r} can't name a model" if self.name else "no name was given for the model"
            raise UsageError(what, where="workflow.name", fix="workflow.name=digits")
        if not self.source and (vain := [*self.importing, *self.validate]):
            raise UsageError(
                f"nothing is imported, so that {vain[0].partition('=')[0]} has no effect",
                where="import.source",
                fix="import.source=PATH, or leave the words of import and validate away",
            )
        for key in ("run.dir", "run.name", "run.root"):
            if value_in(self.train, key) is not None:
                raise UsageError(
                    "the workflow chooses the run's folder, so that its later steps find it",
                    where=key,
                    fix="leave it away",
                )


def value_in(words: Sequence[str], key: str) -> str | None:
    """The value of `key=value` among these words, whatever plus signs or "data." an import's has before it."""
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name.lstrip("+").removeprefix("data.") == key.removeprefix("data."):
            return value
    return None


def _watched(words: Sequence[str]) -> tuple[str, ...]:
    """None where watch.seconds is 0; raises UsageError for words without it."""
    if value_in(words, "seconds") == "0" and len(words) == 1:
        return ()
    if words and value_in(words, "seconds") in (None, "0"):
        word = next(word for word in words if not word.startswith("seconds="))
        raise UsageError(
            f"nothing is watched, so that watch.{word.partition('=')[0]} has no effect",
            where="watch.seconds",
            fix="watch.seconds=300, too",
        )
    return tuple(f"watch.{word}" for word in words)


def truth(text: str, where: str) -> bool:
    """Raises UsageError for what is neither true nor false."""
    if text not in _TRUTH:
        raise UsageError(f"{text!r} is neither true nor false", where=where, fix=f"{where}=true")
    return _TRUTH[text]


def _sorted(words: Sequence[str]) -> dict[str, list[str]]:
    """The words by group, without it; those of the training are the rest."""
    found: dict[str, list[str]] = {name: [] for name in (*_GROUPS, "train")}
    for word in words:
        group, dot, rest = word.partition(".")
        if dot and group in _GROUPS:
            if "=" not in rest:
                raise UsageError(f"{word} has no value", where=word, fix=f"{word}=...")
            key = rest.partition("=")[0]
            if value_in(found[group], key) is not None:
                raise UsageError(f"{group}.{key} was given twice", where=word, fix=f"give {group}.{key} once")
            found[group].append(rest)
        else:
            found["train"].append(word)
    return found
