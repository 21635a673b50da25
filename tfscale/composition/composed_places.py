"""Where the things of a run lie, from overrides that need name no recipe.

places = compose_places(["run.root=/mnt/runs", "tracker=none"])
places.root, places.data
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfscale.composition.hydra_compose import composed
from tfscale.composition.plug_points import ALLOWED, build, check_targets
from tfscale.config.applied_settings import AppliedSettings
from tfscale.errors import UsageError, first_line
from tfscale.redaction import keep_secrets


@dataclass(frozen=True)
class Places:
    """
    Args:
        runs: the folder that runs go to, or the one run's where that is named.
        beside: the folder that runs share, which MLflow's own file is in.
        data: the folder of data.
        store: an URL or None.
        tracker: a TrackerSpec or None.
        hardware: a file that describes another machine, or None.
        log_format: of messages.
        settings: what settings files set of it.
    """

    runs: Path
    beside: Path
    data: Path
    store: str | None
    tracker: Any
    hardware: str | None
    log_format: str
    settings: AppliedSettings = field(default_factory=AppliedSettings)

    @property
    def runs_key(self) -> str:
        """The key that names the folder of runs."""
        return "run.root" if self.runs == self.beside else "run.dir"


def compose_places(
    overrides: Sequence[str],
    *,
    data: str | None = None,
    config_dir: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Places:
    """Composes what the overrides say, which may be those of a whole run.

    Args:
        data: the folder of data; None: the configuration's, that in TFSCALE_DATA_DIR, a settings file's, or data.

    Raises:
        UsageError, SecurityRefused: as `compose`, but for what is missing for a run.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    environ = os.environ if environ is None else environ
    found = composed(overrides, config_dir=config_dir, whole=False)
    raw = found.raw
    keep_secrets(raw)
    problems: list[tuple[str, str]] = []
    try:
        run, log = raw.run, raw.log
        node = OmegaConf.to_container(raw.tracker, resolve=True) if raw.tracker is not None else None
        check_targets(node, (*ALLOWED, *raw.extensions.allow), "tracker")
        tracker = build(node, "tracker", problems)
        missing = OmegaConf.is_missing(raw, "data") or raw.data is None
        standing = found.settings.sets.get("data.dir")  # which needs no data to be named
        if missing and standing is not None:
            raw.data = {"dir": standing.value}
        named = OmegaConf.select(raw, "data.dir")
        runs = Path(run.dir or run.root).expanduser()
        folder = data or named or environ.get("TFSCALE_DATA_DIR") or "data"
        beside = runs.parent if run.dir else runs
        hardware, log_format = raw.plan.hardware, str(log.format)
    except OmegaConfBaseException as error:
        where = str(getattr(error, "full_key", "") or "")
        raise UsageError(first_line(error), where=where, fix="correct the key") from None
    if problems:
        raise UsageError(
            "; ".join(text for _, text in problems), where=", ".join(key for key, _ in problems), fix="correct the keys"
        )
    place = Path(str(folder)).expanduser()
    return Places(runs, beside, place, run.store, tracker, hardware, log_format, found.settings)
