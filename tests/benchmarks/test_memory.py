"""The peak of memory: that it is a new process's own, and of equal work."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import memory
from benchmarks.asking import Asking
from benchmarks.side_by_side import Contestant, Question

SPARE = 64 << 20


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Contestants that need no TensorFlow: each holds so many bytes for a moment, and has so many parameters."""
    module = tmp_path / "held.py"
    module.write_text(
        "from benchmarks.side_by_side import Work\n"
        "import time\n"
        "def work(size, parameters):\n"
        "    len(bytearray(int(size)).replace(b'a', b'b'))\n"
        "    facts = {'parameters': int(parameters), 'loss': 1.0, 'precision': 'float32', 'how': 'so'}\n"
        "    return Work(lambda steps: time.sleep(0.01 * steps), 1, facts)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def ask(*, parameters="10", **how):
        held = {"ours": "0", "ours again": "0", "keras as written float32": str(SPARE), "keras xla float32": "0"}
        found = tuple(
            Contestant(name, "held:work", (size, parameters if name == "ours" else "10")) for name, size in held.items()
        )
        question = Question("held", "examples/s", found, (), ("ours again", "ours"), "ours", 1)
        monkeypatch.setattr(memory, "prepared", lambda name, scratch, python: (question, None))
        monkeypatch.setattr(memory, "peers_python", lambda say: Path("none"))
        said = []
        (outcome,) = memory.outcomes("transformer", Asking(say=said.append, **how))
        return outcome, said

    return ask


def test_a_peak_is_that_of_a_process_of_its_own(asked, monkeypatch):
    monkeypatch.setattr(memory, "BLOCKS", 1)
    outcome, said = asked(blocks=2)
    assert set(outcome.values) == {"ours", "ours again", "keras as written float32"}, "compilers are left out"
    assert "blocks: 1 at most, since memory hardly varies" in said
    (ours,), (keras,) = outcome.values["ours"], outcome.values["keras as written float32"]
    assert SPARE <= keras - ours < 3 * SPARE
    assert outcome.pairs == (("ours", "keras as written float32"),)
    assert outcome.control and outcome.control.over == "ours again"
    assert not outcome.unequal


def test_other_work_is_no_comparison(asked):
    outcome, _ = asked(blocks=1, quick=True, parameters="11")
    assert outcome.unequal
    assert set(outcome.values) == {"ours", "keras as written float32"}
    assert outcome.counts == "not the same work"
