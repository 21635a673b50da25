"""Environments of their own, for programs that can't live beside our pins: made once, and kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def python_of(folder: Path, requirements: Path, *options: str) -> Path:
    """The Python of the environment `folder`, made from this file where there is none.

    Args:
        options: of `pip install`.

    Raises:
        subprocess.CalledProcessError: it can't be made.
    """
    python, ready = folder.absolute() / "bin" / "python", folder / ".ready"
    if not ready.exists():  # whatever ended an earlier try, half of one isn't taken for the whole
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*install, *options, "-r", requirements], check=True)
        ready.touch()
    return python
