"""Who speaks? `+recipe=bert`, pre-trained and fine-tuned, beside a linear model on tf-idf, on the plays of Shakespeare.

    python -m benchmarks.speakers tinyshakespeare.txt --seeds 0 1 2      # of github.com/karpathy/char-rnn

The text is a name, a colon and what is said, by turns. The ten speakers with most lines are told apart by single
speeches, shared out by the hash of their words into 70 % to train on, 15 % to choose by and 15 % to test, so that the
same words stand in one split alone. BERT-tiny is pre-trained on the speeches to train on and on those of all other
speakers, but for words that are to be tested, and then fine-tuned; beside it the same without pre-training. Of its
checkpoints the one with the best accuracy in the validation split is tested, as `tfscale evaluate` does. The linear
model is scikit-learn's logistic regression on tf-idf of words and pairs, its strength chosen in the same way; it has no
seed. Needs scikit-learn and the extra `text`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SPEAKERS, SPLITS, LENGTH = 10, ("train", "validation", "test"), 64
ROW = "| {:<52} | {:>4} | {:>10} | {:>8} | {:>7} |"
Speech = dict[str, str]  # "text" and "speaker"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--more", nargs="*", default=[], help="overrides of the pre-training")
    parser.add_argument("--fine", nargs="*", default=[], help="overrides of the fine-tuning")
    parser.add_argument(
        "--files", type=Path, help="write the splits there and stop: two folders for tfscale data import"
    )
    options = parser.parse_args(words)
    labelled, spoken = split(speeches(options.text.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.files or Path(scratch)
        write(folder / "speakers", labelled)
        write(folder / "speeches", spoken)
        print(", ".join(f"{len(labelled[name])} speeches to {name}" for name in SPLITS), end="; ")
        print(f"{len(spoken['train'])} to pre-train on")
        if options.files:
            return
        print(ROW.format("", "seed", "validation", "test", "seconds"))
        print("|---" * 5 + "|")
        print(ROW.format(*_linear(labelled)), flush=True)
        for row in _ours(options, Path(scratch)):
            print(ROW.format(*row), flush=True)


def speeches(text: str) -> list[Speech]:
    """Every turn in its order."""
    found = []
    for turn in text.split("\n\n"):
        name, _, said = turn.strip().partition(":\n")
        if said.strip() and "\n" not in name:
            found.append({"speaker": name, "text": said.strip()})
    return found


def split(turns: Sequence[Speech]) -> tuple[dict[str, list[Speech]], dict[str, list[Speech]]]:
    """(speeches of those who have most lines, by split; what may be pre-trained on, by split)."""
    lines = Counter[str]()
    for turn in turns:
        lines[turn["speaker"]] += turn["text"].count("\n") + 1
    most = {name for name, _ in sorted(lines.items(), key=lambda one: (-one[1], one[0]))[:SPEAKERS]}
    labelled: dict[str, list[Speech]] = {name: [] for name in SPLITS}
    for turn in turns:
        if turn["speaker"] in most:
            labelled[_split_of(turn)].append(turn)
    known = {name: {_words(turn) for turn in some} for name, some in labelled.items()}
    free = [turn for turn in turns if _words(turn) not in known["validation"] | known["test"]]
    return labelled, {"train": free, "validation": labelled["validation"]}


def _words(turn: Speech) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in turn["text"].lower()).split())


def _split_of(turn: Speech) -> str:
    part = int(hashlib.sha256(_words(turn).encode()).hexdigest(), 16) % 20
    return "train" if part < 14 else "validation" if part < 17 else "test"


def write(folder: Path, splits: Mapping[str, Sequence[Speech]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, turns in splits.items():
        has_label = "test" in splits
        lines = [json.dumps(turn if has_label else {"text": turn["text"]}, ensure_ascii=False) for turn in turns]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _linear(labelled: Mapping[str, Sequence[Speech]]) -> tuple[str, ...]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    began = time.monotonic()
    texts = {name: [turn["text"] for turn in turns] for name, turns in labelled.items()}
    speakers = {name: [turn["speaker"] for turn in turns] for name, turns in labelled.items()}
    found = []
    for strength in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0):
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        model = make_pipeline(words, LogisticRegression(C=strength, max_iter=2000))
        model.fit(texts["train"], speakers["train"])
        scores = [float(model.score(texts[name], speakers[name])) for name in SPLITS[1:]]
        found.append((scores[0], scores[1], strength))
    validation, test, strength = max(found)
    largest = Counter(speakers["test"]).most_common(1)[0][1] / len(speakers["test"])
    name = f"tf-idf, logistic regression, C={strength:g} (largest: {largest:.3f})"
    return name, "", f"{validation:.4f}", f"{test:.4f}", f"{time.monotonic() - began:.0f}"


def _ours(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, ...]]:
    _run(scratch, "tfscale", "data", "import", "speeches", "name=speeches", "data.text.tokenizer=bpe",
         "data.text.vocabulary=2048")  # fmt: skip
    (tokenizer,) = (scratch / "data" / "speeches").rglob("tokenizer.model")
    _run(scratch, "tfscale", "data", "import", "speakers", "name=speakers", "data.label=speaker",
         f"data.text.tokenizer={tokenizer}")  # fmt: skip
    for seed in options.seeds:
        shared = ["+recipe=bert", "data=text", f"data.length={LENGTH}", f"train.seed={seed}", "tracker=none",
                  "export.at_end=false"]  # fmt: skip
        fine = ["data.name=speakers", "task.objective=classification", "task.dropout=0.1", "train.until=10ep",
                "train.global_batch=16", "eval.every=1ep", "checkpoint.every=1ep", "checkpoint.metric=accuracy",
                "checkpoint.mode=max",
                "optimizer.warmup=1ep", "optimizer.learning_rate=5e-4", *options.fine]  # fmt: skip
        began = time.monotonic()
        more = [
            "data.name=speeches",
            "train.until=4000st",
            "train.global_batch=32",
            f"run.dir=before-{seed}",
            *options.more,
        ]
        _run(scratch, "tfscale.train", *shared, *more)
        for name, start in (("pre-trained", [f"init_from=before-{seed}"]), ("fresh", [])):
            run_dir = f"run.dir={name}-{seed}"
            _run(scratch, "tfscale.train", *shared, *fine, *start, run_dir)
            seconds = time.monotonic() - began
            found = [_accuracy(scratch, f"{name}-{seed}", split_name) for split_name in SPLITS[1:]]
            shown = " ".join([f"+recipe=bert, {name}, fine-tuned", *options.more, *options.fine])
            yield shown, str(seed), *(f"{one:.4f}" for one in found), f"{seconds:.0f}"
            began = time.monotonic()


def _accuracy(scratch: Path, run: str, split_name: str) -> float:
    _run(scratch, "tfscale.evaluate", f"run.dir={run}", f"data.test_split={split_name}")
    newest = max((scratch / run).glob("evaluation-*.json"), key=lambda file: file.stat().st_mtime_ns)
    return float(json.loads(newest.read_text())["metrics"]["accuracy"])


def _run(scratch: Path, module: str, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=scratch, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{module} {' '.join(words)}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
