"""The tests that are expected to fail, each with its reason: owns their list; refuses to run anything."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import yaml

_FILE = Path(__file__).with_name("expected_failures.yaml")
_HEAD = "# Tests of Keras that fail through tfscale.fit, each with its reason; `--record` rewrites the list.\n"


def read_expected() -> dict[str, str]:
    """The reasons by file::Class::test."""
    return yaml.safe_load(_FILE.read_text()) or {}


def write_expected(failed: Mapping[str, str], before: Mapping[str, str], *, forget: Collection[str]) -> dict[str, str]:
    """Writes what failed now, and what stood there of tests that weren't run; gives what the file holds. A reason that
    stands there stays while its test fails."""
    now = {test: reason for test, reason in before.items() if test not in forget or test in failed}
    now = {**failed, **now}
    _FILE.write_text(_HEAD + yaml.safe_dump(dict(sorted(now.items())), width=118, sort_keys=False, allow_unicode=True))
    return now
