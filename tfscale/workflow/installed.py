"""What the steps need besides tfscale itself: refused before the first one runs.

Owns which extras are there. Refuses to import anything of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata

from tfscale.errors import UsageError
from tfscale.workflow.steps import Step


def refuse_missing(steps: Iterable[Step]) -> None:
    """Raises UsageError where an extra that these steps need isn't installed; all of them in one message."""
    missing = {
        extra: (step.name, package)
        for step in steps
        for extra in step.extras
        if (package := next((one for one in packages_of(extra) if not _is_there(one)), None))
    }
    if missing:
        told = ", ".join(f"{package}, which {step} needs," for step, package in missing.values())
        raise UsageError(
            f"{told} is not installed", where="workflow", fix=f'pip install "tfscale[{",".join(sorted(missing))}]"'
        )


def packages_of(extra: str) -> list[str]:
    """The packages of an extra of tfscale's; none where tfscale itself isn't installed, as in a checkout."""
    try:
        lines = metadata.requires("tfscale") or []
    except metadata.PackageNotFoundError:
        return []
    of_it = re.compile(rf"""extra *== *['"]{re.escape(extra)}['"]""")
    return [name[0] for line in lines if of_it.search(line) and (name := re.match(r"[\w.-]+", line))]


def _is_there(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
