"""Installs what the suite's peers need, each into an environment of its own below build/, where it is kept.

python -m benchmarks.peers
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.checkpoint_stall import orbax_python
from benchmarks.input import peers_python
from benchmarks.scaling import torch_python


def main() -> int:
    missing = 0
    for make in (peers_python, torch_python, orbax_python):
        try:
            python = make(print)
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            print(error, file=sys.stderr)
            python = None
        missing += python is None
        if python:
            print(python)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
