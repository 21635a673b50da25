"""The suite: what it concludes from results, and one question in its quick size."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import gates, outcomes, step_gpu, suite
from benchmarks.asking import Asking, NotAsked
from benchmarks.losses import compare, losses, pairs
from benchmarks.outcomes import Control, Outcome, Results
from benchmarks.side_by_side import ROOT, ContestantFailed
from benchmarks.suite_page import page, rows_of_contestants
from tfscale.hardware import probe

GOOD = Control("ours again", "ours", "ratio", 1.0, 0.99, 1.01, True)
PRECISIONS = {"ours": "float32", "ours bfloat16": "bfloat16"}


def outcome(seconds, name="step:vit", *, control=GOOD, unequal=()):
    """Of three blocks that were nearly alike; every contestant's precision is at the end of its name."""
    blocks = {one: [value, value * 1.01, value * 0.99] for one, value in seconds.items()}
    facts = {one: {"precision": PRECISIONS.get(one, one.split()[-1]), "how": "<so>"} for one in seconds}
    pairs = [(a, b) for a in seconds if a in PRECISIONS for b in seconds if b not in PRECISIONS]
    same = tuple((a, b) for a, b in pairs if facts[a]["precision"] == facts[b]["precision"])
    return Outcome(name, f"about {name}", "examples/s", 16, 0, blocks, facts, same, control, unequal=unequal)


def results(*found, **more):
    return Results(("date: today", "machine: one", "versions: some"), 3, 1.0, outcomes=found, **more)


STEP = {"ours": 1.0, "ours bfloat16": 0.5, "keras as written float32": 1.5, "keras xla float32": 0.8}
STEP |= {"keras as written bfloat16": 0.6, "torch eager float32": 0.4}


def test_what_ours_loses_comes_first_and_the_worst_of_it_at_the_top():
    found = losses(
        results(outcome(STEP), outcome({"ours": 1.0, "torch eager float32": 0.1}, "step:lstm", control=None))
    )
    assert [(one.question, one.peer, one.verdict) for one in found] == [
        ("step:lstm", "torch eager float32", "inconclusive (no A/A control)"),
        ("step:vit", "torch eager float32", "slower"),
        ("step:vit", "keras xla float32", "slower"),
    ]
    assert found[1].ratio.median == pytest.approx(2.5)


def test_a_gate_is_read_from_the_fastest_peer_of_the_same_precision():
    def read(measured, text):
        (one,) = [one for one in gates.readings(measured) if one.gate.question == "step:vit" and text in one.gate.text]
        return one

    measured = results(outcome(STEP))
    keras = read(measured, "as planned: the fastest Keras")
    assert keras.verdict == "does not hold"
    assert keras.measured.endswith("(ours / keras xla float32)")
    assert read(measured, "in bfloat16: the fastest Keras").verdict == "holds"
    assert read(measured, "in bfloat16: the fastest PyTorch").measured == gates.NOT_MEASURED
    other = {one.gate.question for one in gates.readings(measured) if one.measured == gates.NOT_MEASURED}
    assert {"loop:mlp", "input:256", "scaling:digits"} <= other
    off = dataclasses.replace(GOOD, median=1.2, holds=False)
    for without in (outcome(STEP, control=off), outcome(STEP, unequal=["ours: 11 parameters"])):
        assert read(results(without), "as planned: the fastest Keras").verdict.startswith("inconclusive")


def test_every_gate_is_read_from_an_outcome_that_the_suite_has():
    parts = {f"{question}:{part}" for question, found in suite.QUESTIONS.items() for part in found}
    for gate in gates.GATES:
        question = gate.question.partition(":")[0]
        assert gate.question in parts or f"{question}:all" in parts, gate


def test_only_what_got_five_percent_worse_beyond_the_noise_is_a_regression():
    before = results(outcome(STEP), outcome({"ours": 1.0, "keras as written float32": 1.0}, "step:lstm"))
    assert compare(before, before).compared == 5
    assert not compare(before, before).worse
    slower = results(outcome({**STEP, "ours": 1.10}))
    found = compare(before, slower)
    assert len(found.worse) == 3, "three peers of ours in float32"
    assert found.worse[0].startswith("step:vit, ours / keras as written float32: 0.667 [")
    assert found.left_out == ("step:lstm: not measured now",)
    assert len(compare(slower, results(outcome(STEP))).better) == 3
    assert not compare(before, results(outcome({**STEP, "ours": 1.04}))).worse, "within 5 %"
    noisy = outcome({**STEP, "ours": 1.10})
    noisy.values["ours"][:] = [0.9, 1.3, 1.10]
    assert not compare(before, results(noisy)).worse, "the intervals overlap"


