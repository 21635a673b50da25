"""SweepRequest: what `tfscale sweep` is told: how many trials, chosen how, in which folder, and what varies.

Owns the words `sweep.KEY`, and the overrides of each trial. Refuses to run one.

    request = SweepRequest.of(["+recipe=resnet", "task.width=4,8", "sweep.trials=2"])
    request.training(0, {"task.width": "8"})      # ["+recipe=resnet", "task.width=8", "run.dir=.../0000", ...]
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.composition.hydra_compose import compose
from tfscale.config.override_syntax import plain_path
from tfscale.config.schema import RunConfig, validate
from tfscale.config.unused_settings import refuse_ignored
from tfscale.console.messages import received
from tfscale.errors import UsageError, nearest
from tfscale.files import digest_of
from tfscale.hardware import probe
from tfscale.hardware.shares import shares_of
from tfscale.sweep.search_space import SearchSpace
from tfscale.sweep.trial_store import PRUNERS, SAMPLERS, Choice, draw

OWN = {
    "sweep.trials=N": "how many (default 20; of a grid all)",
    "sweep.name=NAME": "of the sweep (default a digest of its words): the same name goes on",
    "sweep.dir=FOLDER": "where it lies (default run.root/sweeps/NAME)",
    "sweep.parallel=N": "trials at once, each on its share of cores and GPUs (default 1)",
    "sweep.sampler=NAME": "who chooses values: tpe (default), random, or grid for all combinations",
    "sweep.pruner=NAME": "who gives up trials: median (default; those worse than it), or none (of a grid)",
    "sweep.seed=N": "of the sampler (default 0)",
}
_NAMES = [word.partition("=")[0].removeprefix("sweep.") for word in OWN]
_TAKEN = ("run.dir", "run.name", "tracker.parent")  # which the sweep gives every trial itself


@dataclass(frozen=True)
class Share:
    """What of the machine one trial has. Attributes: cores: None: all; environ: variables that say which GPUs."""

    cores: tuple[int, ...] | None = None
    environ: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SweepRequest:
    """Attributes: trials: how many in all, of a grid the whole; config_dir: a folder of the user's own groups."""

    space: SearchSpace
    name: str
    folder: Path
    trials: int
    parallel: int
    choice: Choice
    config_dir: str | None = None

    @classmethod
    def of(cls, words: Sequence[str], *, config_dir: str | None = None) -> SweepRequest:
        """Raises UsageError: a word that no sweep has, a value that it doesn't take, or overrides that make no search
        space."""
        own: dict[str, str] = {}
        rest: list[str] = []
        for word in words:
            key, equals, value = word.partition("=")
            if not key.startswith("sweep."):
                rest.append(word)
                continue
            name = key.removeprefix("sweep.")
            if name not in _NAMES or not equals or not value:
                raise UsageError(
                    f"{word!r} is no word of a sweep{nearest(name, _NAMES)}", where=key, fix="--help lists them"
                )
            own[name] = value
        for word in rest:
            key = word.lstrip("+~").partition("=")[0]
            if key in _TAKEN:
                raise UsageError(f"a sweep gives every trial its own {key}", where=word, fix="leave it away")
        space = SearchSpace.of(rest)
        sampler = _one_of(own, "sampler", SAMPLERS)
        pruners = PRUNERS[::-1] if sampler == "grid" else PRUNERS  # a grid is asked for whole
        choice = Choice(sampler, _one_of(own, "pruner", pruners), _number(own, "seed", 0, least=0))
        name = own.get("name") or digest_of([list(space.fixed), space.describe()])[:10]
        if not re.fullmatch(r"\w[\w.-]{0,99}", name):
            raise UsageError(f"{name!r} can't name a folder", where="sweep.name", fix="use letters, digits, - and _")
        trials = len(space.grid()) if choice.sampler == "grid" else _number(own, "trials", 20, least=1)
        if choice.sampler == "grid" and "trials" in own:
            raise UsageError(
                f"a grid is tried whole: {trials} trials",
                where="sweep.trials",
                fix="leave it away, or sweep.sampler=tpe",
            )
        folder = Path(plain_path(own["dir"])) if "dir" in own else _root(space) / "sweeps" / name
        return cls(space, name, folder, trials, _number(own, "parallel", 1, least=1), choice, config_dir)

    def check(self) -> RunConfig:
        """The configuration of one trial, after every value was composed once: what any of them would be refused for is
        found before the first one trains. Raises what `compose` does."""
        first, *others = self.space.corners()
        configs = [compose(first, config_dir=self.config_dir)]
        with received(lambda text: None):  # the first one has said it
            configs += [compose(corner, config_dir=self.config_dir) for corner in others]
        for config in configs:
            validate(config)
            refuse_ignored(config)
            config.data.check()
            config.task.check()
        ways = {(one.checkpoint.metric, one.checkpoint.mode, one.eval.split) for one in configs}
        if len(ways) > 1:
            raise UsageError(
                "trials can't be compared where checkpoint.metric, its mode or eval.split vary",
                where="checkpoint.metric",
                fix="give each one value",
            )
        return configs[0]

    def training(self, number: int, values: Mapping[str, Any]) -> list[str]:
        """The words of `tfscale train` for a trial."""
        words = [*self.space.overrides(values), f"run.dir={self.trial_folder(number)}"]
        if not any(word.startswith("export.at_end=") for word in self.space.fixed):
            words.append("export.at_end=false")
        return [*(["--config-dir", self.config_dir] if self.config_dir else []), *words]

    def drawn(self) -> list[dict[str, Any]]:
        """The values of every trial that hears nothing of the others: of a grid, or drawn at random by the seed."""
        return self.space.grid() if self.choice.sampler == "grid" else draw(self.space, self.choice.seed, self.trials)

    def trial_name(self, number: int) -> str:
        return f"{number:04d}"

    def trial_folder(self, number: int) -> Path:
        return self.folder / self.trial_name(number)

    def shares(self) -> list[Share]:
        """Of this machine, one for each trial at once; raises UsageError where it has less to share."""
        if self.parallel == 1:
            return [Share()]
        hardware = probe()
        cores, gpus = shares_of(hardware, self.parallel, os.environ)
        have, what = (len(hardware.gpus), "GPUs") if hardware.gpus else (int(hardware.cores), "cores")
        if have < self.parallel or not (gpus or cores):
            raise UsageError(
                f"{have} {what} can't be shared by {self.parallel} trials",
                where="sweep.parallel",
                fix=f"sweep.parallel={max(1, have)} or less",
            )
        return [
            Share(cores[place] if cores else None, (("CUDA_VISIBLE_DEVICES", ",".join(gpus[place])),) if gpus else ())
            for place in range(self.parallel)
        ]


def _root(space: SearchSpace) -> Path:
    given = [word.partition("=")[2] for word in space.fixed if word.startswith("run.root=")]
    return Path(plain_path(given[-1])) if given else Path("runs")


def _one_of(own: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    value = own.get(name, known[0])
    if value not in known:
        raise UsageError(
            f"{value!r} is no {name}{nearest(value, known)}", where=f"sweep.{name}", fix=f"use {', '.join(known)}"
        )
    return value


def _number(own: Mapping[str, str], name: str, usual: int, *, least: int) -> int:
    text = own.get(name, str(usual))
    if not text.isdecimal() or len(text) > 9 or int(text) < least:
        raise UsageError(
            f"{text!r} is no number from {least} on", where=f"sweep.{name}", fix=f"sweep.{name}={usual or 1}"
        )
    return int(text)
