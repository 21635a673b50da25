"""Keras's own tests with `tfscale.fit` in place of Keras's: `python -m tests.keras_suite`.

Owns which tests count, and what is expected of them; refuses to know what a test does. A test counts where it calls `fit` and
passes with Keras alone. Each file of tests has a process of its own, with and without the adapter.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from tests.keras_suite.counting import counting_tests
from tests.keras_suite.expected import read_expected, write_expected
from tests.keras_suite.processes import Outcome, run_file
from tests.keras_suite.sources import suite_files


def main() -> int:
    """Runs them; 1 where a test fails that isn't expected to, or passes though it is expected to fail."""
    arguments = _arguments()
    files, missing = suite_files()
    with tempfile.TemporaryDirectory(prefix="keras_suite-") as folder:
        outcomes = dict(_through(files, arguments, Path(folder)))
    failed = {test: outcome.reason for test, outcome in outcomes.items() if not outcome.passed}
    expected = read_expected()
    if arguments.record:
        expected = write_expected(failed, expected, forget=outcomes)
    if arguments.report:
        arguments.report.write_text(_table(outcomes, expected))
    worse = {test: reason for test, reason in failed.items() if test not in expected}
    better = [test for test in outcomes if test in expected and test not in failed]
    gone = [test for test in expected if test not in outcomes and not arguments.only]
    for reason in dict.fromkeys(worse.values()):
        print(f"FAILED: {reason}", *(f"    {test}" for test in worse if worse[test] == reason), sep="\n")
    for line in [*missing, *_stale(better, "passes"), *_stale(gone, "is none of those that count")]:
        print(line)
    print(f"Keras's own tests through tfscale.fit: {len(outcomes) - len(failed)} of {len(outcomes)}")
    return 1 if worse or better or gone or not outcomes else 0


def _stale(tests: Iterable[str], why: str) -> list[str]:
    return [f"LISTED AS FAILING, but it {why}: {test}" for test in tests]


def _through(files: Mapping[str, Path], arguments: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Outcome]]:
    """Each test that counts, by file and name, and what came of it."""
    words = arguments.only
    for name, path in files.items():
        whole = not words or any(word in name for word in words)
        counting = counting_tests(path, scratch, again=arguments.recount)
        tests = [test for test in counting if whole or any(word in f"{name}::{test}" for word in words)]
        if tests:
            outcomes = run_file(path, scratch, through=True, tests=tests)
            print(f"{name}: {sum(outcome.passed for outcome in outcomes.values())} of {len(outcomes)}", flush=True)
            yield from ((f"{name}::{test}", outcomes[test]) for test in tests)
        elif whole:
            print(f"{name}: no test calls fit and passes with Keras alone", flush=True)


def _table(outcomes: Mapping[str, Outcome], expected: Mapping[str, str]) -> str:
    """In Markdown: every test that counts."""
    lines = ["| test | | why |", "|---|---|---|"]
    for test, outcome in outcomes.items():
        why = "" if outcome.passed else expected.get(test, outcome.reason).replace("|", "&#124;")
        lines.append(f"| `{test}` | {'passes' if outcome.passed else 'fails'} | {why} |")
    passed = sum(outcome.passed for outcome in outcomes.values())
    told = (
        f"{passed} of {len(outcomes)} tests of Keras {metadata.version('keras')} that call `fit` pass by `tfscale.fit`."
    )
    head = [
        "# Keras's own tests",
        "",
        told,
        "Written by `python -m tests.keras_suite --report docs/keras_tests.md`.",
        "",
    ]
    return "\n".join([*head, *lines, ""])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.keras_suite", description=__doc__)
    parser.add_argument("only", nargs="*", help="words of file::Class::test; all tests that count without them")
    parser.add_argument("--report", type=Path, metavar="FILE", help="a Markdown table of every test")
    parser.add_argument("--record", action="store_true", help="rewrites the list of expected failures")
    parser.add_argument("--recount", action="store_true", help="asks Keras alone again which tests count")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
