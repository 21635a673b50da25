"""What all programs share: one way to write options, one page of help, and the nearest name for what isn't one."""

from __future__ import annotations

import pytest

from tfscale.__main__ import COMMANDS, main
from tfscale.cli import Program, choice, number, place, whole
from tfscale.errors import UsageError

OWN = {
    "launch": ("--workers N", "--evaluator-grace S"),
    "parity": ("parity.steps=N", "parity.json=FILE"),
    "evaluate": ("run.dir=PATH|URL", "checkpoint=best|last|STEP"),
    "predict": ("run.dir=PATH|URL output=FILE [option", "split=test|train", "predict.part=ROWS", "predict.workers=N"),
    "generate": ("run.dir=PATH|URL", "prompt=TEXT", "temperature=T"),
    "export": ("run.dir=PATH|URL", "checkpoint=best|last|STEP"),
    "k8s": ("--apply",),
    "data import": ("PATH name=NAME", "drop_unlabelled", "max_bad", "duplicates"),
    "run": ("--run-dir DIR", "--override KEY=VALUE", "script.py | -m package.module"),
}


def program() -> Program:
    made = Program("it", "What it does.", example="tfscale it")
    made.trained_run()
    made.word("output", "FILE", "what is written", type=place, required=True)
    made.word("split", "test|train", "which", type=choice("test", "train"), default="test")
    made.word("it.rows", "N", "rows", type=whole)
    made.add_argument("--grace", type=number, default=1.0)
    return made


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_one_page_for_all(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and shown.startswith(f"usage: tfscale {command} ")
    own = ("--cfg job", "--config-dir FOLDER", "override", "example: tfscale", "resnet50_imagenet")
    # Options of `run` come before a script, and all else is the script's; those of data, of serving, config, sweeps,
    # init and many runs have no page of it, and a workflow hands words on to commands that have one.
    bare = ("init", "run", "serve", "smoke", "watch", "config", "report", "sweep", "ui", "completion")
    plain = command in bare or command.startswith(("data ", "workflow ", "runs"))
    if plain:
        own = ("example: tfscale",)
        assert "--cfg" not in shown and "resnet50_imagenet" not in shown
    assert [part for part in (*own, *OWN.get(command, ())) if part not in shown] == []
    assert max(map(len, shown.splitlines())) <= 80 and "--worker F" not in shown


def test_options_are_written_with_and_without_dashes_in_any_order():
    for words in (["run.dir='a b'", "+recipe=x", "output=~", "it.rows=3", "--grace=2", "--", "data.path=y"],
                  ["--grace", "2", "+recipe=x", "--it.rows=3", "--output=~", "data.path=y", "--run.dir", "a b"]):  # fmt: skip
        found = program().parse(words)
        assert (found.run_dir, found.it_rows, found.grace, found.split) == ("a b", 3, 2.0, "test")
        assert found.output == place("~") != "~" and found.overrides == ["+recipe=x", "data.path=y"]
        assert (found.checkpoint, found.cfg, found.config_dir) == ("best", None, None)
    assert program().parse(["run.dir=a", "--cfg", "job"]).output is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no value was given for run.dir, output | run.dir, output | run.dir=... output=..."),
        (["run.dir=", "output=x"], "no value was given for run.dir | run.dir"),
        (["run.dri=a", "output=x"], "run.dir; was run.dri=a meant to?"),
        (["--cfg", "job"], "no value was given for run.dir | run.dir"),
        (["chekpoint=1"], "unknown option 'chekpoint'; did you mean 'checkpoint'? | chekpoint=1"),
        (["it.rwos=1"], "unknown option 'it.rwos'; did you mean 'it.rows'?"),
        (["it.rows=many"], "'many' is not a whole number | it.rows | --help"),
        (["split=tran"], "'tran' is not known; did you mean 'train'? | split"),
        (["split=x"], "'x' is not known; use test or train | split"),
        (["--grace", "long"], "'long' is not a number | --grace"),
        (["--grase=1"], "unknown option '--grase'; did you mean '--grace'?"),
        (["--cfg"], "expected one argument | -c/--cfg"),
    ],
)
def test_what_is_no_option_is_answered_with_the_nearest(words, said):
    with pytest.raises(UsageError) as error:
        program().parse(words)
    assert said in str(error.value)


def test_the_program_itself(capsys):
    assert main([]) == main(["help"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("usage: tfscale COMMAND") == 2 and all(f"  {name} " in shown for name in COMMANDS)
    assert main(["--version"]) == 0 and capsys.readouterr().out.startswith("tfscale 0.")
    assert (main(["trian"]), main(["--verison"])) == (64, 64)
    said = capsys.readouterr().err
    assert "did you mean 'train'?" in said and "did you mean '--version'?" in said