def test_what_cannot_be_compared_is_said():
    before = results(outcome(STEP))
    off = dataclasses.replace(GOOD, median=1.2, holds=False)
    found = compare(before, results(outcome(STEP, control=off)))
    assert (found.compared, found.left_out) == (0, ("step:vit: now: A/A control off",))
    assert compare(before, dataclasses.replace(before, quick=True)).left_out == ("quick results tell nothing of speed",)
    moved = dataclasses.replace(before, machine=("date: later", "machine: another", "versions: some"))
    assert compare(before, moved).compared == 4
    assert "others" in compare(before, moved).left_out[0]
    fewer = results(outcome({name: value for name, value in STEP.items() if "torch" not in name}))
    assert compare(before, fewer).left_out == ("step:vit, ours / torch eager float32: not measured now",)
    failed = results(missing={"step:vit": "failed: killed"})
    assert compare(before, failed).left_out == ("step:vit: failed: killed",)


def test_results_come_back_from_their_file_and_other_files_are_refused(tmp_path):
    kept = results(outcome(STEP), outcome(STEP, "step:lstm", control=None), missing={"loop:mlp": "failed: so"})
    kept.write(tmp_path / "r.json")
    assert outcomes.read(tmp_path / "r.json") == kept
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["outcomes"][0]["ratios"][0]["under"] == "keras as written float32"
    for text in ("[]", "{}", "nothing", json.dumps({**told, "format": 3}), json.dumps({**told, "outcomes": [{}]})):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match=r"other\.json holds no results"):
            outcomes.read(tmp_path / "other.json")


def test_results_of_before_there_were_bytes_are_read(tmp_path):
    kept = results(outcome(STEP))
    kept.write(tmp_path / "r.json")
    told = json.loads((tmp_path / "r.json").read_text())
    for one in told["outcomes"]:
        one["seconds"] = one.pop("values")
    (tmp_path / "old.json").write_text(json.dumps({**told, "format": 1}))
    assert outcomes.read(tmp_path / "old.json") == kept


def test_memory_is_told_in_mebibytes_and_as_more_or_less():
    taken = {"ours": 3 * 2.0**30, "keras as written float32": 2 * 2.0**30, "torch eager float32": 2.0**32}
    measured = dataclasses.replace(outcome(taken, "memory:resnet50"), unit="MiB")
    assert [(one.peer, one.verdict) for one in pairs(results(measured))] == [
        ("keras as written float32", "more"),
        ("torch eager float32", "less"),
    ]
    assert measured.figure("ours") == 3072
    (columns, (ours, *_)) = rows_of_contestants(measured)
    assert columns[1:3] == ("MiB, median", "MiB, range")
    assert ours[1:3] == ("3,072", "3041 to 3103")


def test_the_page_begins_with_what_ours_loses_then_come_the_gates():
    text = page(results(outcome(STEP, unequal=["ours: 11 parameters"]), missing={"loop:mlp": "failed: <b>"}))
    places = [
        text.index(part) for part in ("Where we lose</h1>", "keras xla float32", "Gates</h2>", "failed: &lt;b&gt;")
    ]
    assert places == sorted(places)
    assert text.count("<svg") == 1
    assert "Not the same work: ours: 11 parameters" in text
    assert "&lt;so&gt;" in text
    assert not [word for word in ("http:", "https:", "src=") if word in text.replace("http://www.w3.org/", "")]


def found(part, asking):
    if part == "mlp":
        raise ContestantFailed("killed\nits stderr")
    if part == "256":
        raise NotAsked("give photos")
    return [outcome(STEP, f"step:{part}")]


