"""The files of a new project, from the templates beside this module.

A template is the file itself, with `{{name}}` in the places of what differs. Refuses to know where they are written.
"""

from __future__ import annotations

import re
from pathlib import Path

from tfscale.version import __version__

LAST = "pyproject.toml"  # what makes it a project
_TEMPLATES = Path(__file__).with_name("templates")
_ENDING = ".tmpl"
# Where each goes: a name with a dot in front, or the package's own, is none that a wheel takes along as it stands.
_TARGETS = {
    "package.py": "{{name}}/__init__.py",
    "source.py": "{{name}}/source.py",
    "task.py": "{{name}}/task.py",
    "recipe.yaml": "configs/recipe/{{name}}.yaml",
    "data.yaml": "configs/data/{{name}}.yaml",
    "test_training.py": "tests/test_training.py",
    "quickstart.ipynb": "notebooks/quickstart.ipynb",
    "Makefile": "Makefile",
    "Dockerfile": "Dockerfile",
    "dockerignore": ".dockerignore",
    "gitignore": ".gitignore",
    "README.md": "README.md",
    "pyproject.toml": LAST,
}


def project_files(name: str) -> dict[str, str]:
    """Texts by their path in the project, in the order in which they are written."""
    values = {"name": name, "job_name": name.replace("_", "-"), "version": __version__}

    def filled(text: str) -> str:
        return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], text)

    return {
        filled(target): filled((_TEMPLATES / f"{template}{_ENDING}").read_text(encoding="utf-8"))
        for template, target in _TARGETS.items()
    }
