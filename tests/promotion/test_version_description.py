"""What MLflow's page says of a version, of which it keeps 5,000 characters."""

from __future__ import annotations

import re

from tfscale.export.model_card import model_card
from tfscale.export.run_facts import RunFacts
from tfscale.promotion.version_description import MOST, described

ABOUT = {
    "step": 7,
    "inputs": {"image": {"shape": [None], "dtype": "string"}},
    "outputs": {"class": {"shape": [None], "dtype": "int32"}},
    "files": {"model.keras": {"bytes": 9}},
    "live_precision": "float32",
    "samples": 8,
    "differences": {"saved_model": 1e-7},
    "versions": {"tfscale": "0.1.0", "keras": "3.15.1"},
}
DATA = {"name": "pets", "version": "4.0.0", "hash": "1db9", "splits": {"train": {"examples": 3680}}}


def facts(**origin: str) -> RunFacts:
    plan = {"precision": "float32", "strategy": "one_device", "num_replicas": 1, "num_workers": 1, "global_batch": 64}
    found = {"metrics": {"accuracy": 0.98}, "split": "test", "result": {"data": DATA}, "plan": plan}
    return RunFacts("Classifier", "resnet", **found, origin={"licence": "CC BY-SA 4.0", **origin})


FIRST = ("| licence | CC BY-SA 4.0 |", "| accuracy | 0.98 |", "| examples of a step | 64 |", "| keras | 3.15.1 |")


def test_a_card_that_has_room_is_there_whole_but_for_its_head():
    card = model_card(ABOUT, facts())
    text = described("pets/1, step 7. It was better.", card)
    assert text.splitlines()[0] == "pets/1, step 7. It was better."
    assert all(said in text for said in FIRST)
    assert "library_name" not in text and text.endswith("files of this version.")
    assert re.findall("^## .*", text, re.M) == re.findall("^## .*", card, re.M)
    assert described("one line", "") == "one line"


def test_what_has_no_room_is_named_and_data_and_figures_are_not_what_it_is():
    many = {**ABOUT, "inputs": {f"column_{n}": {"shape": [None], "dtype": "float32"} for n in range(200)}}
    text = described("pets/1.", model_card(many, facts(description="A long story. " * 400, citation="@book{" * 900)))
    assert len(text) <= MOST and "column_7" not in text and "Left out here: Inputs and outputs." in text
    assert "| description | A long story." in text and " ... |\n" in text  # cut, and still a row of the table
    assert all(said in text for said in FIRST)