def test_a_question_that_fails_or_cannot_be_asked_leaves_the_others(monkeypatch):
    part = suite.Part(f"{__name__}:found")
    monkeypatch.setattr(suite, "QUESTIONS", {"step": {"vit": part}, "loop": {"mlp": part}, "input": {"256": part}})
    kept = []
    names = suite.chosen(["loop", "step", "input:256", "step"], quick=False)
    told = suite.ask(names, Asking(say=lambda text: None), kept=kept.append)
    assert [one.name for one in told.outcomes] == ["step:vit"]
    assert told.missing == {"loop:mlp": "failed: killed", "input:256": "give photos"}
    assert suite.wrong(told) == ["loop:mlp failed: killed"]
    assert kept[-1] == told
    clock = iter([0.0, 0.0, 0.0, 100.0, 100.0, 100.0]).__next__
    late = suite.ask(["step:vit", "loop:mlp"], Asking(say=lambda text: None), minutes=1, now=clock)
    assert late.missing == {"loop:mlp": "the 1 minutes were over"}


def test_all_asks_main_parts_and_says_what_it_leaves_out():
    names = suite.chosen(list(suite.QUESTIONS), quick=False, main=True)
    assert {name.partition(":")[0] for name in names} == set(suite.QUESTIONS)
    assert "input:256" in names and suite.left_out(names) == {
        one: f"--all leaves it out: python -m benchmarks {one}"
        for one in ("loop:resnet50", "input:512", "input:1024", "allreduce:tensor")
    }
    assert suite.left_out(["step:vit"]).keys() >= {"step:gpt"}
    assert suite.chosen(["input"], quick=False) == ["input:256", "input:512", "input:1024"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name questions, or --all"),
        (["stepp"], "no question stepp; there are step, gpu, loop"),
        (["step:nothing"], "there are step:transformer"),
        (["step", "--blocks", "0"], "must be positive"),
        (["step", "--compare", "nowhere.json"], "is no file"),
        (["step", "--page", "nowhere/page.html"], "is no folder"),
    ],
)
def test_words_that_mean_nothing_are_refused(words, told, capsys):
    with pytest.raises(SystemExit):
        command.main(words)
    assert told in capsys.readouterr().err


def test_stored_results_are_shown_and_compared_without_measuring(tmp_path, capsys):
    results(outcome(STEP)).write(tmp_path / "old.json")
    results(outcome({**STEP, "ours": 1.2})).write(tmp_path / "new.json")
    old, new = str(tmp_path / "old.json"), str(tmp_path / "new.json")
    assert command.main(["--from", new, "--compare", old, "--page", str(tmp_path / "page.html")]) == 1
    shown = capsys.readouterr().out
    assert "worse: step:vit, ours / keras as written float32" in shown
    assert "4 ratios compared, 3 of them worse" in shown
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert command.main(["--from", old, "--compare", new]) == 0
    results().write(tmp_path / "new.json")
    assert command.main(["--from", new, "--compare", old]) == 1, "nothing was compared"


def asked(tmp_path, *words):
    """What the command measured."""
    file = tmp_path / "quick.json"
    command = [sys.executable, "-m", "benchmarks", *words, "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return outcomes.read(file)


def test_a_quick_question_proves_equal_work_from_the_same_weights(tmp_path):
    told = asked(tmp_path, "step:wide_and_deep", "--page", str(tmp_path / "quick.html"))
    (measured,) = told.outcomes
    assert told.quick
    assert measured.pairs == (("ours", "keras as written float32"),)
    ours, keras = (measured.facts[name] for name in measured.pairs[0])
    assert ours["loss"] == pytest.approx(keras["loss"], rel=1e-4)
    assert ours["parameters"] == keras["parameters"]
    assert "tfscale.fit" in ours["how"]
    assert Path(tmp_path / "quick.html").stat().st_size > 5000


def test_the_form_for_a_gpu_runs_in_its_small_size_and_asks_for_a_gpu(tmp_path):
    (measured,) = asked(tmp_path, "gpu:transformer").outcomes
    assert measured.pairs == (("ours", "keras as written"),) and measured.unequal == ()
    ours, keras = (measured.facts[name] for name in measured.pairs[0])
    assert ours["precision"] == keras["precision"] == "bfloat16"
    assert "s until 20 steps were done" in ours["how"]
    if not probe().gpus:
        with pytest.raises(NotAsked, match="needs a GPU"):
            step_gpu.outcomes("transformer", Asking())


def test_a_quick_start_is_of_equal_work(tmp_path):
    (startup,) = asked(tmp_path, "startup:script").outcomes
    assert startup.unit == "s"
    assert startup.pairs == (("ours", "keras fit"),)
    ours, keras = (startup.facts[name] for name in startup.pairs[0])
    assert ours["parameters"] == keras["parameters"]
    assert ours["loss"] == pytest.approx(keras["loss"], rel=1e-4)
