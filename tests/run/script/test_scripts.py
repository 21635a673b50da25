"""Scripts that know nothing of us, by `python script.py` and by `tfscale run script.py`: the same History and weights, to
the bit; and killed in mid-training and started again, the same once more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import warm

SCRIPTS = Path(__file__).parents[2] / "scripts"
# With the step of the second fit at which it is killed: more than the first has, and the fit has a checkpoint by then
KILLED = {"cnn": 16, "text_classifier": 24, "vae": 16, "wide_and_deep": 20, "fine_tuning": 16}
PYTHON = "import runpy, sys; sys.path[0] = sys.argv[1]; sys.argv[1:2] = []; sys.argv[0] = sys.argv.pop(1); "
PYTHON += "runpy.run_path(sys.argv[0], run_name='__main__')"


def ran(command, folder, *, code=0, **environ):
    folder.mkdir(exist_ok=True)
    process = warm.Popen(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    shown, _ = process.communicate(timeout=240)
    assert process.returncode == code, shown
    return shown


def by_python(script, folder):
    return ran(["-c", PYTHON, SCRIPTS, SCRIPTS / f"{script}.py"], folder)


def by_tfscale(script, folder, *options, **more):
    return ran(["-m", "tfscale.run", *options, SCRIPTS / f"{script}.py"], folder, **more)


def final(shown, folder):
    (line,) = [line for line in shown.splitlines() if line.startswith("final:")]
    if (folder.parent / "rounded").exists():
        line = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.5g}", line)
    with np.load(folder / "final.npz") as found:
        return line, [found[name].tobytes() for name in found.files]


@pytest.fixture(autouse=True)
def rounded(request, tmp_path):
    """On a busy CPU two starts of the VAE by Python alone print losses that may differ in their last bit, while the
    weights don't: its figures are compared in five digits."""
    if request.node.callspec.params["script"] == "vae":
        (tmp_path / "rounded").touch()


@pytest.mark.parametrize("script", ["fine_tuning", *(pytest.param(s, marks=pytest.mark.slow) for s in KILLED if s != "fine_tuning")])  # fmt: skip
def test_it_is_as_by_python(script, tmp_path):
    alone = final(by_python(script, tmp_path / "python"), tmp_path / "python")
    keras_kernels = ("--override", "plan.fused_kernels=false")  # bits are compared
    assert final(by_tfscale(script, tmp_path / "ours", *keras_kernels), tmp_path / "ours") == alone
    files = {str(file.relative_to(tmp_path / "python")) for file in (tmp_path / "python").rglob("*")}
    there = {str(file.relative_to(tmp_path / "ours")) for file in (tmp_path / "ours").rglob("*")}
    assert {name for name in there if not name.startswith("runs")} == files


@pytest.mark.parametrize("script", ["cnn", *(pytest.param(s, marks=pytest.mark.slow) for s in KILLED if s != "cnn")])
def test_killed_in_its_second_fit_it_comes_to_the_same_bits(script, tmp_path):
    whole, twice = tmp_path / "whole", tmp_path / "twice"
    undisturbed = final(by_tfscale(script, whole, "--deterministic"), whole)
    fault = {"TFSCALE_FAULT": f"train.loop:step={KILLED[script]}:kill"}
    by_tfscale(script, twice, "--deterministic", code=-9, **fault)
    shown = by_tfscale(script, twice, "--deterministic")
    assert "fit 1, " in shown and "it was complete, and is taken from" in shown
    assert "goes on in" in shown and "resuming at step" in shown
    assert final(shown, twice) == undisturbed
    logs = [(folder / "log.csv").read_text() for folder in (whole, twice) if script == "cnn"]
    assert len(set(logs)) <= 1
