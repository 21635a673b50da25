"""Where Keras's tests lie: owns which files the suite is made of; refuses to run them."""

from __future__ import annotations

import importlib.util
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "keras_suite" / metadata.version("keras")  # what was fetched and counted
_FROM_WHEEL = ("trainers/trainer_test.py", "callbacks/*_test.py")
_FROM_REPOSITORY = ("tf_custom_fit_test.py", "tf_distribute_training_test.py")
_URL = "https://raw.githubusercontent.com/keras-team/keras/v{version}/integration_tests/{name}"


def suite_files() -> tuple[dict[str, Path], list[str]]:
    """The files by name, and a line for each that couldn't be fetched."""
    version = metadata.version("keras")
    spec = importlib.util.find_spec("keras")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).parent / "src"
    files = {
        path.relative_to(source).as_posix(): path for pattern in _FROM_WHEEL for path in sorted(source.glob(pattern))
    }
    missing = []
    for name in _FROM_REPOSITORY:
        path = KEPT / name
        if path.exists() or _fetched(_URL.format(version=version, name=name), path):
            files[f"integration_tests/{name}"] = path
        else:
            missing.append(f"NOT REACHED: {_URL.format(version=version, name=name)}; put it at {path}")
    return files, missing


def _fetched(url: str, path: Path) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            content = answer.read()
    except (urllib.error.URLError, OSError):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return True
