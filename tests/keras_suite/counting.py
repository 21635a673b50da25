"""Which tests count: those that call `fit` and pass with Keras alone. Owns the answer, which is kept in build/; refuses to
know tfscale."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

from tests.keras_suite.processes import run_file
from tests.keras_suite.sources import KEPT


def counting_tests(path: Path, scratch: Path, *, again: bool) -> list[str]:
    """The file's tests that count, in its order; it is run for that once for each version of Keras and TensorFlow."""
    kept = KEPT / f"{path.stem}-tensorflow-{metadata.version('tensorflow')}.json"
    if kept.exists() and not again:
        return json.loads(kept.read_text())
    outcomes = run_file(path, scratch, through=False)
    tests = [test for test, outcome in outcomes.items() if outcome.passed and outcome.fits]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(tests, indent=1))
    return tests
