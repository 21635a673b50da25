"""The page for those who come from Keras leaves no argument and no callback out."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import tfscale

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from-keras.md").read_text()


def named(title: str) -> set[str]:
    """What the table below this title names in its first column."""
    table = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(.*?)`", row)}


def test_every_argument_of_keras_fit_has_a_row(tf):
    import keras

    theirs = set(inspect.signature(keras.Model.fit).parameters) - {"self"}
    assert named("Arguments of `fit`") == theirs
    assert theirs < set(inspect.signature(tfscale.fit).parameters)
    ours = set(inspect.signature(tfscale.fit).parameters) - theirs - {"what", "say"}
    assert {name for name in ours if f"`{name}`" not in PAGE} == set()


def test_every_callback_of_keras_has_a_row(tf):
    import keras

    theirs = {name for name, thing in vars(keras.callbacks).items() if inspect.isclass(thing)}
    assert theirs - {"Callback", "CallbackList", "OrbaxCheckpoint"} <= named("Callbacks")
