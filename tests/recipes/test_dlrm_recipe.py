"""The recipe dlrm on data of its own kind, on imported ones, and on parameter servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tfscale.recipes.dlrm import Dlrm

from tfscale.errors import UsageError

NAMES = [f"column{i:02}" for i in range(40)]


def criteo(folder: Path) -> list[str]:
    """A table of the form of Criteo's Kaggle data: a label, 13 numbers and 26 categories, without names and with gaps;
    imported."""
    random, lines = np.random.RandomState(0), []
    for _ in range(300):
        ids = [int(n) for n in random.zipf(1.5, 26) % 50]
        numbers = ["" if random.rand() < 0.2 else str(int(random.lognormal(1, 2)) - 1) for _ in range(13)]
        values = ["" if not one else f"{one * 2654435761 % 2**32:08x}" for one in ids]
        lines.append("\t".join([str(int(ids[0] + ids[1] > 4)), *numbers, *values]))
    (folder / "train.tsv").write_text("\n".join(lines) + "\n")
    return ["train.tsv", "name=criteo", f"data.label={NAMES[0]}", "data.dir=data", "processes=1"]


def test_criteo_s_form_is_imported_trained_evaluated_and_served(cli, tmp_path):
    ended = cli(*criteo(tmp_path), program=("-m", "tfscale.importer"))
    assert ended.code == 0, ended.err
    sizes = "task.tables=[" + ",".join(["40"] * 26) + "]"
    run = ("+recipe=dlrm_criteo", "data.dir=data", sizes, "train.until=40ep", "train.global_batch=32", "run.dir=it")
    ended = cli(*run, "optimizer.learning_rate=0.5", "eval.every=20ep", "export.at_end=true", "tracker=none")
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "it" / "result.json").read_text())
    assert result["train_metrics"]["auc"] > 0.9 and 0 < result["metrics"]["auc"] <= 1
    assert "best_auc" not in result["metrics"]
    assert (tmp_path / "it" / "export" / "model.keras").exists()


def test_values_go_to_their_rows_and_gaps_to_the_first(tf):
    number = {"type": "number", "mean": 0.0, "variance": 1.0, "quantiles": [0, 1]}
    columns = {"n": number, "c": {"type": "category", "vocabulary": [["x", 3], ["y", 2]]}, "d": {"type": "date"}}
    label = {"name": "l", "kind": "class", "classes": ["0", "1"]}
    task = Dlrm(columns={"label": label, "columns": columns})
    task.check_data({})
    row = {
        "n": tf.constant([9.0, np.nan, -5]),
        "c": tf.constant(["x", "", "z"]),
        "d": tf.constant(["2020-01-01", "", ""]),
    }
    got = task.preprocess(row, training=False)
    assert got["ids"].numpy().ravel().tolist() == [2, 0, 1]
    assert got["numbers"].shape == (3, 8)
    assert got["numbers"].numpy()[:, 0] == pytest.approx([np.log(10), 0, 0])
    assert (got["numbers"].numpy()[1:, 1:] == 0).all() and np.isfinite(got["numbers"]).all()
    one = {name: value[0] for name, value in row.items()}
    assert (task.preprocess(one, training=False)["numbers"].numpy() == got["numbers"].numpy()[0]).all()
    hashed = Dlrm(columns={"label": label, "columns": columns}, tables=[5])
    assert hashed.preprocess(row, training=False)["ids"].numpy().max() < 5
    for wrong, said in (
        (Dlrm(columns={"label": label, "columns": columns}, tables=[5, 6]), "give one for each of c"),
        (Dlrm(columns={"label": label, "columns": {**columns, "t": {"type": "text"}}}), "task.exclude=.t."),
        (Dlrm(columns={"label": {**label, "kind": "number"}, "columns": columns}), "which of two classes"),
        (Dlrm(columns={"label": label, "columns": {"n": number}}), "numbers and categories"),
    ):
        with pytest.raises(UsageError, match=said):
            wrong.check_data({})
    with pytest.raises(UsageError, match="task.tables=null"):
        Dlrm(numbers=2, tables=[5]).check_data({"numbers": 2, "tables": [4]})
    with pytest.raises(UsageError, match="task.dim=8"):
        Dlrm(bottom=[64, 8])


SMALL = [
    "+recipe=dlrm",
    "data.tables=[300,50,9]",
    "data.train_examples=40000",
    "data.test_examples=5000",
    "tracker=none",
]
SMALL += [
    "train.until=5ep",
    "eval.every=5ep",
    "optimizer.name=sgd",
    "optimizer.learning_rate=1.0",
    "export.at_end=false",
    "run.dir=it",
    "task.partitions=2",
]


@pytest.mark.long
@pytest.mark.slow
def test_on_servers_it_learns_what_one_device_learns(cli, tmp_path):
    """Asynchronous, on real processes: within the spread of three seeds of one device."""

    def figures(folder):
        return json.loads((folder / "it" / "result.json").read_text())["metrics"]

    alone = []
    for seed in range(3):
        (there := tmp_path / f"seed{seed}").mkdir()
        ended = cli(*SMALL, f"train.seed={seed}", cwd=there, deadline=200)
        assert ended.code == 0, ended.err
        alone.append(figures(there)["auc"])
    (there := tmp_path / "servers").mkdir()
    words = ["-m", "tfscale.launch", "--workers", "2", "--ps", "2", "--", *SMALL]
    with (there / "log").open("w") as log:
        job = subprocess.Popen([sys.executable, *words], cwd=there, env=dict(os.environ), stdout=log, stderr=log)
    try:
        assert job.wait(timeout=300) == 0, (there / "log").read_text()[-3000:]
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    spread = max(max(alone) - min(alone), 0.005)
    assert min(alone) - spread <= figures(there)["auc"] <= max(alone) + spread
    assert min(alone) > 0.65
