"""A run's config.yaml as it was saved: read as any stranger's file is, its interpolations unresolved.

Refuses to compose it: that is hydra_compose.py's.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

from tfscale.config.schema import RunConfig
from tfscale.errors import DataCorrupt, DataMissing, UsageError, first_line, nearest
from tfscale.files import read_plain, refuse_bombs
from tfscale.run_dir.folder import RunDir


def saved_tree(file: Path) -> dict[str, Any]:
    """What it says.

    Raises:
        DataMissing: there is none.
        DataCorrupt, SecurityRefused: it can't be read, or is what no run writes.
        UsageError: keys that this version doesn't know.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    RunDir(file.parent).refuse_links()
    if not file.is_file():
        raise DataMissing(
            f"{file.parent} is no run folder: it holds no {file.name}",
            where="run.dir",
            fix="give run.dir=PATH as the training printed it, such as runs/resnet/563a34baa8",
        )
    try:
        text = read_plain(file).decode()
        refuse_bombs(yaml.parse(text, Loader=yaml.SafeLoader), str(file))
        tree = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise DataCorrupt(
            f"the configuration can't be read: {first_line(error)}", where=str(file), fix="restore the file"
        ) from None
    names = [field.name for field in dataclasses.fields(RunConfig)]
    unknown = [str(key) for key in tree if key not in names] if isinstance(tree, dict) else [str(tree)[:40]]
    if unknown:  # also "defaults" and "hydra", which would steer the composition itself
        raise UsageError(
            "; ".join(f"unknown key '{key}'{nearest(key, names)}" for key in unknown),
            where=str(file),
            fix="remove it, or use the version of tfscale that wrote the file",
        )
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def kept_task(file: Path) -> dict[str, Any]:
    """The node of a model that was given as a Python object; raises UsageError where the folder doesn't hold it."""
    kept = file.with_name("model.json")
    if not kept.is_file():
        raise UsageError(
            "the run's model was given as a Python object, which its folder doesn't hold",
            where=str(file),
            fix="train with export.at_end=true and use export/, or call tfscale.fit(model, data, run_dir=...) again",
        )
    return {"_target_": "tfscale.keras_task.kept.KeptModel", "model": str(kept), "allow": "${extensions.allow}"}
