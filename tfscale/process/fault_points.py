"""Named points where tests inject a fault; nothing happens, and nothing is computed, when the variable is unset.

TFSCALE_FAULT="ckpt.before_commit:step=20:kill" kills the process by SIGKILL at that point of that step. Actions: kill,
stop (SIGSTOP), term (SIGTERM), raise (RuntimeError), exit (os._exit(70)), sleep1.5 (for so many seconds).
Several are separated by commas.
"""

from __future__ import annotations

import os
import signal
import time

_SPEC = os.environ.get("TFSCALE_FAULT", "")


def point(name: str, *, step: int | None = None) -> None:
    """Marks a place where a fault can be injected."""
    for spec in _SPEC.split(",") if _SPEC else ():
        wanted, *conditions, action = spec.split(":")
        if wanted == name and all(c == f"step={step}" for c in conditions):
            _act(name, action)


def _act(name: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif action.startswith("sleep"):
        time.sleep(float(action.removeprefix("sleep")))
    elif action == "exit":
        os._exit(70)
    else:
        raise RuntimeError(f"injected fault at {name}")
