"""Label noise: labels that look wrong, by a simple model which hasn't seen them.

Owns the models and who is asked. Each label is judged by a model that was fitted to the other four fifths, and
confident learning tells which can't be right (Northcutt, Jiang and Chuang, Confident learning, 2021, by cleanlab). It
finds what the model could know: gradient-boosted trees for tables, logistic regression over small copies for pictures
and over words for texts. A label that only a large model could doubt is not found, and of those that are named some
are right.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfscale.statistics.findings import Finding, Limits
from tfscale.validation.side import Examples, Side

MOST = 20_000  # examples that are looked at
_FOLDS, _FEWEST = 5, 10  # examples of a class
_SHOWN = 3
_TREES = 50
_PARTS = 64  # principal components of small copies
_BETTER = 0.1  # of the errors of the best constant that a model must avoid to be listened to


def label_noise(side: Side, limits: Limits) -> Iterator[Finding]:
    """One finding of the labels of a side, or why they weren't looked at."""
    some = side.examples
    if some is None or not len(some.labels) or limits.noise is None:
        return
    name = str(side.about["label"].get("name", "label"))
    try:
        import cleanlab  # noqa: F401
    except ImportError:
        yield Finding(name, "not looked at", 'wrong labels: pip install "tfscale[validate]"', fails=False)
        return
    places = _chosen(some.labels)
    few = f", of {len(places):,} {side.unit}" if len(places) < len(some.labels) else ""
    if len(np.unique(some.labels[places])) < 2:
        yield Finding(
            name, "not looked at", f"wrong labels: fewer than two classes have {_FEWEST} examples", fails=False
        )
        return
    suspects, right = suspicious(some, places)
    if suspects is None:
        text = f"wrong labels: a simple model is right for {right:.1%}{few}, hardly more than a constant"
        yield Finding(name, "not looked at", text, fails=False)
    elif len(suspects):
        told = [
            f"{some.names[i]} ({side.classes[some.labels[i]]}, rather {side.classes[rather]})" for i, rather in suspects
        ]
        share = len(suspects) / len(places)
        more = f"; and {len(told) - _SHOWN:,} more" if len(told) > _SHOWN else ""
        text = (
            f"{share:.1%} ({len(suspects):,}{few}) look wrong to a simple model that is right for {right:.1%}:"
            f" {'; '.join(told[:_SHOWN])}{more}"
        )
        yield Finding(name, "label noise", text, share > limits.noise, items=told)


def _chosen(labels: np.ndarray) -> np.ndarray:
    """Examples that are looked at, evenly chosen: with a label whose class has enough."""
    counts = np.bincount(labels[labels >= 0], minlength=1)
    places = np.flatnonzero((labels >= 0) & (counts[np.maximum(labels, 0)] >= _FEWEST))
    places = places[:: max(1, -(-len(places) // MOST))]
    kept = np.bincount(labels[places], minlength=len(counts)) >= _FEWEST
    return places[kept[labels[places]]]


def suspicious(some: Examples, places: np.ndarray) -> tuple[list[tuple[int, int]] | None, float]:
    """(places of labels that look wrong, the worst first, each with the class that looks right; how often the model is
    right). None: the model knows too little."""
    from cleanlab.filter import find_label_issues
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    classes, codes = np.unique(some.labels[places], return_inverse=True)
    model, inputs = _model(some, places)
    # One thread, since several that wait for each other take ten times as long on a machine that others use, too
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore")  # of models that would go on converging
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
        chances = cross_val_predict(model, inputs, codes, cv=folds, method="predict_proba")
    right = float((chances.argmax(1) == codes).mean())
    constant = float(np.bincount(codes).max() / len(codes))
    if 1 - right > (1 - _BETTER) * (1 - constant):
        return None, right
    found = find_label_issues(codes, chances, filter_by="both", return_indices_ranked_by="self_confidence", n_jobs=1)
    return [(int(places[i]), int(classes[chances[i].argmax()])) for i in found.tolist()], right


def _model(some: Examples, places: np.ndarray) -> tuple[Any, Any]:
    """(a model, what it is fitted to)."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if some.features is None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        words: Sequence[Sequence[str]] = some.near  # type: ignore[assignment]
        vectors = TfidfVectorizer(tokenizer=str.split, token_pattern=None, lowercase=False, min_df=2, sublinear_tf=True)
        return make_pipeline(vectors, LogisticRegression(max_iter=200)), [" ".join(words[i]) for i in places]
    if some.small is not None:
        few = PCA(min(_PARTS, len(places) // 2), svd_solver="randomized", random_state=0)
        return make_pipeline(StandardScaler(), few, LogisticRegression(C=0.01, max_iter=100)), some.features[places]
    categories = np.array(some.categories, bool)
    trees = HistGradientBoostingClassifier(max_iter=_TREES, categorical_features=categories, random_state=0)
    return trees, some.features[places]
